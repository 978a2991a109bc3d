"""Mean absolute error between probabilities and the one-hot label (PromptMAE)."""

from __future__ import annotations

import torch
from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy_gradient


def mean_absolute_error(logits: Tensor, target: Tensor) -> Tensor:
    """``sum_k |p_k - onehot(y)_k| = 2 (1 - p_y)`` with ``p = softmax(logits)``, per sample.

    Source: Ghosh et al., "Robust Loss Functions under Label Noise for Deep Neural Networks", AAAI
    2017; as PromptMAE in NLPrompt, Pan et al., CVPR 2025.

    Args:
        logits: [n, C].
        target: class indices, [n].

    Returns:
        Loss values in [0, 2], [n].
    """
    p = torch.softmax(logits, dim=-1)
    return 2.0 * (1.0 - p.gather(1, target[:, None])[:, 0])


def mean_absolute_error_gradient(logits: Tensor, target: Tensor) -> Tensor:
    """Closed form of the gradient of :func:`mean_absolute_error`: ``2 p_y (p - onehot(y))``.

    Args:
        logits: [n, C].
        target: class indices, [n].

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).
    """
    p_y = torch.softmax(logits, dim=-1).gather(1, target[:, None])
    return 2.0 * p_y * cross_entropy_gradient(logits, target)
