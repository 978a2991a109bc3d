"""Cross-entropy: the loss of plain prompt tuning (CoOp)."""

from __future__ import annotations

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
