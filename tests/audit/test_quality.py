"""The audit's own measure of quality, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt.audit.quality import measure_quality


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=25))
def test_the_three_measures_are_what_they_are_called(samples: list[tuple[int, bool]]) -> None:
    score = np.array([s for s, _ in samples], dtype=float)
    wrong = np.array([w for _, w in samples])
    given_labels, true = np.zeros(len(wrong), dtype=int), wrong.astype(int)
    quality = measure_quality({"e": score}, given_labels, true)
    assert quality.n_wrong == wrong.sum()
    assert quality.noise_rate == wrong.mean()
    if wrong.all() or not wrong.any():
        assert quality.evidence == {}
        return
    measured = quality.evidence["e"]
    pairs = [(a > b) + 0.5 * (a == b) for a in score[wrong] for b in score[~wrong]]
    assert measured.auroc == pytest.approx(np.mean(pairs))
    # Average precision: each distinct score is a threshold, weighted by the recall it adds.
    average = 0.0
    for threshold in np.unique(score):
        flagged = score >= threshold
        average += wrong[flagged].mean() * (wrong & (score == threshold)).sum() / wrong.sum()
    assert measured.average_precision == pytest.approx(average)
    order = sorted(range(len(score)), key=lambda i: (-score[i], i))
    first = wrong[order[: wrong.sum()]]
    assert measured.precision_at_true_rate == pytest.approx(first.mean())
