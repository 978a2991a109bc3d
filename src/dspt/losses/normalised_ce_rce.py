"""Normalised cross-entropy and reverse cross-entropy, weighted (NCE + RCE).

With ``a = -log p_y`` and ``b = -sum_k log p_k``, NCE is ``a / b``. The sum ``b`` is never 0: it is
least, ``C log C``, at the uniform ``p``. It is huge where the model is confident, so NCE fades
there, whatever the label: it asks for all the logits, not for ``p_y`` alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dspt.losses.options import check_weights
from dspt.losses.reverse_cross_entropy import (
    reverse_cross_entropy,
    reverse_cross_entropy_gradient,
)


def normalised_and_reverse_cross_entropy(
    logits: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 1.0,
    log_zero: float = -4.0,
) -> Tensor:
    """``alpha NCE + beta RCE = alpha log p_y / sum_k log p_k - beta A (1 - p_y)``, per sample.

    Source: Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.
    Its weights (alpha, beta) are 1, 10 on MNIST, 1, 1 on CIFAR-10, 10, 0.1 on CIFAR-100 and 50, 0.1
    on the 50 classes of WebVision (public code). The default here is CIFAR-10's; as NCE is of the
    order of 1 / C, little but RCE is left of it with many classes, so state the weights with every
    result.

    Nothing is clamped: log-probabilities come straight from the logits, exact where ``p``
    underflows or rounds to 1. At logits of +-1e4 NCE lies in [0, 1] and its gradient, of the order
    of 1 / b, is small and right. Logits of minus infinity count as equal ones that go there.

    Args:
        logits: [n, C].
        target: class indices, [n].
        alpha: weight of NCE, >= 0.
        beta: weight of RCE, >= 0.
        log_zero: ``A``, what ``log 0`` is taken as in RCE, < 0; see
            :func:`~dspt.losses.reverse_cross_entropy.reverse_cross_entropy`.

    Returns:
        Loss values in [0, alpha - beta A], [n].

    Raises:
        ValueError: when an option is out of range, or both weights are 0.
    """
    check_weights(alpha=alpha, beta=beta)
    surprise = _surprise(logits)
    normalised = surprise.gather(1, target[:, None])[:, 0] / surprise.sum(-1)
    return alpha * normalised + beta * reverse_cross_entropy(logits, target, log_zero)


def normalised_and_reverse_cross_entropy_gradient(
    logits: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 1.0,
    log_zero: float = -4.0,
) -> Tensor:
    """Closed form of the loss's gradient: NCE's and RCE's, weighted.

    NCE's is ``[(p_k - 1{k = y}) - (C p_k - 1) a / b] / b``. Computed with ``rest = b - a``, the sum
    over the other classes, as ``[p_k (rest - (C - 1) a) + a] / b^2`` for ``k != y`` and
    ``-[(1 - p_y) rest + (C - 1) p_y a] / b^2`` for the label, whose terms do not cancel.

    Arguments and errors as for :func:`normalised_and_reverse_cross_entropy`.

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).
    """
    check_weights(alpha=alpha, beta=beta)
    label, classes = target[:, None], logits.shape[1]
    surprise = _surprise(logits)
    p = torch.exp(-surprise)
    p_y, not_y = p.gather(1, label), p.scatter(1, label, 0.0).sum(-1, keepdim=True)
    b = surprise.sum(-1, keepdim=True)
    # Shares of b, so that b^2 need not be representable.
    own = surprise.gather(1, label) / b
    rest = surprise.scatter(1, label, 0.0).sum(-1, keepdim=True) / b
    # rest - (C - 1) a and the a behind it cancel where p_k is near 1: 1 - p_k is kept exact.
    top = p.max(dim=-1, keepdim=True).indices
    not_top = p.scatter(1, top, 0.0).sum(-1, keepdim=True)
    complement = (1.0 - p).scatter(1, top, not_top)
    pull = p * rest + own * (complement - (classes - 2) * p)
    pull = pull.scatter(1, label, -(not_y * rest + (classes - 1) * p_y * own))
    return alpha * pull / b + beta * reverse_cross_entropy_gradient(logits, target, log_zero)


def _surprise(logits: Tensor) -> Tensor:
    """``-log softmax(logits)``, [n, C], with its relative accuracy also where ``p`` rounds to 1.

    Finite: minus infinity among the logits gives a number that no finite logit reaches.
    """
    top, at = logits.max(dim=-1, keepdim=True)
    infinite = torch.finfo(logits.dtype).max / (2 * logits.shape[1])
    behind = (top - logits).clamp(max=infinite)
    others = torch.exp(-behind).scatter(1, at, 0.0).sum(-1, keepdim=True)
    return behind + torch.log1p(others)
