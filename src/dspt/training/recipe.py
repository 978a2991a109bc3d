"""How a prompt is trained: the field's common recipe as defaults."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """SGD with momentum and a cosine schedule, as CoOp and its heirs train.

    Source of the defaults: CoOp (Zhou et al. 2022) and NLPrompt, PTNL and JoAPR, which inherit
    them: lr 0.002, momentum 0.9, weight decay 5e-4, batch 32, one warm-up epoch at 1e-5, and the
    model of the last epoch. 50 epochs as in PTNL; CoOp and NLPrompt train 200.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(0.002, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, allow_inf_nan=False)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: int = Field(1, ge=0)
    warmup_lr: float = Field(1e-5, gt=0, allow_inf_nan=False)

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0; constant within the epoch.

        ``warmup_lr`` while warming up, then half a cosine from ``lr`` whose period is ``epochs``
        and whose clock starts after the warm-up (so the last epoch still moves a little), which
        is what Dassl's constant-warm-up scheduler does.
        """
        if epoch < self.warmup_epochs:
            return self.warmup_lr
        if self.schedule == "constant":
            return self.lr
        progress = (epoch - self.warmup_epochs) / self.epochs
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
