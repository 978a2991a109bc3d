from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noise.samples import balanced, labelled, noisy, rates

from dspt.noise import transition_counts


@settings(deadline=None)
@given(labelled(), st.sampled_from(["symmetric", "asymmetric"]), rates)
def test_exactly_the_rate_is_wrong_and_every_label_is_valid(data, kind, rate) -> None:
    labels, num_classes, seed = data
    before = labels.copy()
    given_labels = noisy(labels, f"{kind}:{rate!r}", num_classes, seed)
    assert given_labels.dtype == np.int64
    assert (labels == before).all()
    wrong = given_labels != labels
    assert wrong.sum() == int(rate * len(labels) + 1e-9)
    assert ((given_labels >= 0) & (given_labels < num_classes)).all()
    if kind == "asymmetric":
        assert (given_labels[wrong] == (labels[wrong] + 1) % num_classes).all()


@settings(deadline=None)
@given(labelled(), rates)
def test_pair_is_exact_in_every_class(data, rate) -> None:
    labels, num_classes, seed = data
    counts = transition_counts(
        labels, noisy(labels, f"pair:{rate!r}", num_classes, seed), num_classes
    )
    expected = np.zeros_like(counts)
    for label, n in enumerate(np.bincount(labels, minlength=num_classes)):
        k = int(rate * n + 1e-9)
        expected[label, label] += n - k
        expected[label, (label + 1) % num_classes] += k
    assert (counts == expected).all()


@pytest.mark.parametrize("rate", [0.125, 0.25, 0.375, 0.5, 0.625, 0.75])
def test_pair_realises_its_matrix_and_asymmetric_only_nearly(rate: float) -> None:
    labels = balanced(10, 16)
    matrix = (1 - rate) * np.eye(10) + rate * np.roll(np.eye(10), 1, axis=1)
    pair = transition_counts(labels, noisy(labels, f"pair:{rate!r}", 10), 10) / 16
    asymmetric = transition_counts(labels, noisy(labels, f"asymmetric:{rate!r}", 10), 10) / 16
    assert (pair == matrix).all()
    assert 0 < np.abs(asymmetric - matrix).max() < 0.4


@pytest.mark.parametrize("kind", ["symmetric", "pair", "replace"])
@pytest.mark.parametrize("n", [1, 7, 16, 100, 1000, 1600])
def test_a_rate_in_percent_means_that_many_in_a_hundred(kind: str, n: int) -> None:
    labels = np.zeros(n, dtype=np.int64)
    if kind == "replace":
        n, labels = 16, balanced(3, 16)
    for percent in range(101):
        wrong = noisy(labels, f"{kind}:{percent / 100!r}", 3) != labels
        assert int(wrong[labels == 0].sum()) == int(Fraction(percent, 100) * n)


def test_symmetric_is_uniform_over_the_other_classes() -> None:
    """9,000 wrong labels of one class into 9 others: chi-square with 8 degrees of freedom."""
    given_labels = noisy(np.full(9000, 4), "symmetric:1", 10)
    counts = np.bincount(given_labels, minlength=10)
    assert counts[4] == 0
    others = np.delete(counts, 4)
    assert ((others - 1000) ** 2 / 1000).sum() < 26.1  # 0.1 % of uniform draws exceed it
