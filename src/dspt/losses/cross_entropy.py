"""Cross-entropy: the loss of plain prompt tuning (CoOp); also against soft targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """``-log p_y`` with ``p = softmax(logits)``, per sample.

    Its gradient by the logits, ``p - onehot(y)``, is largest for the samples that contradict the
    model most: wrong labels pull hardest.

    Source: CoOp, Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022.

    Args:
        logits: [n, C].
        target: class indices, [n].

    Returns:
        Loss values, [n], unbounded above.
    """
    return F.cross_entropy(logits, target, reduction="none")


def cross_entropy_gradient(logits: Tensor, target: Tensor) -> Tensor:
    """Closed form of the gradient of :func:`cross_entropy`: ``p - onehot(y)``.

    The entry of the label, ``p_y - 1``, is taken as minus the sum of the others, so that it keeps
    its relative accuracy where ``p_y`` rounds to 1.

    Args:
        logits: [n, C].
        target: class indices, [n].

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).
    """
    label = target[:, None]
    others = torch.softmax(logits, dim=-1).scatter(1, label, 0.0)
    return others.scatter(1, label, -others.sum(-1, keepdim=True))


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """``-sum_k t_k log p_k`` with ``p = softmax(logits)``, per sample: for refined or mixed labels.

    Rows of the targets usually sum to 1, but need not; no gradient flows into them.

    Args:
        logits: [n, C], finite.
        targets: ``t``, weights of the classes, [n, C], floating point.

    Returns:
        Loss values, [n].

    Raises:
        ValueError: when the shapes differ, as when class indices are passed.
    """
    _check_soft(logits, targets)
    return F.cross_entropy(logits, targets.detach().to(logits), reduction="none")


def soft_cross_entropy_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Closed form of the gradient of :func:`soft_cross_entropy`: ``p sum_j t_j - t``.

    Args:
        logits: [n, C].
        targets: weights of the classes, [n, C].

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).

    Raises:
        ValueError: when the shapes differ.
    """
    _check_soft(logits, targets)
    targets = targets.detach().to(logits)
    return torch.softmax(logits, dim=-1) * targets.sum(-1, keepdim=True) - targets


def _check_soft(logits: Tensor, targets: Tensor) -> None:
    if targets.shape != logits.shape:
        raise ValueError(
            f"soft targets of shape {list(targets.shape)} do not fit logits of shape "
            f"{list(logits.shape)}"
        )
