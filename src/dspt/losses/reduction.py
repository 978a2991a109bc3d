"""From per-sample losses to what a caller asks for: shapes, ignored targets, weights, reduction.

Every loss of this package is a function ``(logits [n, C], target [n]) -> values [n]`` that knows
nothing of batches. This module is the only place where values are shaped, weighted and reduced, so
all losses accept the same input as ``torch.nn.functional.cross_entropy`` with class indices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]
"""``(logits [n, C] in float32 or float64, target [n] of int64) -> loss values [n]``."""

REDUCTIONS = ("mean", "sum", "none")


def apply_loss(
    per_sample: PerSampleLoss,
    logits: Tensor,
    target: Tensor,
    *,
    reduction: str = "mean",
    ignore_index: int = -100,
    weight: Tensor | None = None,
) -> Tensor:
    """Evaluate a per-sample loss on input shaped as for ``F.cross_entropy``.

    Args:
        per_sample: the loss.
        logits: [C], [N, C] or [N, C, d1, ...]; any floating type. Half precision is computed in
            float32.
        target: class indices, [], [N] or [N, d1, ...] accordingly.
        reduction: "mean" (over the targets that are not ignored, weighted if ``weight`` is given),
            "sum" or "none".
        ignore_index: a target of this value contributes 0 and no gradient.
        weight: one weight per class, [C].

    Returns:
        A scalar, or for "none" a tensor shaped as ``target``; float64 for float64 logits, else
        float32.

    Raises:
        ValueError: for an unknown reduction, shapes that do not fit, or fewer than two classes.
        TypeError: when the logits are not floating point or the target holds no indices.
        IndexError: when a target is outside [0, C).
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, not {reduction!r}")
    rows, flat_target = _as_rows(logits, target)
    kept = flat_target != ignore_index
    # A lookup in range for the ignored ones; their values are masked below.
    index = torch.where(kept, flat_target, torch.zeros_like(flat_target))
    if not torch.compiler.is_compiling() and index.device.type == "cpu" and index.numel():
        lowest, highest = int(index.min()), int(index.max())
        if lowest < 0 or highest >= rows.shape[1]:
            bad = lowest if lowest < 0 else highest
            raise IndexError(
                f"target {bad} is outside [0, {rows.shape[1]}), the classes of the logits"
            )
    values = per_sample(rows, index)
    factor = kept.to(values.dtype)
    if weight is not None:
        if weight.shape != (rows.shape[1],):
            raise ValueError(f"weight must have shape [{rows.shape[1]}], not {list(weight.shape)}")
        factor = factor * weight.to(values)[index]
    values = torch.where(kept, values * factor, torch.zeros_like(values))
    if reduction == "none":
        return values.reshape(target.shape)
    if reduction == "sum":
        return values.sum()
    return values.sum() / factor.sum()


def _as_rows(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits as [n, C] in float32 or float64, target as [n]."""
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, not {logits.dtype}")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(
            f"target must hold class indices (integers), not {target.dtype}; "
            "class probabilities are not supported"
        )
    if logits.ndim == 0:
        raise ValueError("logits must have a class dimension: [C], [N, C] or [N, C, d1, ...]")
    expected = logits.shape[:0] if logits.ndim == 1 else logits.shape[:1] + logits.shape[2:]
    if target.shape != expected:
        raise ValueError(
            f"target of shape {list(target.shape)} does not fit logits of shape "
            f"{list(logits.shape)}; expected {list(expected)}"
        )
    classes = logits.shape[0] if logits.ndim == 1 else logits.shape[1]
    if classes < 2:
        raise ValueError(f"logits have {classes} class; a loss over classes needs at least two")
    rows = logits.reshape(1, -1) if logits.ndim == 1 else logits.movedim(1, -1).flatten(0, -2)
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.float()
    return rows, target.reshape(-1).long()
