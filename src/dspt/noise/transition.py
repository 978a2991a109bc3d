"""Counting which true class was given which label."""

from __future__ import annotations

import numpy as np


def transition_counts(true: np.ndarray, given: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each true class was given each label.

    Args:
        true: labels in [0, num_classes), shape [N].
        given: labels in [0, num_classes), shape [N].
        num_classes: C.

    Returns:
        Array of ``int64``, shape [C, C]: rows are true classes, columns given labels.

    Raises:
        ValueError: labels outside the range or of different lengths.
    """
    true = np.asarray(true, dtype=np.int64)
    given = np.asarray(given, dtype=np.int64)
    if true.ndim != 1 or true.shape != given.shape:
        raise ValueError(f"labels must have one shape [N], got {true.shape} and {given.shape}")
    for labels in (true, given):
        if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
            raise ValueError(f"labels must lie in [0, {num_classes})")
    flat = np.bincount(true * num_classes + given, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes).astype(np.int64)
