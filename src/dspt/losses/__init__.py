"""Losses: one file each, per-sample values first, reduced in :mod:`dspt.losses.reduction`.

Importing this package needs only torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from dspt.errors import UserError, did_you_mean
from dspt.losses.cross_entropy import cross_entropy
from dspt.losses.double_softmax import (
    DoubleSoftmaxLoss,
    double_softmax,
    double_softmax_cross_entropy,
    double_softmax_gradient,
)
from dspt.losses.gce import generalised_cross_entropy
from dspt.losses.label_smoothing import label_smoothed_cross_entropy
from dspt.losses.mae import mean_absolute_error
from dspt.losses.normalised_ce_rce import normalised_and_reverse_cross_entropy
from dspt.losses.partially_huberised import partially_huberised_cross_entropy
from dspt.losses.reduction import PerSampleLoss, apply_loss
from dspt.losses.symmetric_cross_entropy import symmetric_cross_entropy

LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "ce": cross_entropy,
    "label-smoothing": label_smoothed_cross_entropy,
    "mae": mean_absolute_error,
    "gce": generalised_cross_entropy,
    "sce": symmetric_cross_entropy,
    "nce+rce": normalised_and_reverse_cross_entropy,
    "phuber-ce": partially_huberised_cross_entropy,
    "dspt": double_softmax,
}
"""Name on the command line -> per-sample loss. Options are the function's keyword arguments."""


def per_sample_loss(name: str, options: Mapping[str, float] | None = None) -> PerSampleLoss:
    """The per-sample loss of a name, with its options bound.

    Raises:
        UserError: for an unknown name, an unknown option or a value out of range.
    """
    if name not in LOSSES:
        hint = did_you_mean(name, LOSSES)
        raise UserError(f"loss: {name!r} is unknown; choose from {', '.join(LOSSES)}{hint}")
    function = LOSSES[name]
    known = [p for p in inspect.signature(function).parameters if p not in ("logits", "target")]
    for option in options or {}:
        if option not in known:
            allowed = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"loss_options: {name!r} has no option {option!r}; {allowed}")
    bound = partial(function, **(options or {})) if options else function
    try:
        bound(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    except ValueError as error:
        raise UserError(f"loss_options: {error}") from None
    return bound


def logit_gradient_norm(loss: PerSampleLoss, logits: Tensor, target: Tensor) -> Tensor:
    """Norm of each sample's own gradient by its logits.

    Args:
        loss: per-sample loss.
        logits: [n, C].
        target: class indices, [n].

    Returns:
        Euclidean norms, [n].
    """
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_(True)
        # Samples do not mix, so the gradient of the sum holds every sample's own gradient.
        (gradient,) = torch.autograd.grad(loss(leaf, target).sum(), leaf)
    return gradient.norm(dim=-1)


def suppression(logits: Tensor, target: Tensor) -> Tensor:
    """Share of cross-entropy's gradient that DSPT refuses: 1 - |dL_DSPT / dz| / |dL_CE / dz|.

    Near 1 for a label that the model confidently contradicts. Where cross-entropy itself has no
    gradient left, the model agrees perfectly and nothing is refused: 0.

    Args:
        logits: [n, C].
        target: class indices, [n].

    Returns:
        [n], in [0, 1].
    """
    full = logit_gradient_norm(cross_entropy, logits, target)
    kept = logit_gradient_norm(double_softmax_cross_entropy, logits, target)
    refused = torch.where(full > 1e-12, 1 - kept / full.clamp(min=1e-12), torch.zeros_like(full))
    return refused.clamp(0, 1)


__all__ = [
    "LOSSES",
    "DoubleSoftmaxLoss",
    "PerSampleLoss",
    "apply_loss",
    "double_softmax_cross_entropy",
    "double_softmax_gradient",
    "logit_gradient_norm",
    "per_sample_loss",
    "suppression",
]
