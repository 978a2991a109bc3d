"""What holds for every protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noise.samples import (
    EXCHANGES,
    FLIPS,
    balanced,
    features,
    labelled,
    names,
    noisy,
    rates,
    seeds,
)

from dspt.errors import UserError
from dspt.noise import NoiseSpec, resolve, transition_counts

KEYS = [f"class/{i:02}.jpg" for i in range(12)]
TRUE = np.arange(12) % 4
FEATURES = np.outer(np.arange(1, 13), [1, -2, 3, 5, 7]) % 11 - 5.25  # a table without any rounding
MATRIX = "0.5,0.25,0.25,0\n0,1,0,0\n0.125,0.125,0.25,0.5\n0.25,0.25,0.25,0.25\n"
GOLDEN = [
    ("symmetric:0.5", 0, [1, 1, 2, 3, 0, 2, 3, 1, 0, 0, 2, 0]),
    ("asymmetric:0.25", 3, [1, 1, 2, 3, 0, 1, 3, 3, 0, 2, 2, 3]),
    ("pair:0.5", 0, [1, 1, 2, 3, 0, 1, 3, 0, 0, 2, 2, 3]),
    ("replace:0.67", 0, [3, 1, 2, 3, 1, 0, 3, 2, 0, 2, 0, 1]),
    ("replace-pair:0.34", 3, [1, 1, 2, 3, 0, 1, 3, 3, 0, 2, 2, 0]),
    ("instance:0.5", 0, [3, 1, 2, 2, 0, 2, 3, 0, 0, 2, 0, 2]),
    ("matrix:t.csv", 0, [2, 1, 2, 3, 0, 1, 0, 0, 1, 1, 1, 0]),
]
ALL = [*(f"{kind}:0.5" for kind in [*FLIPS, *EXCHANGES, "instance"]), "matrix:t.csv"]

DIGESTS = {
    "symmetric:0.5": "24eff2fac54eb0d2",
    "asymmetric:0.5": "c61f6afdb05b8e85",
    "pair:0.5": "9b4ed4e7eb583120",
    "replace:0.5": "e31428ce2fcf3dce",
    "replace-pair:0.5": "9b4ed4e7eb583120",
    "instance:0.5": "4064d33ee7f3a386",
    "matrix:t.csv": "9e715f4d8eb4b978",
}


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the matrix file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(MATRIX)
    return tmp_path


def drawn(text: str, labels: np.ndarray, seed: int, keys: list[str], table: object) -> np.ndarray:
    return noisy(labels, resolve(NoiseSpec.parse(text)), 4, seed, keys, features=table)


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize(("text", "seed", "expected"), GOLDEN)
def test_labels_are_pinned_for_every_platform_and_version(text, seed, expected) -> None:
    """If this fails, old runs cannot be reproduced any more: do not update the numbers."""
    assert drawn(text, TRUE, seed, KEYS, FEATURES).tolist() == expected


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("text", ALL)
def test_many_labels_are_pinned_as_well(text: str) -> None:
    """800 labels with seed 0. Do not update the numbers."""
    table = np.outer(np.arange(1, 801), [1, -2, 3, 5, 7, 11]) % 13 - 6.25
    labels = drawn(text, balanced(4, 200), 0, names(800), table)
    assert sha256(labels.astype("<i8").tobytes()).hexdigest()[:16] == DIGESTS[text]


def test_a_fresh_process_gives_the_same_labels(in_folder: Path) -> None:
    code = (
        "import numpy as np; from dspt.noise import *;"
        f"features = np.array({FEATURES.tolist()!r});"
        f"[print(apply_noise(np.arange(12) % 4, resolve(NoiseSpec.parse(text)), 4, seed, {KEYS!r},"
        f" features=features).tolist()) for text, seed, _ in {GOLDEN!r}]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=in_folder,
        env={**os.environ, "PYTHONHASHSEED": "5", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.splitlines() == [str(labels) for *_, labels in GOLDEN]


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("text", ALL)
def test_seeds_differ_and_zero_is_one_of_them(text: str) -> None:
    labels, table, keys = balanced(4, 100), features(400), names(400)
    draws = [drawn(text, labels, seed, keys, table) for seed in (0, 1, 2)]
    for seed, first in enumerate(draws):
        assert (first == drawn(text, labels, seed, keys, table)).all()
        for second in draws[:seed]:
            if not text.startswith("matrix"):
                overlap = np.mean((first != labels) & (second != labels))
                assert 0.18 < overlap < 0.32  # independent draws share a quarter
            assert (first != second).mean() > 0.2


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("text", ALL)
@settings(deadline=None, max_examples=20)
@given(seed=seeds, shots=st.integers(1, 20), random=st.randoms())
def test_the_order_of_the_samples_does_not_matter(text, seed, shots, random) -> None:
    labels, table, keys = balanced(4, shots), features(4 * shots), names(4 * shots)
    order = np.array(random.sample(range(len(labels)), len(labels)))
    straight = drawn(text, labels, seed, keys, table)
    shuffled = drawn(text, labels[order], seed, [keys[i] for i in order], table[order])
    assert (shuffled == straight[order]).all()


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("text", ["instance:0.5", "matrix:t.csv"])
def test_noise_drawn_sample_by_sample_does_not_depend_on_the_others(text: str) -> None:
    labels, table, keys = balanced(4, 50), features(200), names(200)
    part = np.arange(3, 200, 7)
    alone = drawn(text, labels[part], 0, [keys[i] for i in part], table[part])
    assert (alone == drawn(text, labels, 0, keys, table)[part]).all()


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("text", ["none", *ALL])
def test_labels_are_copied_and_no_samples_are_no_problem(text: str) -> None:
    before = TRUE.copy()
    given_labels = drawn(text, TRUE, 0, KEYS, FEATURES)
    given_labels[:] = 0
    assert (before == TRUE).all()
    none = drawn(text, TRUE[:0], 0, [], FEATURES[:0])
    assert (none.dtype, none.shape) == (np.int64, (0,))


@settings(deadline=None)
@given(labelled(), st.sampled_from(FLIPS), rates, rates)
def test_a_lower_rate_of_a_flip_is_part_of_a_higher_one(data, kind, first, second) -> None:
    labels, num_classes, seed = data
    low, high = (
        noisy(labels, f"{kind}:{rate!r}", num_classes, seed) for rate in sorted([first, second])
    )
    wrong = low != labels
    assert (high[wrong] == low[wrong]).all()


def test_which_samples_are_wrong_is_shared_by_the_protocols() -> None:
    """So that two protocols differ in as little as they can."""
    labels = balanced(5, 40)
    symmetric = noisy(labels, "symmetric:0.3", 5) != labels
    assert ((noisy(labels, "asymmetric:0.3", 5) != labels) == symmetric).all()
    assert ((noisy(labels * 0, "symmetric:0.3", 5) != 0) == symmetric).all()
    pair = noisy(labels, "pair:0.3", 5) != labels
    assert ((noisy(labels, "replace:0.3", 5) != labels) == pair).all()
    assert (pair & symmetric).sum() > 0.8 * pair.sum()


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("text", ALL)
def test_one_class_has_no_wrong_label(text: str) -> None:
    spec = resolve(NoiseSpec.parse(text))
    with pytest.raises(UserError, match="at least two classes, the data has 1"):
        noisy([0, 0], spec, 1, features=features(2))


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        ([0, 3], ["a", "b"]),
        ([0, -1], ["a", "b"]),
        ([0, 1], ["a"]),
        ([0, 1], ["a", "a"]),
        ([0, 1], [1, "1"]),
        ([[0, 1]], ["a"]),
    ],
)
def test_arguments_that_do_not_fit_together_are_a_bug(labels, keys) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        noisy(labels, "symmetric:0.5", 3, keys=keys)
    assert not isinstance(caught.value, UserError)


@settings(deadline=None)
@given(labelled(), st.sampled_from(FLIPS), rates)
def test_transition_counts_add_up(data, kind, rate) -> None:
    labels, num_classes, seed = data
    given_labels = noisy(labels, f"{kind}:{rate!r}", num_classes, seed)
    counts = transition_counts(labels, given_labels, num_classes)
    assert (counts.sum(axis=1) == np.bincount(labels, minlength=num_classes)).all()
    assert (counts.sum(axis=0) == np.bincount(given_labels, minlength=num_classes)).all()
    assert counts.sum() - np.trace(counts) == (labels != given_labels).sum()


def test_transition_counts() -> None:
    counts = transition_counts(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert counts.dtype == np.int64


@pytest.mark.parametrize(("true", "given_labels"), [([0, 3], [0, 0]), ([0], [-1]), ([0], [0, 1])])
def test_transition_counts_refuse_what_does_not_fit(true, given_labels) -> None:
    with pytest.raises(ValueError, match="labels must"):
        transition_counts(np.array(true), np.array(given_labels), 3)
