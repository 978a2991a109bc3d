"""``dspt bench``: a grid of runs into one folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from dspt.cli import console, options
from dspt.errors import UserError
from dspt.progress import Advance

if TYPE_CHECKING:
    from dspt.bench.run import Bench, Outcome, Prepared, Status

LOG_EVERY = 60.0
"""Seconds between the lines of a long task, where there is no terminal for a bar."""

_GRID = "Grid (each replaces that field of the preset or file)"


def _several(help_text: str, *names: str, words: Callable[[], Iterable[str]] | None = None) -> Any:
    return typer.Option(
        *names,
        help=help_text,
        rich_help_panel=_GRID,
        show_default=False,
        autocompletion=None if words is None else options.offer(words),
    )


def _presets() -> list[str]:
    from dspt.bench.grid import preset_names

    return preset_names()


def command(
    out: Annotated[
        Path, typer.Option(help="Folder of the results; what it holds is not computed again.")
    ],
    grid: Annotated[
        Path | None, typer.Argument(metavar="[GRID]", help="A YAML file.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A grid that comes with dspt: smoke, caltech101, caltech101-lite, human-noise, "
            "self-adjusting, nlprompt-table or dspt-figure1.",
            show_default=False,
            autocompletion=options.offer(_presets),
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        _several("Data set; repeatable, as all of these.", words=options.data_words),
    ] = None,
    root: options.Root = None,
    backbone: Annotated[
        list[str] | None, _several("Model, as NAME or NAME@PRETRAINED.", "--backbone")
    ] = None,
    method: Annotated[
        list[str] | None,
        _several("Method, as NAME or NAME:option=value.", "--method", words=options.method_words),
    ] = None,
    noise: Annotated[
        list[str] | None,
        _several(
            "Noise, as none, symmetric:0.5 or column:NAME.", "--noise", words=options.noise_words
        ),
    ] = None,
    kind: Annotated[list[str] | None, _several("Kind of noise, at every --rate.", "--kind")] = None,
    rate: Annotated[list[float] | None, _several("Noise rate, of every --kind.", "--rate")] = None,
    shots: Annotated[
        list[str] | None, _several("Training pictures per class, or 'all'.", "--shots")
    ] = None,
    seed: Annotated[list[int] | None, _several("Seed.", "--seed")] = None,
    seeds: Annotated[int | None, _several("Seeds 1 to this number.", "--seeds")] = None,
    classes: Annotated[str | None, _several("all, base, new or first:N.", "--classes")] = None,
    epochs: Annotated[int | None, _several("Epochs of training.", "--epochs")] = None,
    init: Annotated[str | None, _several("'random', or words to start from.", "--init")] = None,
    n_ctx: Annotated[int | None, _several("Context vectors.", "--n-ctx")] = None,
    views: Annotated[int | None, _several("Augmented views per picture.", "--views")] = None,
    evidence: Annotated[
        bool | None,
        _several("Measure every epoch what the gradient does.", "--evidence/--no-evidence"),
    ] = None,
    side_by_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most prompts that train in one pass. \\[default: 8, on a GPU 32, fewer if memory "
            "asks for it]",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be run and how long it takes.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try cells again whose training diverged before.")
    ] = False,
    device: options.Device = "auto",
    cache: options.Cache = None,
    tensorboard: options.Tensorboard = False,
    wandb: options.Wandb = None,
    mlflow: options.Mlflow = None,
    quiet: options.Quiet = False,
) -> None:
    """Run every combination of data, models, methods, noise, shots and seeds.

    Each finished run is written at once; the same command goes on where it stopped, and several
    processes may work on one folder.

    \b
    [bold]Examples[/]
    dspt bench --preset smoke --out smoke
    dspt bench --preset caltech101 --root ~/data --out bench
    dspt bench --preset caltech101 --method ce --method dspt --seeds 1 --dry-run --out bench
    dspt bench my_grid.yaml --out bench
    dspt bench --data my_pictures --method ce --method dspt --kind symmetric --rate 0 --rate 0.5 \
--out bench
    """
    from dspt.bench.grid import override, parse_grid, read_grid, read_preset
    from dspt.bench.run import Bench

    if grid is not None and preset is not None:
        raise UserError("give a grid file or --preset, not both")
    if seed is not None and seeds is not None:
        raise UserError("give --seed or --seeds, not both")
    if seeds is not None and seeds < 1:
        raise UserError(f"seeds: must be at least 1, not {seeds}")
    fields: dict[str, Any] = {}
    where = "grid"
    if preset is not None:
        fields, where = read_preset(preset), f"preset {preset}"
    elif grid is not None:
        fields, where = read_grid(grid), str(grid)
    elif not data or not method:
        raise UserError("what to run? give a grid file, --preset NAME, or --data and --method")
    changes: dict[str, Any] = {
        "data": data,
        "root": None if root is None else str(root),
        "backbones": backbone,
        "methods": method,
        "noise": noise,
        "kinds": kind,
        "rates": rate,
        "shots": None if shots is None else [_shots(text) for text in shots],
        "seeds": seed if seeds is None else list(range(1, seeds + 1)),
        "classes": classes,
        "views": views,
        "evidence": evidence,
        "recipe": None if epochs is None else {"epochs": epochs},
        "prompt": _given({"init": init, "n_ctx": n_ctx}) or None,
    }
    fields = override(fields, _given(changes))
    display = _Display(quiet)
    bench = Bench(
        parse_grid(fields, where),
        out,
        side_by_side=side_by_side,
        device=device,
        cache=cache,
        progress=display,
        trackers=options.trackers(tensorboard, wandb, mlflow),
    )
    with display:
        prepared = bench.prepare(retry=retry)
    _show_plan(bench, prepared)
    if dry_run:
        return
    with display:
        outcome = bench.execute(prepared, display.status)
    _show_results(bench, outcome)
    if outcome.failures:
        raise typer.Exit(2)


def _given(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


def _shots(text: str) -> int | str:
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise UserError(f"shots: must be a whole number or 'all', not {text!r}") from None


def _show_plan(bench: Bench, prepared: Prepared) -> None:
    """What will be run and how long it takes, before it starts."""
    from dspt.bench.schedule import model_key, source_key
    from dspt.bench.store import cell_id

    plan = prepared.plan
    pending = {cell_id(cell) for cell in plan.pending}
    rows: dict[Any, list[Any]] = {}
    for cell in plan.cells:
        key = (source_key(cell), model_key(cell))
        words = [cell.data if cell.classes == "all" else f"{cell.data} ({cell.classes})"]
        words.append("@".join(filter(None, (cell.backbone, cell.pretrained))))
        row = rows.setdefault(key, [*words, 0, 0, 0, 0.0])
        row[2] += 1
        row[3] += cell_id(cell) in pending
    for group in prepared.groups:
        row = rows[source_key(group.cells[0]), model_key(group.cells[0])]
        row[4] += 1
        row[5] += prepared.seconds(group) if group.trains else 0.0
    table = Table(box=None, pad_edge=False)
    for heading in ("data", "model", "cells", "finished", "to do", "groups", "training"):
        table.add_column(
            heading, justify="left" if heading in ("data", "model") else "right", overflow="fold"
        )
    for name, model, total, todo, groups, seconds in rows.values():
        finished = total - todo
        cells = (name, model, total, finished, todo, groups, _duration(seconds))
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.out.print(table)
    failed = len(plan.failed)
    if failed:
        text = f"{failed} of the finished cells have no result; --retry tries them again"
        console.out.print(text, soft_wrap=True)
    if plan.begun:
        text = f"{len(plan.begun)} groups were begun by an earlier call and are continued"
        console.out.print(text, soft_wrap=True)
    text = (
        f"estimated training time {_duration(sum(row[5] for row in rows.values()))}, from timed "
        "steps; image features that are not in the cache and methods without a prompt come on top"
    )
    console.out.print(text if pending else "nothing left to do", soft_wrap=True)


def _show_results(bench: Bench, outcome: Outcome) -> None:
    """A short table of what the folder holds of this grid, then what is missing."""
    from dspt.report.summary import block_titles, summarise

    results = [r for cell in bench.cells if (r := bench.store.finished(cell)) is not None]
    say = console.out.print
    blocks = summarise([result for result in results if result.final is not None])
    for title, block in zip(block_titles(blocks), blocks, strict=True):
        say(f"\n{title}: mean top-1 accuracy in %", soft_wrap=True, markup=False)
        table = Table(box=None, pad_edge=False)
        table.add_column("method")
        for condition in block.conditions:
            table.add_column(escape(condition.label), justify="right")
        for method in block.methods:
            found = [block.cell(method, condition) for condition in block.conditions]
            cells = ["-" if c is None else f"{100 * c.mean:.1f}" for c in found]
            table.add_row(escape(method.label), *cells)
        say(table)
    out = bench.store.out
    say(
        f"\n{len(outcome.computed)} cells computed, {len(results)} of {len(bench.cells)} finished; "
        f"tables: dspt table {out}, figures: dspt plot {out}",
        soft_wrap=True,
        markup=False,
    )
    if outcome.elsewhere:
        text = f"{len(outcome.elsewhere)} cells are left to another process at work on {out}"
        console.err.print(text, soft_wrap=True, markup=False)
    for cell, failure in outcome.failures:
        name = bench.store.folder(cell).name
        console.say_error(f"{name}: {failure.reason}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class _Display:
    """One bar for the bench and one for what is being done; without a terminal, a line a group."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._live = not quiet and console.err.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console.err,
            redirect_stdout=False,  # or what goes to a file would land on the terminal
            transient=True,
        )
        self._whole: TaskID | None = None
        self._status: Status | None = None
        self._told = 0.0

    def __enter__(self) -> _Display:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bars.stop()

    @contextlib.contextmanager
    def task(self, description: str) -> Iterator[Advance]:
        if not self._live:
            yield self._lines(description)
            return
        bar = self._bars.add_task(escape(description), total=None, detail="")

        def advance(done: int, total: int) -> None:
            self._bars.update(bar, completed=done, total=total, detail=f"{done}/{total}")
            self._tick()

        try:
            yield advance
        finally:
            self._bars.remove_task(bar)

    def _lines(self, description: str) -> Advance:
        """For a log file: now and then a line."""
        said = time.monotonic()

        def advance(done: int, total: int) -> None:
            nonlocal said
            if not self._quiet and time.monotonic() - said > LOG_EVERY:
                said = time.monotonic()
                console.err.print(f"{description}: {done} of {total}", markup=False, soft_wrap=True)

        return advance

    def note(self, text: str) -> None:
        if not self._quiet:
            console.err.print(f"note: {escape(text)}", soft_wrap=True)

    def status(self, status: Status) -> None:
        """Say how far the bench is; between two calls the time left goes down by itself."""
        self._status, self._told = status, time.monotonic()
        if self._live:
            if self._whole is None:
                self._whole = self._bars.add_task("bench", total=status.cells, detail="")
            self._bars.update(self._whole, completed=status.cells_done)
            self._tick()
        elif not self._quiet:
            console.err.print(self._text(), soft_wrap=True)

    def _tick(self) -> None:
        if self._whole is not None:
            self._bars.update(self._whole, detail=self._text())

    def _text(self) -> str:
        status = self._status
        assert status is not None
        left = max(0.0, status.seconds_left - (time.monotonic() - self._told))
        return (
            f"{status.cells_done} of {status.cells} cells, {status.groups_done} of "
            f"{status.groups} groups, {_duration(left)} left"
        )
