"""Compute what a grid asks for and the folder does not hold yet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dspt.backbones.devices import TooLittleMemoryError
from dspt.bench.grid import Grid
from dspt.bench.grid import cells as cells_of
from dspt.bench.loading import Loader
from dspt.bench.schedule import (
    BOUND_SECONDS,
    Group,
    Plan,
    ShapeCost,
    form_groups,
    make_plan,
    measure_shape,
    model_key,
    shape_key,
    source_key,
)
from dspt.bench.store import Failure, Store, cell_id
from dspt.configuration import FitConfig
from dspt.data import load_dataset
from dspt.errors import UserError
from dspt.files import WriteError
from dspt.fitting import check_settings, fit_many
from dspt.methods import trains_prompt
from dspt.outcome import FittedRun
from dspt.progress import Progress, Silent
from dspt.result import NEW
from dspt.tracking import Tracker
from dspt.training.loop import DivergedError
from dspt.training_set import draw_training_set


@dataclass(frozen=True)
class Status:
    """How far a bench is.

    Attributes:
        cells_done: finished or failed, those of earlier calls included.
        cells: of the grid.
        groups_done: of this call.
        groups: of this call.
        seconds_left: from the speed measured so far; before the first group, from timed steps.
    """

    cells_done: int
    cells: int
    groups_done: int
    groups: int
    seconds_left: float


@dataclass
class Outcome:
    """What a call did.

    Attributes:
        computed: cells that it finished.
        failures: cells without a result, with the reason, those of earlier calls included.
        elsewhere: cells that another process is computing.
    """

    computed: list[FitConfig] = field(default_factory=list)
    failures: list[tuple[FitConfig, Failure]] = field(default_factory=list)
    elsewhere: list[FitConfig] = field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    """A bench that is ready to run.

    Attributes:
        plan: what there is to do.
        groups: in the order of computing.
        costs: by shape, of those that train prompts.
        retry: whether what failed before is tried again.
    """

    plan: Plan
    groups: list[Group]
    costs: dict[object, ShapeCost]
    retry: bool = False

    def seconds(self, group: Group) -> float:
        """Estimated time of a group, without image features."""
        if not group.trains:
            return BOUND_SECONDS * len(group.cells)
        return self.costs[shape_key(group.cells[0])].seconds(len(group.cells))


class Bench:
    """A grid and the folder of its results.

    Args:
        grid: what is asked for.
        out: folder; what it holds already is not computed again.
        side_by_side: most prompts that train in one pass; None for what suits the machine.
        device: for the backbones.
        cache: folder for image features; None for the user's cache folder.
        progress: where to report to.
        trackers: where the epochs of what is computed go; see :mod:`dspt.tracking`.

    Raises:
        UserError: when a combination of the grid is no possible run.
    """

    def __init__(
        self,
        grid: Grid,
        out: Path,
        *,
        side_by_side: int | None = None,
        device: str = "auto",
        cache: Path | None = None,
        progress: Progress | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        if side_by_side is not None and side_by_side < 1:
            raise UserError(f"side-by-side: must be at least 1, not {side_by_side}")
        self.grid = grid
        self.cells = cells_of(grid)
        self.store = Store(out)
        self._side_by_side = side_by_side
        self._trackers = trackers
        self._loader = Loader(device, cache, progress or Silent())
        _check(self.cells)

    def prepare(self, *, retry: bool = False) -> Prepared:
        """Plan, and time a few steps of every shape that is to be trained.

        Args:
            retry: whether to try again what failed in a way that would repeat itself.

        Raises:
            UserError: when data or models that are needed cannot be loaded, or are not those of
                the finished cells.
        """
        if self.store.out.exists() and not self.store.out.is_dir():
            raise UserError(f"out: {self.store.out} is a file; name a folder")
        plan = make_plan(self.cells, self.store, retry=retry)
        shapes: dict[object, list[FitConfig]] = {}
        for cell in plan.pending:
            if trains_prompt(cell.method):
                shapes.setdefault(shape_key(cell), []).append(cell)
        self._refuse_changed(plan)
        for cell in {(c.data_root, c.transfer): c for c in plan.pending}.values():
            for target in set(cell.transfer) - {NEW}:
                load_dataset(target, root=cell.data_root)
        costs: dict[object, ShapeCost] = {}
        with self._loader.progress.task("timing a few steps") as advance:
            for number, (key, members) in enumerate(shapes.items(), 1):
                first = members[0]
                costs[key] = measure_shape(
                    first,
                    len(members),
                    self._loader.dataset(first),
                    self._loader.backbone(first),
                    self._side_by_side,
                )
                advance(number, len(shapes))
        groups = form_groups(plan, lambda cell: costs[shape_key(cell)].side_by_side)
        return Prepared(plan, groups, costs, retry)

    def execute(
        self, prepared: Prepared, on_status: Callable[[Status], None] = lambda status: None
    ) -> Outcome:
        """Compute all groups; every finished cell is written at once.

        A cell whose training diverges, or whose noise cannot be made, is passed over and told of.

        Args:
            prepared: by :meth:`prepare`.
            on_status: called at the start and after every group.

        Raises:
            UserError: when the folder cannot be written or data cannot be read.
        """
        plan = prepared.plan
        self.store.remember(self.grid.model_dump(mode="json", exclude={"root"}))
        outcome = Outcome()
        for cell in plan.cells:
            if cell_id(cell) in plan.failed:
                outcome.failures.append((cell, plan.failed[cell_id(cell)]))
        settled = len(plan.finished)
        queues: dict[object, list[FitConfig]] = {}
        for group in prepared.groups:
            if group.trains and not group.begun:
                queues.setdefault(shape_key(group.cells[0]), []).extend(group.cells)
        estimates = [prepared.seconds(group) for group in prepared.groups]
        expected = measured = 0.0
        place = None
        for number, group in enumerate(prepared.groups):
            done = settled + len(outcome.computed) + len(outcome.failures)
            left = sum(estimates[number:]) * (measured / expected if expected else 1.0)
            on_status(Status(done, len(plan.cells), number, len(prepared.groups), left))
            if place != (place := (source_key(group.cells[0]), model_key(group.cells[0]))):
                self._loader.keep_only(
                    [c for later in prepared.groups[number:] for c in later.cells]
                )
            for fitted in self._compute(group, queues, prepared.retry, outcome):
                if group.trains and fitted:
                    measured += fitted[0].result.time.training
                    expected += estimates[number] * len(fitted) / len(group.cells)
        for left_over in queues.values():
            outcome.elsewhere += left_over
        outcome.elsewhere = [c for c in outcome.elsewhere if self.store.finished(c) is None]
        done = len(plan.cells) - len(outcome.elsewhere)
        on_status(Status(done, len(plan.cells), len(prepared.groups), len(prepared.groups), 0.0))
        self._loader.keep_only([])
        return outcome

    def _compute(
        self,
        group: Group,
        queues: dict[object, list[FitConfig]],
        retry: bool,
        outcome: Outcome,
    ) -> Iterator[list[FittedRun]]:
        """Compute a group without what other processes compute; yields what was finished."""
        if not group.trains:
            for cell in group.cells:
                with self.store.locked([cell]) as ours:
                    outcome.elsewhere += [] if ours else [cell]
                    for piece in self._pieces(self._missing(ours, retry, outcome), outcome):
                        yield from self._train(piece, outcome)
        elif group.begun:
            with self.store.locked(group.cells) as ours:
                if len(ours) < len(group.cells):  # the checkpoint is of all of them together
                    outcome.elsewhere += group.cells
                elif self._missing(ours, retry, outcome):
                    yield from self._train(group.cells, outcome)
        else:
            with contextlib.ExitStack() as held:
                queue = queues[shape_key(group.cells[0])]
                taken: list[FitConfig] = []
                for cell in list(queue):  # the next ones that nobody else is at
                    if len(taken) == len(group.cells):
                        break
                    if self.store.lock(cell, held):
                        queue.remove(cell)
                        taken += self._missing([cell], retry, outcome)
                for piece in self._pieces(taken, outcome):
                    yield from self._train(piece, outcome)

    def _missing(
        self, cells: Sequence[FitConfig], retry: bool, outcome: Outcome
    ) -> list[FitConfig]:
        """Those with which no other process has come to an end since the plan was made."""
        missing = []
        for cell in cells:
            failure = None if retry else self.store.failure(cell)
            if self.store.finished(cell) is not None:
                continue
            if failure is not None and failure.final:
                outcome.failures.append((cell, failure))
            else:
                missing.append(cell)
        return missing

    def _pieces(self, cells: Sequence[FitConfig], outcome: Outcome) -> list[list[FitConfig]]:
        """The cells by number of training pictures, which differs where some cannot be read."""
        pieces: dict[int, list[FitConfig]] = {}
        for cell in cells:
            try:
                drawn = draw_training_set(
                    cell, self._loader.dataset(cell), self._loader.features(cell)
                )
            except WriteError:  # a full disk, say: no cell's own fault
                raise
            except UserError as error:
                self._fail(cell, Failure(str(error), final=False), outcome)
            else:
                pieces.setdefault(len(drawn.indices), []).append(cell)
        return list(pieces.values())

    def _train(self, cells: list[FitConfig], outcome: Outcome) -> Iterator[list[FittedRun]]:
        """Compute cells in one pass; their locks are held."""
        first = cells[0]
        trains = trains_prompt(first.method)
        folders: list[Path | None] = []
        for cell in cells:
            if self.store.finished(cell) is None:
                self.store.prepare(cell)
                folders.append(self.store.folder(cell))
            else:  # of a group that was interrupted while its results were written
                folders.append(None)
        if trains:
            self.store.write_group(cells)
        try:
            fitted = fit_many(
                cells,
                self._loader.dataset(first),
                self._loader.backbone(first),
                folders=folders,
                checkpoint=self.store.checkpoint(cells) if trains else None,
                cache=self._loader.cache,
                progress=self._loader.progress,
                features=self._loader.features(first),
                reports=False,
                trackers=self._trackers,
            )
        except DivergedError as error:
            self.store.forget_group(cells)
            if len(cells) == 1:
                self._fail(first, Failure(str(error), final=True), outcome)
                return
            parts = [[cell] for cell in cells]
        except TooLittleMemoryError:
            if len(cells) == 1:
                raise
            self.store.forget_group(cells)
            half = len(cells) // 2
            parts = [cells[:half], cells[half:]]
        else:
            self.store.forget_group(cells)
            written = [run for run in fitted if run.folder is not None]
            outcome.computed += [run.result.config for run in written]
            yield written
            return
        for part in parts:  # remembered at once: a call that is interrupted goes on like this
            self.store.write_group(part)
        for part in parts:
            yield from self._train(part, outcome)

    def _fail(self, cell: FitConfig, failure: Failure, outcome: Outcome) -> None:
        self.store.write_failure(cell, failure)
        outcome.failures.append((cell, failure))

    def _refuse_changed(self, plan: Plan) -> None:
        """Results of changed data or weights must not stand in one table with those before."""
        now = {}
        for cell in plan.pending:
            for what, key, load in (
                ("data", source_key(cell), self._loader.dataset),
                ("backbone", model_key(cell), self._loader.backbone),
            ):
                if (what, key) not in now:
                    now[what, key] = load(cell).fingerprint
        for cell in plan.cells if plan.finished else []:
            prints = plan.finished.get(cell_id(cell))
            if prints is None:
                continue
            for what, key, then in (
                ("data", source_key(cell), prints[0]),
                ("backbone", model_key(cell), prints[1]),
            ):
                if now.get((what, key), then) != then:
                    raise UserError(
                        f"out: the {what} has changed since {self.store.folder(cell)} was computed "
                        f"({then[:12]} then, {now[what, key][:12]} now); use another folder"
                    )


def _check(cells: Sequence[FitConfig]) -> None:
    """Refuse what cannot be run; equal settings are looked at once."""
    seen = set()
    for cell in cells:
        options = tuple(sorted(cell.method_options.items()))
        key = (cell.method, options, cell.transfer, cell.classes, cell.prompt.class_specific)
        if key not in seen:
            seen.add(key)
            check_settings(cell)
