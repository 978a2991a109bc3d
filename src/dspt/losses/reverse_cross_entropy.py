"""Reverse cross-entropy: the noise-tolerant term of SCE and of NCE + RCE."""

from __future__ import annotations

import math

from torch import Tensor

from dspt.losses.mae import mean_absolute_error, mean_absolute_error_gradient


def reverse_cross_entropy(logits: Tensor, target: Tensor, log_zero: float = -4.0) -> Tensor:
    """``-sum_k p_k log onehot(y)_k = -A (1 - p_y)`` where ``log 0`` is taken as ``A``, per sample.

    So it is ``-A / 2`` times MAE. ``A = -4`` is the value that the paper recommends; the papers'
    public code clamps the one-hot label at 1e-4 and takes natural logarithms, which is
    ``A = log 1e-4 = -9.21``.

    Source: Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.

    Args:
        logits: [n, C].
        target: class indices, [n].
        log_zero: ``A``, finite and below 0.

    Returns:
        Loss values in [0, -A], [n].

    Raises:
        ValueError: when ``log_zero`` is not a finite number below 0.
    """
    _check(log_zero)
    return -0.5 * log_zero * mean_absolute_error(logits, target)


def reverse_cross_entropy_gradient(
    logits: Tensor, target: Tensor, log_zero: float = -4.0
) -> Tensor:
    """Closed form of the gradient of :func:`reverse_cross_entropy`: ``-A p_y (p - onehot(y))``.

    Args:
        logits: [n, C].
        target: class indices, [n].
        log_zero: ``A``, finite and below 0.

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).

    Raises:
        ValueError: when ``log_zero`` is not a finite number below 0.
    """
    _check(log_zero)
    return -0.5 * log_zero * mean_absolute_error_gradient(logits, target)


def _check(log_zero: float) -> None:
    if not -math.inf < log_zero < 0.0:
        raise ValueError(f"log_zero must be a finite number < 0, not {log_zero}")
