from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from dspt.evaluation import evaluate, expected_calibration_error, wilson_interval


@given(st.integers(1, 20_000), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_wilson_is_scipys(n: int, share: float) -> None:
    hits = round(n * share)
    low, high = wilson_interval(hits, n)
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)
    assert 0.0 <= low <= hits / n <= high <= 1.0


def test_wilson_by_hand() -> None:
    """8 of 10, z = 2: centre (0.8 + 0.2) / 1.4, half width 2 sqrt(0.016 + 0.01) / 1.4."""
    low, high = wilson_interval(8, 10, z=2.0)
    assert (low + high) / 2 == pytest.approx(1.0 / 1.4)
    assert (high - low) / 2 == pytest.approx(2 * 0.026**0.5 / 1.4)
    assert wilson_interval(0, 639)[0] == 0.0
    assert wilson_interval(639, 639)[1] == 1.0


def calibration_error_by_definition(confidence: np.ndarray, correct: np.ndarray) -> float:
    """sum over bins ((m - 1) / 15, m / 15] of share of samples * |accuracy - mean confidence|."""
    total = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total += inside.mean() * gap
    return total


@given(st.integers(0, 2**32 - 1), st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_calibration_error_is_its_definition(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, correct = rng.random(n), rng.random(n) < 0.6
    ours = expected_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct))
    assert ours == pytest.approx(calibration_error_by_definition(confidence, correct), abs=1e-12)


def test_calibration_error_by_hand() -> None:
    confidence = torch.tensor([0.95, 0.95, 0.95, 0.95, 0.35, 0.35])
    correct = torch.tensor([True, True, True, False, False, True])
    # Four at 0.95 with accuracy 0.75, two at 0.35 with accuracy 0.5.
    expected = (4 * 0.20 + 2 * 0.15) / 6
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-6)
    assert expected_calibration_error(torch.ones(3), torch.ones(3).bool()) == 0.0
    assert expected_calibration_error(torch.ones(3), torch.zeros(3).bool()) == 1.0


def test_everything_of_an_evaluation() -> None:
    logits = torch.log(
        torch.tensor(
            [
                [0.7, 0.1, 0.1, 0.1],
                [0.1, 0.7, 0.1, 0.1],
                [0.1, 0.7, 0.1, 0.1],
                [0.1, 0.1, 0.1, 0.7],
                [0.1, 0.1, 0.7, 0.1],
            ]
        )
    )
    labels = torch.tensor([0, 0, 1, 3, 0])
    result = evaluate(logits, labels)
    assert result.n == 5
    assert result.accuracy == pytest.approx(3 / 5)
    assert result.interval == wilson_interval(3, 5)
    assert result.mean_confidence == pytest.approx(0.7)
    assert result.calibration_error == pytest.approx(abs(0.7 - 0.6), abs=1e-6)
    assert result.per_class_accuracy == [pytest.approx(1 / 3), 1.0, None, 1.0]
    assert result.per_class_n == [3, 1, 0, 1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_evaluation_is_the_plain_count(seed: int, n: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((n, classes)) * 3, rng.integers(0, classes, n)
    result = evaluate(torch.from_numpy(logits), torch.from_numpy(labels))
    hit = logits.argmax(1) == labels
    assert result.accuracy == pytest.approx(hit.mean())
    for c in range(classes):
        expected = pytest.approx(hit[labels == c].mean()) if (labels == c).any() else None
        assert result.per_class_accuracy[c] == expected
    assert sum(result.per_class_n) == n


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_logits_of_any_type_and_size(dtype: torch.dtype) -> None:
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], dtype=dtype)
    result = evaluate(logits, torch.tensor([0, 0]))
    assert result.accuracy == 0.5
    assert result.mean_confidence == 1.0
    assert result.calibration_error == pytest.approx(0.5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_mistakes_and_bins_agree_with_a_count_by_hand(seed: int, n: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 2, (n, classes)), rng.integers(0, classes, n)
    result = evaluate(torch.from_numpy(logits), torch.from_numpy(labels))
    predicted = logits.argmax(1)
    assert result.per_class_mistakes is not None
    for true in range(classes):
        counted = np.bincount(predicted[labels == true], minlength=classes)
        counted[true] = 0
        expected = sorted(((c, k) for c, k in enumerate(counted) if k), key=lambda x: -x[1])[:3]
        assert result.per_class_mistakes[true] == expected
    assert result.calibration_bins is not None
    sizes, sure, right = map(np.array, zip(*result.calibration_bins, strict=True))
    assert sizes.sum() == n
    assert (sizes * right).sum() / n == pytest.approx(result.accuracy)
    assert (sizes * sure).sum() / n == pytest.approx(result.mean_confidence, abs=1e-6)
    error = (sizes * abs(sure - right)).sum() / n
    assert error == pytest.approx(result.calibration_error, abs=1e-6)
    assert list(sure) == sorted(sure)
