"""The training loop: K independent prompts side by side on cached image features.

One call of the text engine gives the class features of all K prompts; each run has its own samples,
given labels, batch order and loss. Runs never mix: the gradient of the sum of their losses is, for
each prompt, the gradient of its own loss. A single run is K = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dspt.errors import UserError
from dspt.evaluation import share
from dspt.losses import PerSampleLoss, logit_gradient_norm
from dspt.prompts import TextEngine
from dspt.result import EpochMetrics
from dspt.seeding import keyed_order, keyed_uint64
from dspt.training.recipe import Recipe


class DivergedError(UserError):
    """The loss or the prompt became infinite or NaN."""


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
        loss: per-sample loss.
        seed: orders the batches.
    """

    features: Tensor
    given: Tensor
    true: Tensor | None
    test_features: Tensor
    test_labels: Tensor
    context: Tensor
    loss: PerSampleLoss
    seed: int


@dataclass
class TrainingState:
    """Everything that the next epoch depends on, for K runs.

    Attributes:
        epoch: number of finished epochs.
        context: [K, ...] fp32.
        momentum: [K, ...] fp32, zeros before the first step.
        metrics: per run, one record per finished epoch, the start included.
    """

    epoch: int
    context: Tensor
    momentum: Tensor
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
        DivergedError: when a loss stops being finite.
    """
    samples = len(runs[0].given)
    if any(len(run.given) != samples for run in runs):
        raise ValueError("runs trained side by side must have equally many training pictures")
    if state is None:
        start = torch.stack([run.context.float() for run in runs])
        state = TrainingState(0, start, torch.zeros_like(start), [[] for _ in runs])
        _record(state, engine, logit_scale, runs, lr=None, losses=None)
        if on_epoch:
            on_epoch(state)
    batch = min(recipe.batch_size, samples)
    steps = samples // batch
    context = state.context.clone().requires_grad_(True)
    optimizer = torch.optim.SGD(
        [context], lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    # The optimizer's first step sets its buffer to the gradient, as a buffer of zeros would.
    optimizer.state[context]["momentum_buffer"] = state.momentum.clone()
    mean_losses = _Losses(runs, context.device)

    for epoch in range(state.epoch, recipe.epochs):
        lr = recipe.learning_rate(epoch)
        optimizer.param_groups[0]["lr"] = lr
        orders = [torch.from_numpy(_batch_order(run, epoch)).to(run.given.device) for run in runs]
        views = [torch.from_numpy(_view_choice(run, epoch)).to(run.given.device) for run in runs]
        summed = torch.zeros(len(runs), device=context.device)
        for step in range(steps):
            part = slice(step * batch, (step + 1) * batch)
            rows = [order[part] for order in orders]
            images = torch.stack(
                [run.features[i, v[i]] for run, i, v in zip(runs, rows, views, strict=True)]
            )
            given = torch.stack([run.given[i] for run, i in zip(runs, rows, strict=True)])
            logits = logit_scale * images @ engine(context).transpose(1, 2)
            values = mean_losses(logits, given)
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
        state = TrainingState(epoch + 1, context.detach().clone(), buffer.detach().clone(), history)
        _record(state, engine, logit_scale, runs, lr=lr, losses=losses.tolist())
        if on_epoch:
            on_epoch(state)
    return state


def _batch_order(run: TrainingRun, epoch: int) -> np.ndarray:
    return keyed_order(run.seed, f"batches/{epoch}", range(len(run.given)))


def _view_choice(run: TrainingRun, epoch: int) -> np.ndarray:
    """Which cached view of each picture an epoch trains on, [N]."""
    views = run.features.shape[1]
    if views == 1:
        return np.zeros(len(run.given), dtype=np.int64)
    # View 0 is the plain picture: with augmentation, training sees the augmented ones only.
    drawn = keyed_uint64(run.seed, f"views/{epoch}", range(len(run.given)))
    return (1 + drawn % np.uint64(views - 1)).astype(np.int64)


class _Losses:
    """The runs' losses, each function called once a step for all runs that share it."""

    def __init__(self, runs: Sequence[TrainingRun], device: torch.device) -> None:
        members: dict[int, list[int]] = {}
        for number, run in enumerate(runs):
            members.setdefault(id(run.loss), []).append(number)
        # Index tensors are made once: making them in a step would make a GPU wait for the host.
        self._groups = [
            (runs[numbers[0]].loss, torch.tensor(numbers, device=device))
            for numbers in members.values()
        ]
        self._back = torch.cat([numbers for _, numbers in self._groups]).argsort()

    def __call__(self, logits: Tensor, given: Tensor) -> Tensor:
        """Mean loss of each run's batch, [K], from logits [K, B, C] and labels [K, B]."""
        means = [
            loss(logits[numbers].flatten(0, 1), given[numbers].flatten())
            .unflatten(0, (len(numbers), -1))
            .mean(dim=1)
            for loss, numbers in self._groups
        ]
        return torch.cat(means)[self._back]


@torch.no_grad()
def _record(
    state: TrainingState,
    engine: TextEngine,
    logit_scale: float,
    runs: Sequence[TrainingRun],
    *,
    lr: float | None,
    losses: list[float] | None,
) -> None:
    """Measure every run with its prompt as it stands and append to its metrics."""
    features = engine(state.context)
    for number, run in enumerate(runs):
        logits = logit_scale * run.features[:, 0] @ features[number].t()
        predicted = logits.argmax(dim=1)
        clean = wrong = None
        if run.true is not None:
            norms = logit_gradient_norm(run.loss, logits, run.given)
            right = run.given == run.true
            clean, wrong = _mean(norms[right]), _mean(norms[~right])
        test = None
        if len(run.test_labels):
            test_logits = run.test_features @ features[number].t()
            test = share(test_logits.argmax(dim=1) == run.test_labels)
        state.metrics[number].append(
            EpochMetrics(
                epoch=state.epoch,
                lr=lr,
                train_loss=None if losses is None else losses[number],
                accuracy_given=share(predicted == run.given),
                accuracy_true=None if run.true is None else share(predicted == run.true),
                accuracy_test=test,
                gradient_norm_clean=clean,
                gradient_norm_mislabelled=wrong,
            )
        )


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if values.numel() else None
