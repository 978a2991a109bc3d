"""Generalised cross-entropy: between cross-entropy (q -> 0) and MAE / 2 (q = 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy_gradient


def generalised_cross_entropy(logits: Tensor, target: Tensor, q: float = 0.7) -> Tensor:
    """``(1 - p_y^q) / q`` with ``p = softmax(logits)``, per sample.

    Source: Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks
    with Noisy Labels", NeurIPS 2018, eq. 6 (q = 0.7 there); in prompt tuning PTNL, Wu et al., ICCV
    2023 (q = 0.5).

    Args:
        logits: [n, C].
        target: class indices, [n].
        q: in (0, 1].

    Returns:
        Loss values in [0, 1 / q], [n].

    Raises:
        ValueError: when ``q`` is outside (0, 1].
    """
    if not 0.0 < q <= 1.0:
        raise ValueError(f"q must be in (0, 1], not {q}")
    log_p = F.log_softmax(logits, dim=-1).gather(1, target[:, None])[:, 0]
    # p^q = exp(q log p): stays finite, gradient included, where p underflows to 0.
    return -torch.expm1(q * log_p) / q


def generalised_cross_entropy_gradient(logits: Tensor, target: Tensor, q: float = 0.7) -> Tensor:
    """Closed form of the gradient of the loss above: ``p_y^q (p - onehot(y))``.

    Args:
        logits: [n, C].
        target: class indices, [n].
        q: in (0, 1].

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).

    Raises:
        ValueError: when ``q`` is outside (0, 1].
    """
    if not 0.0 < q <= 1.0:
        raise ValueError(f"q must be in (0, 1], not {q}")
    log_p = F.log_softmax(logits, dim=-1).gather(1, target[:, None])
    return torch.exp(q * log_p) * cross_entropy_gradient(logits, target)
