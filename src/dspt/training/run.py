"""One prompt to train: its samples, its start, what it minimises."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dspt.training.objective import Objective


@dataclass(frozen=True)
class TrainingRun:
    """One prompt to train.

    Attributes:
        features: image features of the training pictures, L2-normalised, [N, V, D] fp32; the first
            of the V views is the plain picture.
        given: labels to train on, [N].
        true: true labels where they are known, [N]; only measured, never trained on.
        test_features: [n, D]; n may be 0.
        test_labels: [n].
        context: initial context vectors, [M, W] or [C, M, W], fp32.
        objective: what is minimised, at its start.
        seed: chooses the views.
        zero_shot: classes that the untrained model prefers for the training pictures, [N]; None
            when the evidence is not measured.
    """

    features: Tensor
    given: Tensor
    true: Tensor | None
    test_features: Tensor
    test_labels: Tensor
    context: Tensor
    objective: Objective
    seed: int
    zero_shot: Tensor | None = None
