"""Partially Huberised cross-entropy (PHuber-CE): cross-entropy made linear where ``p_y`` is low."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy_gradient


def partially_huberised_cross_entropy(logits: Tensor, target: Tensor, tau: float = 10.0) -> Tensor:
    """``-log p_y``, but ``-tau p_y + log tau + 1`` where ``p_y <= 1 / tau``, per sample.

    The line is the tangent of ``-log p_y`` at ``1 / tau``: value and slope have no jump.

    Source: Menon et al., "Can Gradient Clipping Mitigate Label Noise?", ICLR 2020. 10 is the
    default of public code; its example for CIFAR-10 has 2.

    Args:
        logits: [n, C].
        target: class indices, [n].
        tau: finite and > 1; the larger, the nearer to cross-entropy.

    Returns:
        Loss values in [0, 1 + log tau], [n].

    Raises:
        ValueError: when ``tau`` is not a finite number above 1.
    """
    _check(tau)
    log_p = F.log_softmax(logits, dim=-1).gather(1, target[:, None])[:, 0]
    line = math.log(tau) + 1.0 - tau * log_p.exp()
    return torch.where(log_p <= -math.log(tau), line, -log_p)


def partially_huberised_cross_entropy_gradient(
    logits: Tensor, target: Tensor, tau: float = 10.0
) -> Tensor:
    """Closed form of the gradient of the loss above: ``min(1, tau p_y) (p - onehot(y))``.

    Args:
        logits: [n, C].
        target: class indices, [n].
        tau: finite and > 1.

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).

    Raises:
        ValueError: when ``tau`` is not a finite number above 1.
    """
    _check(tau)
    p_y = torch.softmax(logits, dim=-1).gather(1, target[:, None])
    return (tau * p_y).clamp(max=1.0) * cross_entropy_gradient(logits, target)


def _check(tau: float) -> None:
    if not 1.0 < tau < math.inf:
        raise ValueError(f"tau must be a finite number > 1, not {tau}")
