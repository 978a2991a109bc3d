from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noise.samples import balanced, labelled, names, noisy, rates, seeds

from dspt.errors import UserError
from dspt.noise import transition_counts
from dspt.noise.replace import _exchange, _mix, _repair


def check_exchange(labels: np.ndarray, given_labels: np.ndarray, num_classes: int, rate) -> None:
    """Every class keeps its size and gives up and gets exactly int(rate * n_c) pictures."""
    counts = transition_counts(labels, given_labels, num_classes)
    sizes = np.bincount(labels, minlength=num_classes)
    wanted = np.array([int(rate * n + 1e-9) for n in sizes])
    assert (counts.sum(axis=0) == sizes).all()
    assert (sizes - np.diag(counts) == wanted).all()
    assert (counts.sum(axis=0) - np.diag(counts) == wanted).all()


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 20), rates, seeds)
def test_exactly_k_of_the_shots_of_every_class_are_of_other_classes(c, shots, rate, seed) -> None:
    labels = balanced(c, shots)
    check_exchange(labels, noisy(labels, f"replace:{rate!r}", c, seed), c, rate)
    pair = noisy(labels, f"replace-pair:{rate!r}", c, seed)
    check_exchange(labels, pair, c, rate)
    assert ((pair - labels) % c <= 1).all()
    assert (pair == noisy(labels, f"pair:{rate!r}", c, seed)).all()


@settings(deadline=None, max_examples=300)
@given(labelled(), rates)
def test_unequal_classes_keep_their_sizes_or_are_refused(data, rate) -> None:
    """Refused exactly where it is impossible: a class with more than half of the wrong pictures."""
    labels, num_classes, seed = data
    sizes = np.bincount(labels, minlength=num_classes)
    wanted = np.array([int(rate * n + 1e-9) for n in sizes])
    if 2 * wanted.max() > wanted.sum():
        with pytest.raises(UserError, match="cannot keep the size") as caught:
            noisy(labels, f"replace:{rate!r}", num_classes, seed)
        assert len(str(caught.value).splitlines()) == 1
    else:
        given_labels = noisy(labels, f"replace:{rate!r}", num_classes, seed)
        check_exchange(labels, given_labels, num_classes, rate)


@settings(deadline=None)
@given(labelled(), rates)
def test_a_pair_of_unequal_classes_keeps_their_sizes_or_is_refused(data, rate) -> None:
    labels, num_classes, seed = data
    sizes = np.bincount(labels, minlength=num_classes)
    wanted = {int(rate * n + 1e-9) for n in sizes}
    if len(wanted) > 1:
        with pytest.raises(UserError, match="replace-pair"):
            noisy(labels, f"replace-pair:{rate!r}", num_classes, seed)
    else:
        given_labels = noisy(labels, f"replace-pair:{rate!r}", num_classes, seed)
        check_exchange(labels, given_labels, num_classes, rate)


def test_the_refusals_say_what_is_wrong_and_what_to_do() -> None:
    labels = [0] * 10 + [1] * 4 + [2] * 4
    with pytest.raises(UserError) as caught:
        noisy(labels, "replace:0.5", 3)
    assert str(caught.value) == (
        "noise replace:0.5 cannot keep the size of every class: class number 0 would give up 5 "
        "pictures and the others have only 4 to give in return; draw equally many shots per class, "
        "or use noise symmetric:0.5"
    )
    with pytest.raises(UserError) as caught:
        noisy(labels, "replace-pair:0.5", 3)
    assert str(caught.value) == (
        "noise replace-pair:0.5 cannot keep the size of every class: class number 0 would give up "
        "5 of 10 pictures, class number 1 2 of 4; draw equally many shots per class, or use noise "
        "pair:0.5"
    )


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 20), rates, rates, seeds)
def test_pictures_given_up_at_a_lower_rate_are_also_at_a_higher_one(c, shots, a, b, seed) -> None:
    labels = balanced(c, shots)
    low, high = (noisy(labels, f"replace:{rate!r}", c, seed) != labels for rate in sorted([a, b]))
    assert high[low].all()


SMALL = ["abc", "abcd", "aabb", "aabc", "aabbc", "aaabbc", "aabbcc", "abcde"]


def check_uniform(own: str, draw: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Against a list of all exchanges made by brute force: chi-square at 0.1 %."""
    from scipy.stats import chi2

    true = np.array([ord(c) - ord("a") for c in own])
    possible = {p for p in permutations(true.tolist()) if all(p != true)}
    draws = max(400, 12 * len(possible))
    counts = Counter(tuple(draw(true, seed).tolist()) for seed in range(draws))
    assert set(counts) == possible
    expected = draws / len(possible)
    statistic = sum((n - expected) ** 2 / expected for n in counts.values())
    assert statistic <= chi2.ppf(0.999, max(len(possible) - 1, 1))


@pytest.mark.parametrize("own", SMALL)
def test_all_exchanges_are_equally_likely(own: str) -> None:
    check_uniform(own, lambda true, seed: _exchange(true, seed, names(len(true))))


@pytest.mark.parametrize("own", SMALL)
def test_mixing_reaches_all_exchanges_from_a_single_one(own: str) -> None:
    """So the bias that the repair may bring is gone after it."""

    def draw(true: np.ndarray, seed: int) -> np.ndarray:
        labels = np.array(next(p for p in permutations(true.tolist()) if all(p != true)))
        _mix(true, labels, seed, names(len(true)))
        return labels

    check_uniform(own, draw)


def test_wrong_pictures_come_from_everywhere() -> None:
    """20 classes, 60 seeds: the 380 flows between classes spread as independent draws would."""
    labels = balanced(20, 16)
    total = sum(
        transition_counts(labels, noisy(labels, "replace:0.5", 20, seed), 20) for seed in range(60)
    )
    off = total[~np.eye(20, dtype=bool)]
    mean = 60 * 8 / 19
    assert off.mean() == pytest.approx(mean)
    # About 0.85 with fixed sums of rows and columns; 8 and more if whole groups moved together.
    assert 0.6 < off.var() / mean < 1.1


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.randoms())
def test_repair_leaves_no_label_at_its_own_place(own, random) -> None:
    own = np.array(own)
    if 2 * np.bincount(own).max() > len(own):
        return
    labels = np.array(random.sample(own.tolist(), len(own)))
    _repair(own, labels)
    assert (labels != own).all()
    assert sorted(labels.tolist()) == sorted(own.tolist())
