"""What a run minimises: a per-sample loss, and what a method may do around it.

Plain prompt tuning is a loss and nothing else. The methods of the field add, in this order: a look
at all training samples before an epoch (to tell clean from noisy ones), another order of the
samples, other targets or weights, a memory. :class:`Objective` has one place for each and does
nothing there; a method overrides what it changes (see ``dspt.methods``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dspt.losses import PerSampleLoss
from dspt.seeding import keyed_order


@dataclass(frozen=True)
class Batch:
    """Some training samples of one run under its prompt as it stands.

    Attributes:
        rows: which samples, [B], numbers in the run's training set.
        images: their L2-normalised image features, [B, D].
        logits: scaled logits, [B, C], differentiable by the prompt.
        class_features: L2-normalised, [C, D], differentiable by the prompt.
        logit_scale: factor on the cosine similarity.
        step: number of the training step since the start of the run; None when the loss is only
            measured: then nothing may be remembered and nothing drawn.
    """

    rows: Tensor
    images: Tensor
    logits: Tensor
    class_features: Tensor
    logit_scale: float
    step: int | None

    def logits_of(self, images: Tensor) -> Tensor:
        """Scaled logits [B, C] of other image features [B, D], such as mixed ones."""
        return self.logit_scale * images @ self.class_features.t()


class Objective:
    """The mean of a per-sample loss on the given labels: plain prompt tuning.

    What a subclass remembers it replaces, never changes in place: training works on a copy.

    Args:
        loss: per-sample loss.
        given: labels of the run's N training samples, [N].
        num_classes: C.
        seed: orders the samples.
    """

    def __init__(self, loss: PerSampleLoss, given: Tensor, num_classes: int, seed: int) -> None:
        self.loss = loss
        self.given = given
        self.num_classes = num_classes
        self.seed = seed

    @property
    def is_plain(self) -> bool:
        """Whether the value of a sample depends on its logits and given label alone."""
        return type(self) is Objective

    def begin_epoch(self, epoch: int, logits: Tensor) -> None:
        """Look at all samples before epoch ``epoch`` (from 0) under the prompt as it stands.

        Args:
            epoch: number of finished epochs.
            logits: scaled logits of the plain pictures, [N, C], no gradient.
        """

    def order(self, epoch: int) -> np.ndarray:
        """Samples of an epoch in order, numbers in [0, N), at least N of them."""
        return keyed_order(self.seed, f"batches/{epoch}", range(len(self.given)))

    def values(self, batch: Batch) -> Tensor:
        """Loss value of each sample of a batch, [B]; their mean is what a step lowers."""
        return self.loss(batch.logits, self.given[batch.rows])

    def state(self) -> dict[str, Tensor]:
        """What must be kept, beside the prompt, for the next epoch to come out the same."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""


def keyed_order_of(rows: Tensor, seed: int, purpose: str) -> np.ndarray:
    """The samples ``rows`` (numbers, [n]) in random order; a sample's place does not depend on
    which others are there."""
    numbers = rows.cpu().numpy()
    return numbers[keyed_order(seed, purpose, numbers.tolist())]
