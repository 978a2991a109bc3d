"""The training loop: K independent prompts side by side on cached image features.

One call of the text engine gives the class features of all K prompts; each run has its own samples,
given labels, batch order and objective. Runs never mix: the gradient of the sum of their losses is,
for each prompt, the gradient of its own loss. A single run is K = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dspt.errors import UserError
from dspt.prompts import TextEngine
from dspt.result import EpochMetrics
from dspt.seeding import keyed_uint64
from dspt.training.evidence import features_and_updates, measure_epoch, update_is_due
from dspt.training.objective import Batch, Objective
from dspt.training.recipe import Recipe
from dspt.training.run import TrainingRun


class DivergedError(UserError):
    """The loss or the prompt became infinite or NaN."""


@dataclass
class TrainingState:
    """Everything that the next epoch depends on, for K runs.

    Attributes:
        epoch: number of finished epochs.
        context: [K, ...] fp32.
        momentum: [K, ...] fp32, zeros before the first step.
        memory: per run, what its objective keeps.
        metrics: per run, one record per finished epoch, the start included.
    """

    epoch: int
    context: Tensor
    momentum: Tensor
    memory: list[dict[str, Tensor]]
    metrics: list[list[EpochMetrics]] = field(default_factory=list)


def train(
    engine: TextEngine,
    logit_scale: float,
    runs: Sequence[TrainingRun],
    recipe: Recipe,
    *,
    state: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> TrainingState:
    """Train K prompts.

    Each step of a run is SGD on the mean loss of one batch; the order of the samples is drawn anew
    every epoch from the run's seed and the epoch alone, so training can stop after any epoch and go
    on from ``state`` to the identical result. A last batch that is not full is left out when there
    is a full one, as the field's code does; the next epoch's order brings its samples in.

    Args:
        engine: context vectors [K, ...] -> class features [K, C, D].
        logit_scale: factor on the cosine similarity.
        runs: K runs with equally many training pictures.
        recipe: optimizer and schedule, shared by the runs.
        state: where to go on; None starts from the runs' initial context.
        on_epoch: called with the state after the start was measured and after every epoch.
        on_step: called after every step with (steps done, steps in all).

    Returns:
        The state after the last epoch.

    Raises:
        ValueError: when the runs differ in the number of training pictures.
        DivergedError: when a loss, the prompt or its class features stop being finite.
    """
    samples = len(runs[0].given)
    if any(len(run.given) != samples for run in runs):
        raise ValueError("runs trained side by side must have equally many training pictures")
    batch = min(recipe.batch_size, samples)
    steps = samples // batch
    # Objectives remember; the caller's stay as they are, so that a run can be trained again.
    runs = [replace(run, objective=copy(run.objective)) for run in runs]
    objectives = [run.objective for run in runs]
    mean_losses = _MeanLosses(objectives, runs[0].context.device)

    def measured(state: TrainingState, lr: float | None, losses: list[float] | None) -> Tensor:
        """Append to every run's metrics; class features of the prompts as they stand."""
        due = update_is_due(state.epoch, recipe.epochs, steps)
        standing, updates = features_and_updates(engine, state.context, runs, logit_scale, due)
        if not bool(torch.isfinite(standing).all()):
            raise DivergedError(
                f"the text tower gives class features that are not finite after epoch "
                f"{state.epoch}; lower recipe.lr (now {recipe.lr}) or use precision bf16 or fp32"
            )
        for number, run in enumerate(runs):
            state.metrics[number].append(
                measure_epoch(
                    run,
                    standing[number],
                    logit_scale,
                    epoch=state.epoch,
                    lr=lr,
                    train_loss=None if losses is None else losses[number],
                    update=updates[number],
                )
            )
        if on_epoch:
            on_epoch(state)
        return standing

    if state is None:
        start = torch.stack([run.context.float() for run in runs])
        memory = [objective.state() for objective in objectives]
        state = TrainingState(0, start, torch.zeros_like(start), memory, [[] for _ in runs])
        standing = measured(state, None, None)
    else:
        for objective, kept in zip(objectives, state.memory, strict=True):
            objective.restore(kept)
        with torch.no_grad():
            standing = engine(state.context)
    context = state.context.clone().requires_grad_(True)
    optimizer = torch.optim.SGD(
        [context], lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    # The optimizer's first step sets its buffer to the gradient, as a buffer of zeros would.
    optimizer.state[context]["momentum_buffer"] = state.momentum.clone()

    for epoch in range(state.epoch, recipe.epochs):
        lr = recipe.learning_rate(epoch)
        optimizer.param_groups[0]["lr"] = lr
        for run, features in zip(runs, standing, strict=True):
            if not run.objective.is_plain:
                run.objective.begin_epoch(epoch, logit_scale * run.features[:, 0] @ features.t())
        device = context.device
        orders = [torch.from_numpy(run.objective.order(epoch)).to(device) for run in runs]
        views = [torch.from_numpy(_view_choice(run, epoch)).to(device) for run in runs]
        summed = torch.zeros(len(runs), device=device)
        for step in range(steps):
            part = slice(step * batch, (step + 1) * batch)
            rows = torch.stack([order[part] for order in orders])
            images = torch.stack(
                [run.features[i, v[i]] for run, i, v in zip(runs, rows, views, strict=True)]
            )
            values = mean_losses(rows, images, engine(context), logit_scale, epoch * steps + step)
            optimizer.zero_grad(set_to_none=True)
            values.sum().backward()
            optimizer.step()
            summed += values.detach()
            if on_step:
                on_step(epoch * steps + step + 1, recipe.epochs * steps)
        losses = summed / steps
        if not bool(torch.isfinite(losses).all() and torch.isfinite(context).all()):
            raise DivergedError(
                f"training diverged in epoch {epoch + 1} (loss {losses.tolist()}); "
                f"lower recipe.lr (now {recipe.lr}) or use precision fp32"
            )
        buffer = optimizer.state[context]["momentum_buffer"]
        history = [list(records) for records in state.metrics]  # states handed out stay as they are
        memory = [objective.state() for objective in objectives]
        state = TrainingState(
            epoch + 1, context.detach().clone(), buffer.detach().clone(), memory, history
        )
        standing = measured(state, lr, losses.tolist())
    return state


def _view_choice(run: TrainingRun, epoch: int) -> np.ndarray:
    """Which cached view of each picture an epoch trains on, [N]."""
    views = run.features.shape[1]
    if views == 1:
        return np.zeros(len(run.given), dtype=np.int64)
    # View 0 is the plain picture: with augmentation, training sees the augmented ones only.
    drawn = keyed_uint64(run.seed, f"views/{epoch}", range(len(run.given)))
    return (1 + drawn % np.uint64(views - 1)).astype(np.int64)


class _MeanLosses:
    """The runs' mean losses in a step; a plain loss is called once for all runs that share it."""

    def __init__(self, objectives: Sequence[Objective], device: torch.device) -> None:
        self._objectives = objectives
        members: dict[int, list[int]] = {}
        for number, objective in enumerate(objectives):
            # An objective that is not plain is a group of its own.
            key = id(objective.loss) if objective.is_plain else id(objective)
            members.setdefault(key, []).append(number)
        self._groups = list(members.values())
        # Index tensors are made once: making them in a step would make a GPU wait for the host.
        self._index = [torch.tensor(numbers, device=device) for numbers in self._groups]
        self._given = torch.stack([objective.given for objective in objectives])
        self._back = torch.cat(self._index).argsort()

    def __call__(
        self, rows: Tensor, images: Tensor, features: Tensor, logit_scale: float, step: int
    ) -> Tensor:
        """Mean loss of each run's batch, [K].

        Args:
            rows: samples of each run's batch, [K, B].
            images: their features, [K, B, D].
            features: of the classes, [K, C, D].
            logit_scale: factor on the cosine similarity.
            step: number of the step.
        """
        logits = logit_scale * images @ features.transpose(1, 2)
        given = self._given.gather(1, rows)
        means = []
        for numbers, index in zip(self._groups, self._index, strict=True):
            objective = self._objectives[numbers[0]]
            if objective.is_plain:
                values = objective.loss(logits[index].flatten(0, 1), given[index].flatten())
            else:
                k = numbers[0]
                values = objective.values(
                    Batch(rows[k], images[k], logits[k], features[k], logit_scale, step)
                )
            means.append(values.unflatten(0, (len(numbers), -1)).mean(dim=1))
        return torch.cat(means)[self._back]
