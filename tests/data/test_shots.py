from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt.data import draw_shots
from dspt.data.holdout import hold_out
from dspt.errors import UserError
from dspt.noise import NoiseSpec, apply_noise

KEYS = [f"{i:02}.jpg" for i in range(12)]
LABELS = np.arange(12) % 3
DRAWN = [4, 5, 6, 7, 8, 9]
HELD = [1, 6, 11]


def test_draws_are_pinned_for_every_platform_and_version() -> None:
    """If this fails, old runs cannot be reproduced any more: do not update the numbers."""
    assert draw_shots(LABELS, np.arange(12), 2, 0, KEYS).tolist() == DRAWN
    train, test = hold_out(LABELS, np.arange(12), 0.25, KEYS)
    assert test.tolist() == HELD
    assert sorted([*train, *test]) == list(range(12))


@st.composite
def pools(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels of all, indices of a part that has every class, keys of these."""
    num_classes = draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(0, num_classes - 1), max_size=40))
    labels = np.array([*range(num_classes), *extra], dtype=np.int64)
    others = range(num_classes, len(labels))
    chosen = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
    indices = np.array(sorted([*range(num_classes), *chosen]), dtype=np.int64)
    return labels, indices, [f"{i}.jpg" for i in indices]


shots_or_all = st.one_of(st.none(), st.integers(1, 12))


@settings(deadline=None)
@given(pools(), shots_or_all, st.integers())
def test_every_class_gives_its_shots_or_all_it_has(pool, shots, seed) -> None:
    labels, indices, keys = pool
    drawn = draw_shots(labels, indices, shots, seed, keys)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert set(drawn) <= set(indices)
    there, got = Counter(labels[indices].tolist()), Counter(labels[drawn].tolist())
    assert got == {c: n if shots is None else min(n, shots) for c, n in there.items()}


@settings(deadline=None)
@given(pools(), shots_or_all, st.integers(), st.randoms())
def test_the_order_of_the_files_does_not_matter(pool, shots, seed, random) -> None:
    labels, indices, keys = pool
    order = random.sample(range(len(indices)), len(indices))
    again = draw_shots(labels, indices[order], shots, seed, [keys[i] for i in order])
    assert (again == draw_shots(labels, indices, shots, seed, keys)).all()


@settings(deadline=None)
@given(pools(), st.integers(1, 8), st.integers())
def test_fewer_shots_are_part_of_more(pool, shots, seed) -> None:
    labels, indices, keys = pool
    few = draw_shots(labels, indices, shots, seed, keys)
    assert set(few) <= set(draw_shots(labels, indices, shots + 3, seed, keys))


@settings(deadline=None)
@given(pools(), st.integers(1, 8), st.integers())
def test_other_classes_do_not_matter(pool, shots, seed) -> None:
    labels, indices, keys = pool
    drawn = draw_shots(labels, indices, shots, seed, keys)
    zero = labels[indices] == 0
    alone = draw_shots(labels, indices[zero], shots, seed, np.array(keys)[zero].tolist(), ["zero"])
    assert alone.tolist() == [i for i in drawn if labels[i] == 0]


def test_noise_and_shots_are_drawn_independently() -> None:
    """The same seed in both: half of the drawn pictures are wrong, not all or none of them."""
    labels = np.zeros(2000, dtype=np.int64)
    keys = [f"{i}.jpg" for i in range(2000)]
    drawn = draw_shots(labels, np.arange(2000), 1000, 1, keys)
    wrong = apply_noise(labels, NoiseSpec.parse("symmetric:0.5"), 2, 1, keys) != labels
    assert 0.45 < wrong[drawn].mean() < 0.55


def test_seeds_differ_and_zero_is_one_of_them() -> None:
    labels = np.zeros(400, dtype=np.int64)
    keys = [f"{i}.jpg" for i in range(400)]
    draws = [set(draw_shots(labels, np.arange(400), 200, seed, keys)) for seed in (0, 1, -1)]
    for i, first in enumerate(draws):
        assert all(80 < len(first & second) < 120 for second in draws[:i])
    assert draws[0] == set(draw_shots(labels, np.arange(400), 200, 0, keys))


@pytest.mark.parametrize(
    ("labels", "class_names", "reason"),
    [
        ([0, 2], None, "no training picture of class number 1;"),
        ([0, 2], ["a", "b", "c"], "no training picture of class b;"),
        ([0, 0], ["a", "b", "c"], "no training picture of class b, c;"),
        ([0, 0], list("abcdefgh"), "class b, c, d, e, f and 2 more;"),
    ],
)
@pytest.mark.parametrize("shots", [1, None])
def test_a_class_without_pictures_is_named(labels, class_names, reason, shots) -> None:
    with pytest.raises(UserError, match=reason):
        draw_shots(np.array(labels), np.arange(2), shots, 1, ["a", "b"], class_names)


def test_a_class_that_only_others_than_the_pool_have_is_named() -> None:
    with pytest.raises(UserError, match="class number 1;"):
        draw_shots(np.array([0, 1]), np.array([0]), 1, 1, ["a"])


@pytest.mark.parametrize("shots", [0, -1])
def test_shots_must_be_positive(shots: int) -> None:
    with pytest.raises(UserError, match="shots must be at least 1"):
        draw_shots(np.array([0, 1]), np.arange(2), shots, 1, ["a", "b"])


@pytest.mark.parametrize("keys", [["a"], ["a", "a"]])
def test_keys_must_fit(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="2 different keys"):
        draw_shots(np.array([0, 1]), np.arange(2), 1, 1, keys)


# --- holdout ---


@settings(deadline=None)
@given(pools(), st.floats(0.001, 0.999), st.randoms())
def test_holdout_is_stratified_and_does_not_depend_on_order(pool, share, random) -> None:
    labels, indices, keys = pool
    train, test = hold_out(labels, indices, share, keys)
    assert sorted([*train, *test]) == indices.tolist()
    for label, n in Counter(labels[indices].tolist()).items():
        held = int((labels[test] == label).sum())
        assert held == (0 if n == 1 else min(max(int(share * n + 0.5), 1), n - 1))
    order = random.sample(range(len(indices)), len(indices))
    again = hold_out(labels, indices[order], share, [keys[i] for i in order])
    assert again[0].tolist() == train.tolist()
    assert again[1].tolist() == test.tolist()
