from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dspt.errors import UserError
from dspt.noise import NoiseSpec, apply_noise, transition_counts

KEYS = [f"class/{i:02}.jpg" for i in range(12)]
TRUE = np.arange(12) % 4
SYMMETRIC = [1, 1, 2, 3, 0, 2, 3, 1, 0, 0, 2, 0]
ASYMMETRIC = [1, 1, 2, 3, 0, 1, 3, 3, 0, 2, 2, 3]


def flip(labels, spec: str, num_classes: int, seed: int = 1, keys=None) -> np.ndarray:
    keys = [f"{i}.jpg" for i in range(len(labels))] if keys is None else keys
    return apply_noise(np.asarray(labels), NoiseSpec.parse(spec), num_classes, seed, keys)


# --- the specification ---


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("none", {}),
        ("symmetric:0.5", {"kind": "symmetric", "rate": 0.5}),
        ("asymmetric:0.25", {"kind": "asymmetric", "rate": 0.25}),
        ("symmetric:0", {"kind": "symmetric", "rate": 0.0}),
        ("symmetric:1", {"kind": "symmetric", "rate": 1.0}),
        ("asymmetric:1e-3", {"kind": "asymmetric", "rate": 0.001}),
        ("column:worse_label", {"kind": "column", "column": "worse_label"}),
        ("column:a:b c", {"kind": "column", "column": "a:b c"}),
    ],
)
def test_parse(text: str, fields: dict) -> None:
    assert NoiseSpec.parse(text) == NoiseSpec(**fields)


flips = st.builds(
    NoiseSpec, kind=st.sampled_from(["symmetric", "asymmetric"]), rate=st.floats(0.0, 1.0)
)
human = st.builds(NoiseSpec, kind=st.just("column"), column=st.text(min_size=1))


@settings(deadline=None)
@given(st.one_of(st.just(NoiseSpec()), flips, human))
def test_text_and_json_round_trip(spec: NoiseSpec) -> None:
    assert NoiseSpec.parse(str(spec)) == spec
    assert NoiseSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("sym:0.5", "symmetric:0.5"),
        ("Symmetric:0.5", "symmetric:0.5"),
        ("symetric:0.25", "symmetric:0.25"),
        ("asym:0.4", "asymmetric:0.4"),
        ("pairflip:0.4", "asymmetric:0.4"),
        ("symmetric:50", "symmetric:0.5"),
        ("symmetric:12.5%", "symmetric:0.125"),
        ("symmetric", "symmetric:0.5"),
        ("symmetric:-1", "symmetric:0.5"),
        ("symmetric:nan", "symmetric:0.5"),
        ("symmetric:inf", "symmetric:0.5"),
        (" symmetric:0.5", "symmetric:0.5"),
        ("none:0.5", "none"),
        ("clean", "none"),
        ("col:worse_label", "column:worse_label"),
        ("column:", "column:NAME"),
    ],
)
def test_a_near_miss_is_refused_with_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match="did you mean") as caught:
        NoiseSpec.parse(text)
    assert f'did you mean "{meant}"?' in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", ":", "0.5", "gaussian:0.5"])
def test_nonsense_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ValueError, match='allowed: "none", "symmetric:RATE"') as caught:
        NoiseSpec.parse(text)
    assert "did you mean" not in str(caught.value)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_spec_or_a_one_line_error(text: str) -> None:
    reason = None
    try:
        assert NoiseSpec.parse(str(NoiseSpec.parse(text))) == NoiseSpec.parse(text)
    except ValueError as error:
        reason = error
    if reason is not None:
        assert type(reason) is ValueError  # and not the many lines of pydantic
        assert len(str(reason).splitlines()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "none", "rate": 0.5},
        {"kind": "column", "column": "a", "rate": 0.5},
        {"kind": "column"},
        {"kind": "column", "column": ""},
        {"kind": "symmetric", "rate": 0.5, "column": "a"},
        {"kind": "symmetric", "rate": 1.01},
        {"kind": "symmetric", "rate": -0.01},
        {"kind": "symmetric", "rate": float("nan")},
        {"kind": "symmetric", "rate": float("inf")},
        {"kind": "gaussian"},
        {"kind": "none", "extra": 1},
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        NoiseSpec(**fields)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        NoiseSpec().rate = 0.5


# --- the flips ---


def test_labels_are_pinned_for_every_platform_and_version() -> None:
    """If this fails, old runs cannot be reproduced any more: do not update the numbers."""
    assert flip(TRUE, "symmetric:0.5", 4, seed=0, keys=KEYS).tolist() == SYMMETRIC
    assert flip(TRUE, "asymmetric:0.25", 4, seed=3, keys=KEYS).tolist() == ASYMMETRIC


def test_a_fresh_process_gives_the_same_labels() -> None:
    code = (
        "import numpy as np; from dspt.noise import *;"
        "spec = NoiseSpec.parse('symmetric:0.5');"
        f"print(apply_noise(np.arange(12) % 4, spec, 4, 0, {KEYS!r}).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "5", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == f"{SYMMETRIC}\n"


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Labels, number of classes, seed."""
    num_classes = draw(st.integers(2, 12))
    labels = draw(st.lists(st.integers(0, num_classes - 1), max_size=80))
    return np.array(labels, dtype=np.int64), num_classes, draw(st.integers(-5, 2**65))


rates = st.one_of(st.floats(0, 1), st.integers(0, 100).map(lambda percent: percent / 100))
kinds = st.sampled_from(["symmetric", "asymmetric"])


@settings(deadline=None)
@given(labelled(), kinds, rates)
def test_exactly_the_rate_is_wrong_and_every_label_is_valid(data, kind, rate) -> None:
    labels, num_classes, seed = data
    before = labels.copy()
    given_labels = flip(labels, f"{kind}:{rate!r}", num_classes, seed)
    assert given_labels.dtype == np.int64
    assert (labels == before).all()
    wrong = given_labels != labels
    assert wrong.sum() == int(rate * len(labels) + 1e-9)
    assert ((given_labels >= 0) & (given_labels < num_classes)).all()
    if kind == "asymmetric":
        assert (given_labels[wrong] == (labels[wrong] + 1) % num_classes).all()


@pytest.mark.parametrize("n", [1, 7, 16, 100, 1000, 1600])
def test_a_rate_in_percent_means_that_many_in_a_hundred(n: int) -> None:
    labels = np.zeros(n, dtype=np.int64)
    for percent in range(101):
        wrong = int((flip(labels, f"symmetric:{percent / 100!r}", 3) != labels).sum())
        assert wrong == int(Fraction(percent, 100) * n)


@settings(deadline=None)
@given(labelled(), kinds, rates, rates)
def test_a_lower_rate_is_part_of_a_higher_one(data, kind, first, second) -> None:
    labels, num_classes, seed = data
    low, high = (
        flip(labels, f"{kind}:{rate!r}", num_classes, seed) for rate in sorted([first, second])
    )
    wrong = low != labels
    assert (high[wrong] == low[wrong]).all()


@settings(deadline=None)
@given(labelled(), kinds, rates, st.randoms())
def test_the_order_of_the_samples_does_not_matter(data, kind, rate, random) -> None:
    labels, num_classes, seed = data
    keys = [f"{i}.jpg" for i in range(len(labels))]
    order = np.array(random.sample(range(len(labels)), len(labels)), dtype=np.int64)
    straight = flip(labels, f"{kind}:{rate!r}", num_classes, seed, keys)
    shuffled = flip(labels[order], f"{kind}:{rate!r}", num_classes, seed, [keys[i] for i in order])
    assert (shuffled == straight[order]).all()


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_seeds_differ_and_zero_is_one_of_them(kind: str) -> None:
    labels = np.arange(400) % 10
    draws = [flip(labels, f"{kind}:0.5", 10, seed) for seed in (0, 1, 2)]
    for i, first in enumerate(draws):
        assert (first == flip(labels, f"{kind}:0.5", 10, i)).all()
        for second in draws[:i]:
            overlap = np.mean((first != labels) & (second != labels))
            assert 0.2 < overlap < 0.3  # independent draws share a quarter


def test_symmetric_is_uniform_over_the_other_classes() -> None:
    """9,000 wrong labels of one class into 9 others: chi-square with 8 degrees of freedom."""
    given_labels = flip(np.full(9000, 4), "symmetric:1", 10)
    counts = np.bincount(given_labels, minlength=10)
    assert counts[4] == 0
    others = np.delete(counts, 4)
    assert ((others - 1000) ** 2 / 1000).sum() < 26.1  # 0.1 % of uniform draws exceed it


def test_which_samples_are_wrong_does_not_depend_on_the_kind_or_the_label() -> None:
    labels = np.arange(200) % 5
    symmetric = flip(labels, "symmetric:0.3", 5) != labels
    assert ((flip(labels, "asymmetric:0.3", 5) != labels) == symmetric).all()
    assert ((flip(labels * 0, "symmetric:0.3", 5) != 0) == symmetric).all()


def test_none_gives_a_copy_of_the_labels() -> None:
    labels = np.array([0, 1, 2])
    given_labels = flip(labels, "none", 3)
    given_labels[0] = 2
    assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_one_class_has_no_wrong_label(kind: str) -> None:
    with pytest.raises(UserError, match="at least two classes, the data has 1"):
        flip([0, 0], f"{kind}:0.5", 1)


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
        flip(labels, "symmetric:0.5", 3, keys=keys)
    assert not isinstance(caught.value, UserError)


# --- label columns ---


def from_column(spec: str, columns: dict[str, list[int]] | None) -> np.ndarray:
    arrays = None if columns is None else {k: np.array(v) for k, v in columns.items()}
    keys = ["a.jpg", "b.jpg", "c.jpg"]
    return apply_noise(np.array([0, 1, 2]), NoiseSpec.parse(spec), 3, 1, keys, arrays)


def test_a_column_gives_its_labels() -> None:
    columns = {"worse_label": [2, 1, 0]}
    given_labels = from_column("column:worse_label", columns)
    assert given_labels.tolist() == [2, 1, 0]
    assert given_labels.dtype == np.int64


def test_a_missing_column_is_refused_with_those_that_exist() -> None:
    columns = {"worse_label": [2, 1, 0], "aggre_label": [0, 1, 2]}
    with pytest.raises(UserError, match="found: aggre_label, worse_label; did you mean") as caught:
        from_column("column:worst_label", columns)
    assert '"column:worse_label"?' in str(caught.value)
    with pytest.raises(UserError, match=r"found: none$"):
        from_column("column:worst_label", None)


@pytest.mark.parametrize("bad", [-1, 3])
def test_a_missing_label_in_a_column_is_refused_with_its_sample(bad: int) -> None:
    with pytest.raises(UserError, match=r"1 of 3 training samples, first b\.jpg"):
        from_column("column:human", {"human": [0, bad, 1]})


def test_a_column_of_another_length_is_a_bug() -> None:
    with pytest.raises(ValueError, match="shape"):
        from_column("column:human", {"human": [0, 1]})


# --- counting ---


def test_transition_counts() -> None:
    counts = transition_counts(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert counts.dtype == np.int64


@settings(deadline=None)
@given(labelled(), kinds, rates)
def test_transition_counts_add_up(data, kind, rate) -> None:
    labels, num_classes, seed = data
    given_labels = flip(labels, f"{kind}:{rate!r}", num_classes, seed)
    counts = transition_counts(labels, given_labels, num_classes)
    assert (counts.sum(axis=1) == np.bincount(labels, minlength=num_classes)).all()
    assert (counts.sum(axis=0) == np.bincount(given_labels, minlength=num_classes)).all()
    assert counts.sum() - np.trace(counts) == (labels != given_labels).sum()


@pytest.mark.parametrize(("true", "given_labels"), [([0, 3], [0, 0]), ([0], [-1]), ([0], [0, 1])])
def test_transition_counts_refuse_what_does_not_fit(true, given_labels) -> None:
    with pytest.raises(ValueError, match="labels must"):
        transition_counts(np.array(true), np.array(given_labels), 3)
