"""ELR: cross-entropy, pulled towards what the prompt believed of each sample so far."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy
from dspt.losses.early_learning import early_learning_regularised, update_memory
from dspt.training.objective import Batch, Objective


class EarlyLearning(Objective):
    """``-log p_y + weight * log(1 - <p, t>)``, t a running mean of the sample's own predictions.

    What is learned early is mostly right; the second term keeps it from being forgotten.

    Source: Liu et al., "Early-Learning Regularization Prevents Memorization of Noisy Labels",
    NeurIPS 2020, eq. 5 and 9; defaults are the paper's for CIFAR-10.

    Args:
        given, num_classes, seed: as for :class:`Objective`.
        momentum: of the running mean, in [0, 1).
        weight: of the second term, at least 0.

    Raises:
        ValueError: when an option is out of range.
    """

    def __init__(
        self,
        given: Tensor,
        num_classes: int,
        seed: int,
        *,
        momentum: float = 0.7,
        weight: float = 3.0,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, not {weight}")
        super().__init__(cross_entropy, given, num_classes, seed)
        self.momentum = momentum
        self.weight = weight
        self.memory = torch.zeros(len(given), num_classes, device=given.device)

    def values(self, batch: Batch) -> Tensor:
        """The memory of a batch is brought up to date first, as in the paper's algorithm."""
        if batch.step is not None:
            newest = update_memory(self.memory[batch.rows], batch.logits.detach(), self.momentum)
            self.memory = self.memory.index_copy(0, batch.rows, newest.to(self.memory.dtype))
        target = self.given[batch.rows]
        kept = self.memory[batch.rows].to(batch.logits.dtype)
        return early_learning_regularised(batch.logits, target, kept, self.weight)

    def state(self) -> dict[str, Tensor]:
        return {"memory": self.memory}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory = state["memory"].to(self.given.device)
