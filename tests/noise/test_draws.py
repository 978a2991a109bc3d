from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noise.samples import labelled, names, rates

from dspt.noise.draws import as_uniform, by_inverse_cdf, wrong_per_class


def test_the_inverse_cdf_at_its_edges() -> None:
    """A number on an edge belongs to the next class, and never to one without weight."""
    weights = np.array([[0.0, 0.25, 0.0, 0.75, 0.0]])
    below_one = 1 - 2.0**-53
    uniform = np.array([0.0, np.nextafter(0.25, 0), 0.25, 0.5, below_one])
    assert by_inverse_cdf(weights, uniform).tolist() == [1, 1, 3, 3, 3]
    assert by_inverse_cdf(np.repeat(3 * weights, 5, axis=0), uniform).tolist() == [1, 1, 3, 3, 3]


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=9).filter(any), st.integers(0, 2**53 - 1))
def test_the_inverse_cdf_never_draws_what_has_no_weight(weights, numerator) -> None:
    row = np.array([weights])
    (column,) = by_inverse_cdf(row, np.array([numerator * 2.0**-53]))
    assert row[0, column] > 0


def test_uniform_numbers_are_exact_and_below_one() -> None:
    edges = as_uniform(np.array([0, 2**11, 2**63, 2**64 - 1], dtype=np.uint64))
    assert edges.tolist() == [0.0, 2.0**-53, 0.5, 1 - 2.0**-53]


@settings(deadline=None)
@given(labelled(), rates)
def test_wrong_samples_are_counted_class_by_class(data, rate) -> None:
    labels, num_classes, seed = data
    wrong = wrong_per_class(labels, rate, num_classes, seed, names(len(labels)))
    assert len(set(wrong.tolist())) == len(wrong)
    expected = [int(rate * n + 1e-9) for n in np.bincount(labels, minlength=num_classes)]
    assert np.bincount(labels[wrong], minlength=num_classes).tolist() == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_every_sample_is_wrong_equally_often(seed: int) -> None:
    labels = np.arange(40) % 4
    counts = sum(
        np.bincount(wrong_per_class(labels, 0.3, 4, 1000 * seed + s, names(40)), minlength=40)
        for s in range(600)
    )
    assert counts.sum() == 600 * 12
    assert ((counts - 180) ** 2 / (180 * 0.7)).max() < 4.2**2
