"""Accuracy, its interval, and calibration."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dspt.result import Evaluation

CALIBRATION_BINS = 15
MISTAKES = 3  # classes to name that another is taken for


def evaluate(logits: Tensor, labels: Tensor) -> Evaluation:
    """Top-1 accuracy, per class and over all, with calibration.

    Args:
        logits: scaled logits, [n, C], n >= 1.
        labels: class indices, [n].

    Returns:
        The evaluation, with a 95 % Wilson interval for the accuracy.
    """
    probabilities = logits.float().softmax(dim=-1)
    confidence, predicted = probabilities.max(dim=-1)
    correct = predicted == labels
    classes = logits.shape[1]
    per_class_n = torch.bincount(labels, minlength=classes)
    per_class_hits = torch.bincount(labels[correct], minlength=classes)
    hits, n = int(correct.sum()), len(labels)
    return Evaluation(
        n=n,
        accuracy=hits / n,
        interval=wilson_interval(hits, n),
        calibration_error=expected_calibration_error(confidence, correct),
        mean_confidence=float(confidence.mean()),
        per_class_accuracy=[
            int(h) / int(m) if m else None for h, m in zip(per_class_hits, per_class_n, strict=True)
        ],
        per_class_n=per_class_n.tolist(),
        per_class_mistakes=_mistakes(predicted, labels, classes),
        calibration_bins=_calibration_bins(confidence, correct),
    )


def _mistakes(predicted: Tensor, labels: Tensor, classes: int) -> list[list[tuple[int, int]]]:
    """For each class the wrong predictions that are most frequent, ties by class."""
    wrong = predicted != labels
    pairs, numbers = torch.unique(labels[wrong] * classes + predicted[wrong], return_counts=True)
    found: list[list[tuple[int, int]]] = [[] for _ in range(classes)]
    for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        found[pair // classes].append((pair % classes, number))
    return [sorted(others, key=lambda other: -other[1])[:MISTAKES] for others in found]


def _calibration_bins(confidence: Tensor, correct: Tensor) -> list[tuple[int, float, float]]:
    """(samples, mean confidence, accuracy) of every bin that has samples."""
    place = _bin(confidence)
    rows = []
    for number in place.unique().tolist():
        inside = place == number
        sure, right = confidence[inside].double(), correct[inside].double()
        rows.append((len(sure), float(sure.mean()), float(right.mean())))
    return rows


def _bin(confidence: Tensor) -> Tensor:
    """Number of the bin ((m - 1) / 15, m / 15] that each confidence is in, from 0."""
    return (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1


def share(hits: Tensor) -> float:
    """Exact share of true values in [n] of bool, n >= 1."""
    return int(hits.sum()) / len(hits)


def wilson_interval(hits: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval of a proportion; ``z`` = 1.96 gives 95 %.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and n hits the end is exactly 0 and 1; computed, it is off by a rounding error.
    low = max(0.0, centre - half) if hits > 0 else 0.0
    high = min(1.0, centre + half) if hits < n else 1.0
    return low, high


def expected_calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3, 15 bins.

    Args:
        confidence: probability of the predicted class, [n].
        correct: whether it was right, [n] of bool.
    """
    gap = torch.zeros(CALIBRATION_BINS, dtype=torch.float64, device=confidence.device)
    gap.index_add_(0, _bin(confidence), correct.double() - confidence.double())
    return float(gap.abs().sum() / len(confidence))
