"""Symmetric cross-entropy (SCE): cross-entropy and reverse cross-entropy, weighted."""

from __future__ import annotations

from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy, cross_entropy_gradient
from dspt.losses.options import check_weights
from dspt.losses.reverse_cross_entropy import (
    reverse_cross_entropy,
    reverse_cross_entropy_gradient,
)


def symmetric_cross_entropy(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
) -> Tensor:
    """``alpha CE + beta RCE = -alpha log p_y - beta A (1 - p_y)``, per sample.

    Source: Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.
    Its weights (alpha, beta) are 0.01, 1 on MNIST, 0.1, 1 on CIFAR-10 and 6, 0.1 on CIFAR-100. The
    default here is CIFAR-10's: what its authors advise for noisy labels that a model can fit, as a
    pre-trained one can. Those of CIFAR-100 make it nearly 6 times cross-entropy, for networks that
    would not fit 100 classes from scratch otherwise.

    Args:
        logits: [n, C].
        target: class indices, [n].
        alpha: weight of cross-entropy, >= 0.
        beta: weight of reverse cross-entropy, >= 0.
        log_zero: ``A``, what ``log 0`` is taken as, < 0; see
            :func:`~dspt.losses.reverse_cross_entropy.reverse_cross_entropy`.

    Returns:
        Loss values, [n], unbounded above unless ``alpha`` is 0.

    Raises:
        ValueError: when an option is out of range, or both weights are 0.
    """
    check_weights(alpha=alpha, beta=beta)
    reverse = reverse_cross_entropy(logits, target, log_zero)
    return alpha * cross_entropy(logits, target) + beta * reverse


def symmetric_cross_entropy_gradient(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
) -> Tensor:
    """Closed form of the loss's gradient: ``(alpha - beta A p_y) (p - onehot(y))``.

    Arguments and errors as for :func:`symmetric_cross_entropy`.

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).
    """
    check_weights(alpha=alpha, beta=beta)
    reverse = reverse_cross_entropy_gradient(logits, target, log_zero)
    return alpha * cross_entropy_gradient(logits, target) + beta * reverse
