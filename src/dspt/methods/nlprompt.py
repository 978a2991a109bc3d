"""NLPrompt: tell clean from noisy samples by optimal transport, and treat them differently."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dspt.losses import per_sample_loss
from dspt.training.objective import Batch, Objective, keyed_order_of

COSTS = ("log", "double-log")


class NLPrompt(Objective):
    """Cross-entropy where optimal transport agrees with the label, MAE (or another) where not.

    Before every epoch an entropic optimal transport between samples and classes, both with uniform
    mass, gives every sample a pseudo-label (:func:`transport_labels`). A sample whose given label
    is its pseudo-label counts as clean. The clean samples of an epoch come first, as in the public
    code; when none is clean, all are treated as clean.

    Source: Pan et al., "NLPrompt: Noise-Label Prompt Learning for Vision-Language Models", CVPR
    2025: PromptOT and the losses of both parts. The paper writes the cost as -log p; its public
    code, which made its numbers, applies log-softmax to probabilities. The default is the code's,
    ``cost="log"`` is the formula as written.

    Args:
        given, num_classes, seed: as for :class:`Objective`.
        reg: weight of the entropy in the transport, above 0.
        cost: "log" for ``-log softmax(z)``, "double-log" for ``-log softmax(softmax(z))``.
        clean_loss: name of the loss of the clean part.
        noisy_loss: name of the loss of the rest; "dspt" is possible too.

    Raises:
        ValueError: when an option is out of range.
        UserError: for an unknown loss.
    """

    def __init__(
        self,
        given: Tensor,
        num_classes: int,
        seed: int,
        *,
        reg: float = 0.01,
        cost: str = "double-log",
        clean_loss: str = "ce",
        noisy_loss: str = "mae",
    ) -> None:
        if not 0 < reg < float("inf"):
            raise ValueError(f"reg must be above 0, not {reg}")
        if cost not in COSTS:
            raise ValueError(f"cost must be one of {', '.join(COSTS)}, not {cost!r}")
        super().__init__(per_sample_loss(clean_loss), given, num_classes, seed)
        self.noisy_loss = per_sample_loss(noisy_loss)
        self.reg = reg
        self.cost = cost
        self.clean = torch.ones_like(given, dtype=torch.bool)

    def begin_epoch(self, epoch: int, logits: Tensor) -> None:
        agrees = transport_labels(logits, self.reg, self.cost) == self.given
        self.clean = agrees if bool(agrees.any()) else torch.ones_like(agrees)

    def order(self, epoch: int) -> np.ndarray:
        return np.concatenate(
            [
                keyed_order_of(part.nonzero()[:, 0], self.seed, f"batches/{epoch}")
                for part in (self.clean, ~self.clean)
            ]
        )

    def values(self, batch: Batch) -> Tensor:
        target = self.given[batch.rows]
        return torch.where(
            self.clean[batch.rows],
            self.loss(batch.logits, target),
            self.noisy_loss(batch.logits, target),
        )


def transport_labels(logits: Tensor, reg: float, cost: str = "double-log") -> Tensor:
    """Pseudo-labels of all samples by entropic optimal transport to the classes.

    Solves ``min_Q <Q, cost> - reg H(Q)`` over couplings with mass 1/N per sample and 1/C per class
    with the Sinkhorn iteration in the logarithmic domain, which stays finite for every reg; each
    sample's label is the class that gets most of its mass.

    Args:
        logits: scaled logits, [N, C].
        reg: above 0.
        cost: one of :data:`COSTS`.

    Returns:
        Class indices, [N].
    """
    import ot

    scores = logits.double()
    if cost == "double-log":
        scores = torch.softmax(scores, dim=-1)
    samples, classes = scores.shape
    coupling = ot.sinkhorn(
        scores.new_full((samples,), 1 / samples),
        scores.new_full((classes,), 1 / classes),
        -torch.log_softmax(scores, dim=-1),
        reg,
        method="sinkhorn_log",
        numItermax=1000,
        stopThr=1e-6,
        warn=False,
    )
    return coupling.argmax(dim=1)
