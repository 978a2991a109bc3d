"""The DSPT loss: cross-entropy over probabilities instead of logits.

Source: "Double-Softmax Prompt Tuning" (DSPT), arXiv 2605.00591. Notation of this file: logits
``z``, ``p = softmax(z)``, ``q = softmax(p)``, label ``y``, ``C`` classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dspt.losses.cross_entropy import cross_entropy_gradient
from dspt.losses.reduction import REDUCTIONS, apply_loss


def double_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """``L = -log softmax(softmax(z))_y``: cross-entropy over probabilities, per sample.

    Written out, ``L = log sum_j exp(p_j) - p_y``. Since every ``p_j`` lies in [0, 1], nothing can
    overflow once ``p`` is known, and the values fill an interval of length exactly 1 for every C:
    [log(e + C - 1) - 1, log(e + C - 1)].

    Source: DSPT, arXiv 2605.00591 (2026): cross-entropy applied to probabilities.

    Args:
        logits: [n, C], C >= 2.
        target: class indices, [n].

    Returns:
        Loss values, [n].
    """
    p = torch.softmax(logits, dim=-1)
    return torch.logsumexp(p, dim=-1) - p.gather(1, target[:, None])[:, 0]


def double_softmax_gradient(logits: Tensor, target: Tensor) -> Tensor:
    """Closed form of the gradient of :func:`double_softmax` by the logits.

    ``dL/dz_k = p_k [ (q_k - 1{k = y}) + p_y - sum_j p_j q_j ]``

    It vanishes where ``p`` is one-hot: on ``y`` (learned), and also on any other class (confidently
    contradicted): the saturation zone that keeps wrong labels out.

    Computed as half of MAE's gradient, ``p_y (p - onehot(y))``, and that of the label-free term,
    ``p_k (q_k - sum_j p_j q_j)``, with ``q`` measured from its greatest entry: no difference of
    nearly equal numbers is left, so the relative accuracy holds at both ends, where everything is
    tiny.

    Args:
        logits: [n, C].
        target: class indices, [n].

    Returns:
        Gradient, [n, C], one row per sample (no mean is taken).
    """
    p = torch.softmax(logits, dim=-1)
    top = p.max(dim=-1, keepdim=True).values
    below = torch.expm1(p - top)  # q / max q - 1
    below = below / (1.0 + below).sum(-1, keepdim=True)  # q - max q
    flatten = p * (below - (p * below).sum(-1, keepdim=True))
    return p.gather(1, target[:, None]) * cross_entropy_gradient(logits, target) + flatten


def double_softmax_cross_entropy(
    logits: Tensor,
    target: Tensor,
    reduction: str = "mean",
    ignore_index: int = -100,
    weight: Tensor | None = None,
) -> Tensor:
    """DSPT's loss with the calling convention of ``torch.nn.functional.cross_entropy``.

    Shapes, arguments and errors are those of :func:`dspt.losses.reduction.apply_loss`.

    Example:
        >>> logits = torch.tensor([[8.0, 0.0, 0.0]])
        >>> double_softmax_cross_entropy(logits, torch.tensor([0])).item()  # agrees: near the least
        0.552...
        >>> double_softmax_cross_entropy(logits, torch.tensor([1])).item()  # contradicts: bounded
        1.550...
    """
    return apply_loss(
        double_softmax,
        logits,
        target,
        reduction=reduction,
        ignore_index=ignore_index,
        weight=weight,
    )


class DoubleSoftmaxLoss(nn.Module):
    """DSPT's loss as a module: a drop-in for ``nn.CrossEntropyLoss`` with class indices.

    Feed it the *scaled* logits (CLIP's cosine times ``exp(logit_scale)``, 100 for OpenAI's models):
    the saturation zone depends on that scale.

    Args:
        weight: one weight per class, [C].
        ignore_index: a target of this value is left out.
        reduction: "mean", "sum" or "none".
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {REDUCTIONS}, not {reduction!r}")
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of ``logits`` [N, C], [C] or [N, C, d1, ...] against class indices."""
        return double_softmax_cross_entropy(
            logits, target, self.reduction, self.ignore_index, self.weight
        )

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, ignore_index={self.ignore_index}"
