"""Cross-entropy against a label that is smoothed towards the uniform distribution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy_gradient


def label_smoothed_cross_entropy(logits: Tensor, target: Tensor, smoothing: float = 0.1) -> Tensor:
    """``-sum_k t_k log p_k`` with ``t = (1 - s) onehot(y) + s / C``, per sample.

    The share ``s`` is spread over all ``C`` classes, the label included, as in the paper and in
    torch; so ``t_y = 1 - s + s / C``. (Others spread it over the ``C - 1`` other classes: their
    ``s`` is ``(C - 1) / C`` times this one.) Not a bounded loss: wrong labels still pull hardest.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
    section 7 (s = 0.1 there); against label noise, Lukasik et al., ICML 2020.

    Args:
        logits: [n, C].
        target: class indices, [n].
        smoothing: ``s``, in [0, 1); 0 is cross-entropy.

    Returns:
        Loss values, [n], unbounded above; least, the entropy of ``t``, at ``p = t``.

    Raises:
        ValueError: when ``smoothing`` is outside [0, 1).
    """
    _check(smoothing)
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)


def label_smoothed_cross_entropy_gradient(
    logits: Tensor, target: Tensor, smoothing: float = 0.1
) -> Tensor:
    """Closed form of the gradient of the loss above: ``p - t = (p - onehot(y)) + s (e_y - 1/C)``.

    It vanishes at ``p = t``, not where ``p_y = 1``: a label that is learned beyond ``t_y`` is
    pushed back. So the ratio to cross-entropy's gradient grows without bound as ``p_y`` nears 1.

    Args:
        logits: [n, C].
        target: class indices, [n].
        smoothing: ``s``, in [0, 1).

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).

    Raises:
        ValueError: when ``smoothing`` is outside [0, 1).
    """
    _check(smoothing)
    classes = logits.shape[1]
    back = torch.full_like(logits, -smoothing / classes)
    back = back.scatter(1, target[:, None], smoothing * (classes - 1) / classes)
    return cross_entropy_gradient(logits, target) + back


def _check(smoothing: float) -> None:
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"smoothing must be in [0, 1), not {smoothing}")
