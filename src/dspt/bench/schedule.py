"""Which cells train side by side, in which order, and how long it will take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dspt.bench.store import Failure, Store, cell_id
from dspt.configuration import FitConfig
from dspt.methods import trains_prompt

if TYPE_CHECKING:
    from dspt.backbones import Backbone
    from dspt.data import ImageDataset

SourceKey = tuple[Hashable, ...]
ModelKey = tuple[Hashable, ...]

ON_CPU = 8
"""Most prompts side by side without a GPU: a step for 8 takes 0.8 of the time of 8 steps for one
(docs/results/speed), more gain little, and the cells of a group are all finished only together."""
ON_GPU = 32
"""With one: few prompts leave most of it idle while the kernels of a step are started."""
BOUND_SECONDS = 1.0
"""What a method without a prompt is taken to need, for the time left."""
TIMED_STEPS = 2


def source_key(cell: FitConfig) -> SourceKey:
    """Equal for cells of the same data set."""
    return (
        cell.data,
        cell.data_root,
        cell.classes,
        cell.label_column,
        cell.image_column,
        cell.split_column,
        cell.holdout,
    )


def model_key(cell: FitConfig) -> ModelKey:
    """Equal for cells of the same backbone."""
    return (cell.backbone, cell.pretrained, cell.precision)


def shape_key(cell: FitConfig) -> tuple[Hashable, ...]:
    """Equal for cells that can train side by side, as long as all their pictures can be read."""
    from dspt.prompts.context import RANDOM_N_CTX

    prompt = cell.prompt
    n_ctx: Hashable = prompt.n_ctx
    if n_ctx is None:  # the text's own token count, known when the tokenizer is
        n_ctx = RANDOM_N_CTX if prompt.init == "random" else prompt.init
    return (
        source_key(cell),
        model_key(cell),
        (n_ctx, prompt.position, prompt.class_specific),
        cell.recipe,
        cell.views,
        cell.feature_precision,
        cell.shots,
    )


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        cells: of the grid.
        finished: ids of the finished ones, with fingerprints of their data and backbone.
        failed: ids of those that would fail again, with the reason.
        begun: groups of an earlier call that are to be continued, all their cells.
    """

    cells: list[FitConfig]
    finished: dict[str, tuple[str, str]]
    failed: dict[str, Failure]
    begun: list[list[FitConfig]]

    @cached_property
    def pending(self) -> list[FitConfig]:
        """The cells to compute."""
        return [
            cell
            for cell in self.cells
            if (name := cell_id(cell)) not in self.finished and name not in self.failed
        ]


@dataclass(frozen=True)
class Group:
    """Cells that are computed together.

    Attributes:
        cells: of one shape; of one data set and model for methods without a prompt.
        trains: whether they train prompts, side by side.
        begun: whether an earlier call began it; then it is continued with all its cells or not.
    """

    cells: list[FitConfig]
    trains: bool
    begun: bool = False


def make_plan(cells: Sequence[FitConfig], store: Store, *, retry: bool = False) -> Plan:
    """Look what is done; neither data nor models are loaded.

    Args:
        cells: of the grid.
        store: the bench's folder.
        retry: whether to try again what failed in a way that would repeat itself.
    """
    finished: dict[str, tuple[str, str]] = {}
    failed: dict[str, Failure] = {}
    for cell in cells:
        result = store.finished(cell)
        if result is not None:
            finished[cell_id(cell)] = (result.data.fingerprint, result.backbone.fingerprint)
        elif not retry and (failure := store.failure(cell)) is not None and failure.final:
            failed[cell_id(cell)] = failure
    plan = Plan(list(cells), finished, failed, [])
    pending = {cell_id(cell): cell for cell in plan.pending}
    for members in store.groups():
        names = [cell_id(cell) for cell in members]
        missing = [
            name
            for name, cell in zip(names, members, strict=True)
            if name not in finished and store.finished(cell) is None
        ]
        if not missing:
            with store.locked(members) as ours:
                if len(ours) == len(members):
                    store.forget_group(members)
        elif all(name in pending for name in missing):
            root = pending[missing[0]].data_root
            plan.begun.append([cell.model_copy(update={"data_root": root}) for cell in members])
            for name in missing:
                del pending[name]
    return plan


def form_groups(plan: Plan, at_most: Callable[[FitConfig], int]) -> list[Group]:
    """The groups in the order in which they are computed.

    Model by model, then data set by data set, so that each is loaded once. For each the methods
    without a prompt come first, then groups that were begun, then the others in the grid's order.

    Args:
        plan: what there is to do.
        at_most: how many prompts of this cell's shape may train side by side.
    """
    begun = {cell_id(cell) for members in plan.begun for cell in members}
    bounds: dict[Hashable, list[FitConfig]] = {}
    shapes: dict[Hashable, list[FitConfig]] = {}
    for cell in plan.pending:
        if not trains_prompt(cell.method):
            bounds.setdefault((source_key(cell), model_key(cell)), []).append(cell)
        elif cell_id(cell) not in begun:
            shapes.setdefault(shape_key(cell), []).append(cell)
    groups = [Group(members, trains=False) for members in bounds.values()]
    groups += [Group(members, trains=True, begun=True) for members in plan.begun]
    for members in shapes.values():
        size = max(1, at_most(members[0]))
        # Groups of nearly equal size, larger ones first: 9 cells at most 8 at a time are 5 and 4.
        # So when the first groups are finished, those that are left are formed again as they were.
        count = -(-len(members) // size)
        small, larger = divmod(len(members), count)
        edges = [i * small + min(i, larger) for i in range(count + 1)]
        groups += [Group(members[a:b], trains=True) for a, b in itertools.pairwise(edges)]
    models = list(dict.fromkeys(model_key(cell) for cell in plan.cells))
    sources = list(dict.fromkeys(source_key(cell) for cell in plan.cells))
    groups.sort(
        key=lambda group: (
            models.index(model_key(group.cells[0])),
            sources.index(source_key(group.cells[0])),
        )
    )
    return groups


@dataclass(frozen=True)
class ShapeCost:
    """What a group of one shape costs.

    Attributes:
        side_by_side: prompts in a full group.
        step_seconds: forward and backward of the text engine for that many.
        steps: of the whole training.
    """

    side_by_side: int
    step_seconds: float
    steps: int

    def seconds(self, cells: int) -> float:
        """Training time of a group of ``cells`` prompts."""
        return self.step_seconds * self.steps * cells / self.side_by_side


def measure_shape(
    cell: FitConfig,
    members: int,
    dataset: ImageDataset,
    backbone: Backbone,
    side_by_side: int | None,
) -> ShapeCost:
    """How many prompts of a shape train side by side, and how long their steps take here.

    As many as fit the engine's memory limit without computing states twice, at most
    ``side_by_side``. A tower without the shared-prefix path gains nothing from company.

    Args:
        cell: one of the shape.
        members: how many there are.
        dataset: of the cell.
        backbone: of the cell.
        side_by_side: most prompts in a group; None for what suits the device.
    """
    import torch

    from dspt.prompts import MEMORY_LIMIT, initial_context, text_engine
    from dspt.prompts.shared_prefix import SharedPrefixEngine

    names, prompt = dataset.class_names, cell.prompt
    start = initial_context(backbone, prompt, len(names), cell.seed)

    def engine_for(runs: int):  # type: ignore[no-untyped-def]
        return text_engine(
            backbone,
            names,
            start.shape[-2],
            position=prompt.position,
            class_specific=prompt.class_specific,
            runs=runs,
        )

    most = side_by_side
    if most is None:
        most = ON_GPU if backbone.device.type == "cuda" else ON_CPU
        alone = engine_for(1)
        fitting = 1
        if isinstance(alone, SharedPrefixEngine):
            fitting = MEMORY_LIMIT // max(1, alone.training_bytes(1))
        most = max(1, min(most, fitting))
    count = -(-members // most)
    runs = -(-members // count)
    engine = engine_for(runs)
    context = torch.stack([start] * runs).requires_grad_(True)
    began = 0.0
    for step in range(1 + TIMED_STEPS):  # the first is not timed
        if step == 1:
            began = _now(backbone)
        engine(context).sum().backward()
    seconds = (_now(backbone) - began) / TIMED_STEPS
    return ShapeCost(most, seconds * most / runs, _steps(cell, dataset))


def _now(backbone: Backbone) -> float:
    import torch

    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
    return time.perf_counter()


def _steps(cell: FitConfig, dataset: ImageDataset) -> int:
    """Steps of a whole training, if every picture can be read."""
    pool = dataset.labels[dataset.splits["train"]]
    counts = np.bincount(pool, minlength=len(dataset.class_names))
    samples = int(counts.sum() if cell.shots is None else np.minimum(counts, cell.shots).sum())
    return cell.recipe.epochs * (samples // min(cell.recipe.batch_size, samples))
