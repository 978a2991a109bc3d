from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noise.samples import names, noisy, seeds

from dspt.configuration import FitConfig, build_config
from dspt.errors import UserError
from dspt.noise import NoiseSpec, resolve, transition_counts

GOOD = "0.5,0.25,0.25\n0,1,0\n0.1,0.2,0.7\n"
ROWS = [[0.5, 0.25, 0.25], [0, 1, 0], [0.1, 0.2, 0.7]]


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> NoiseSpec:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return NoiseSpec(kind="matrix", matrix=str(folder / name))


def test_resolving_pins_the_content_of_the_file(tmp_path: Path) -> None:
    spec = write(tmp_path, GOOD)
    resolved = resolve(spec)
    assert resolved.matrix_sha256 == hashlib.sha256(GOOD.encode()).hexdigest()
    assert resolved.model_copy(update={"matrix_sha256": None}) == spec
    (tmp_path / "t.csv").unlink()
    assert resolve(resolved) == resolved  # what is pinned needs no file to be read back
    for other in ("none", "symmetric:0.5", "column:human"):
        assert resolve(NoiseSpec.parse(other)) == NoiseSpec.parse(other)


def test_a_configuration_pins_the_matrix_and_can_be_read_without_it(tmp_path: Path) -> None:
    spec = write(tmp_path, GOOD)
    config = build_config(data="d", noise=str(spec))
    assert config.noise == resolve(spec)
    assert build_config(data="d", noise=spec) == config
    (tmp_path / "t.csv").unlink()
    assert FitConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(
        UserError, match=r"^noise: matrix:.*cannot be read \(No such file"
    ) as caught:
        build_config(data="d", noise=str(spec))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (GOOD, "t.csv"),
        ("\ufeff" + GOOD.replace("\n", "\r\n"), "t.CSV"),
        ("\n" + GOOD.replace(",", " , ") + "\n\n", "t.csv"),
        ('"0.5",0.25,2.5e-1\n0,1,0\n0.1,0.2,0.7', "t.csv"),
        (json.dumps(ROWS), "t.json"),
        (json.dumps(ROWS, indent=2), "t.json"),
    ],
)
def test_both_formats_mean_the_same_labels(content: str, name: str, tmp_path: Path) -> None:
    labels = np.arange(60) % 3
    expected = noisy(labels, resolve(write(tmp_path, GOOD, "good.csv")), 3)
    assert (noisy(labels, resolve(write(tmp_path, content, name)), 3) == expected).all()


def test_labels_follow_the_rows(tmp_path: Path) -> None:
    """30,000 labels against the matrix: chi-square for each row; what has no chance never comes."""
    from scipy.stats import chi2

    spec = resolve(write(tmp_path, GOOD))
    labels = np.arange(30_000) % 3
    counts = transition_counts(labels, noisy(labels, spec, 3, 0), 3)
    for row, chances in zip(counts, np.array(ROWS), strict=True):
        possible = chances > 0
        assert row[~possible].sum() == 0
        expected = chances[possible] * 10_000
        assert ((row[possible] - expected) ** 2 / expected).sum() <= chi2.ppf(0.999, 2)


@st.composite
def stochastic(draw: st.DrawFn) -> list[list[float]]:
    """Row-stochastic matrices with many zeros."""
    size = draw(st.integers(2, 6))
    rows = draw(
        st.lists(
            st.lists(st.integers(0, 3), min_size=size, max_size=size).filter(any),
            min_size=size,
            max_size=size,
        )
    )
    return [[n / sum(row) for n in row] for row in rows]


@settings(deadline=None)
@given(stochastic(), seeds)
def test_a_label_without_a_chance_is_never_given(tmp_path_factory, rows, seed) -> None:
    spec = resolve(write(tmp_path_factory.mktemp("m"), json.dumps(rows), "t.json"))
    labels = np.arange(80) % len(rows)
    given_labels = noisy(labels, spec, len(rows), seed)
    assert (np.array(rows)[labels, given_labels] > 0).all()


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    spec = resolve(write(tmp_path, GOOD))
    write(tmp_path, GOOD + "\n")
    with pytest.raises(UserError, match="has changed since the run was set up") as caught:
        noisy([0, 1, 2], spec, 3)
    assert str(spec.matrix_sha256)[:12] in str(caught.value)
    (tmp_path / "t.csv").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        noisy([0, 1, 2], spec, 3)


def test_a_matrix_of_another_size_is_refused(tmp_path: Path) -> None:
    spec = resolve(write(tmp_path, GOOD))
    with pytest.raises(UserError, match="has 3 rows, the data 4 classes"):
        noisy([0, 1, 2, 3], spec, 4)


def test_an_unresolved_matrix_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resolve") as caught:
        noisy([0, 1, 2], write(tmp_path, GOOD), 3, keys=names(3))
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "t.csv", "must hold a matrix"),
        ("\n \n", "t.csv", "must hold a matrix"),
        ("0.5,0.5\n0.5,0.4\n", "t.csv", "row 2 of 2 sums to 0.9; every row must sum to 1"),
        ("0.5,0.5\n0.5,0.50001\n", "t.csv", "row 2 of 2 sums to 1.00001"),
        ("1,0\n1.5,-0.5\n", "t.csv", "row 2 of 2, entry 1 is '1.5'; must be a number from 0 to 1"),
        ("1,0\n1.0,-0.5\n", "t.csv", "row 2 of 2, entry 2 is '-0.5'"),
        ("1,0\n0,nan\n", "t.csv", "row 2 of 2, entry 2 is 'nan'"),
        ("1,0\n0,\n", "t.csv", "row 2 of 2, entry 2 is ''"),
        ("cat,dog\n1,0\n0,1\n", "t.csv", "row 1 of 3 has 2 entries; the matrix must be square"),
        ("1;0\n0;1\n", "t.csv", "row 1 of 2 has 1 entries"),
        (b"\xff\xfe1,0", "t.csv", "no CSV file"),
        ("[[1, 0], [0, 1]", "t.json", "no JSON file"),
        ("[" * 100_000, "t.json", "no JSON file"),
        ("[[1" + "0" * 5000 + "]]", "t.json", "no JSON file"),
        ("[[1" + "0" * 400 + "]]", "t.json", "row 1 of 1, entry 1 is '1000"),
        ('{"a": [1]}', "t.json", "must hold a matrix"),
        ("[1, 0]", "t.json", "must hold a matrix"),
        ("[]", "t.json", "must hold a matrix"),
        ("[[true, false], [0, 1]]", "t.json", "row 1 of 2, entry 1 is 'True'"),
        ("[[NaN, 1], [0, 1]]", "t.json", "row 1 of 2, entry 1 is 'nan'"),
        ("[[null, 1], [0, 1]]", "t.json", "row 1 of 2, entry 1 is 'None'"),
        (GOOD, "t.txt", "must be a .csv or .json file"),
        (GOOD, "t", "must be a .csv or .json file"),
    ],
)
def test_a_bad_matrix_is_refused_with_its_row(content, name, said, tmp_path: Path) -> None:
    spec = write(tmp_path, content, name)
    with pytest.raises(UserError) as caught:
        resolve(spec)
    message = str(caught.value)
    assert said in message
    assert message.startswith(f"matrix:{tmp_path / name}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(tmp_path)) + 200


@pytest.mark.parametrize("file", ["missing.csv", "a\0b.csv"])
def test_a_file_that_cannot_be_read_is_refused(file: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        resolve(NoiseSpec(kind="matrix", matrix=file))


def test_what_is_no_matrix_file_is_not_read(tmp_path: Path) -> None:
    for file in (".", "/dev/zero", "matrix.npy"):  # the second never ends
        with pytest.raises(UserError, match=r"must be a \.csv or \.json file"):
            resolve(NoiseSpec(kind="matrix", matrix=file))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "device.csv").symlink_to("/dev/zero")
    for name in ("folder.csv", "device.csv"):
        with pytest.raises(UserError, match="is no file"):
            resolve(NoiseSpec(kind="matrix", matrix=str(tmp_path / name)))
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(2**40)  # takes no space
    with pytest.raises(UserError, match="larger than"):
        resolve(NoiseSpec(kind="matrix", matrix=str(tmp_path / "large.csv")))


def test_the_line_stays_one_line() -> None:
    with pytest.raises(UserError) as caught:
        resolve(NoiseSpec(kind="matrix", matrix="a\nb.csv"))
    assert len(str(caught.value).splitlines()) == 1


def test_rounded_rows_are_accepted_and_used_in_proportion(tmp_path: Path) -> None:
    spec = resolve(write(tmp_path, "0.3333333,0.3333333,0.3333333\n0,1,0\n0,0,1\n"))
    given_labels = noisy(np.zeros(9000, dtype=int), spec, 3)
    assert np.bincount(given_labels) == pytest.approx([3000] * 3, abs=200)
