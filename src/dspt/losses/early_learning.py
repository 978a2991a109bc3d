"""Early-learning regularisation (ELR): the formulas; who keeps the memory is a training method.

Source: Liu, Niles-Weed, Razavian and Fernandez-Granda, "Early-Learning Regularization Prevents
Memorization of Noisy Labels", NeurIPS 2020, arXiv 2007.00151. Notation: ``p = softmax(logits)``,
``t`` a sample's memory: the running mean of its past probabilities. As in the public code, ``p``
in the regulariser and in the memory is clamped to [1e-4, 1 - 1e-4], and the memory takes in the
current prediction *before* the loss is computed. Public code: momentum 0.7, weight 3 on CIFAR-10;
0.9, 7 on CIFAR-100.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy, cross_entropy_gradient
from dspt.losses.options import check_weights

FLOOR = 1e-4
"""Probabilities are clamped to [FLOOR, 1 - FLOOR]."""


def early_learning_regularised(
    logits: Tensor, target: Tensor, memory: Tensor, weight: float
) -> Tensor:
    """``-log p_y + weight log(1 - <p, t>)``, per sample.

    As the rows of the memory sum to at most 1, ``<p, t> <= 1 - FLOOR``: always finite. The clamp
    has a price: where it acts, that probability exerts no pull through the regulariser. So it is
    silent on a sample whose greatest probability exceeds ``1 - FLOOR``, which a large logit scale
    often gives.

    Args:
        logits: [n, C].
        target: class indices, [n].
        memory: ``t``, [n, C], entries >= 0, rows that sum to at most 1. Without gradient.
        weight: the paper's lambda, >= 0; 0 is cross-entropy.

    Returns:
        Loss values, [n], from ``weight log FLOOR`` up, unbounded above.

    Raises:
        ValueError: when ``weight`` is negative or not finite, or the memory's shape does not fit.
    """
    _check(logits, memory, weight)
    p = torch.softmax(logits, dim=-1).clamp(FLOOR, 1.0 - FLOOR)
    agreement = (p * memory.detach().to(p)).sum(-1)
    return cross_entropy(logits, target) + weight * torch.log(1.0 - agreement)


def early_learning_gradient(
    logits: Tensor, target: Tensor, memory: Tensor, weight: float
) -> Tensor:
    """Closed form of the gradient of :func:`early_learning_regularised` by the logits.

    ``(p - onehot(y)) - weight p_k (t_k - <p, t>) / (1 - <p, t>)``, the paper's; ``t`` counts as 0
    in the numerator where ``p`` is clamped.

    Arguments and errors as for :func:`early_learning_regularised`.

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).
    """
    _check(logits, memory, weight)
    p = torch.softmax(logits, dim=-1)
    memory = memory.detach().to(p)
    apart = 1.0 - (p.clamp(FLOOR, 1.0 - FLOOR) * memory).sum(-1, keepdim=True)
    felt = torch.where((p >= FLOOR) & (p <= 1.0 - FLOOR), memory, torch.zeros_like(memory))
    drawn = p * (felt - (p * felt).sum(-1, keepdim=True))
    return cross_entropy_gradient(logits, target) - weight * drawn / apart


def update_memory(memory: Tensor, logits: Tensor, momentum: float) -> Tensor:
    """``momentum t + (1 - momentum) p / sum(p)``, with ``p`` clamped.

    Start from zeros: rows then sum to ``1 - momentum^k`` after ``k`` updates.

    Args:
        memory: ``t``, [n, C].
        logits: [n, C].
        momentum: the paper's beta, in [0, 1).

    Returns:
        The new memory, [n, C], in the type of the old one, without gradient.

    Raises:
        ValueError: when ``momentum`` is outside [0, 1) or the shapes differ.
    """
    _check(logits, memory)
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"momentum must be in [0, 1), not {momentum}")
    p = torch.softmax(logits.detach(), dim=-1).clamp(FLOOR, 1.0 - FLOOR)
    now = (p / p.sum(-1, keepdim=True)).to(memory)
    return momentum * memory.detach() + (1.0 - momentum) * now


def _check(logits: Tensor, memory: Tensor, weight: float = 0.0) -> None:
    if weight:
        check_weights(weight=weight)
    if memory.shape != logits.shape:
        raise ValueError(
            f"memory of shape {list(memory.shape)} does not fit logits of shape "
            f"{list(logits.shape)}"
        )
