"""What the three measurements of limits share: finished cells on disk, intervals, tables, figures.

A *cell* is a dictionary that names everything its outcome depends on. Its values are kept as one
line of ``cells.jsonl`` as soon as they are known, so a measurement that was stopped goes on where
it stopped, and one with other settings never takes a number that is not its own.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dspt.errors import UserError
from dspt.files import write_bytes, write_text
from dspt.noise import NoiseSpec
from dspt.report.figures import Canvas, Drawing, plot_line
from dspt.report.palette import Mark, assign_marks, method_label
from dspt.report.summary import t_quantile

Cell = Mapping[str, Any]
Values = dict[str, Any]
Origin = dict[str, Any]
CELLS_FILE = "cells.jsonl"


def parser(description: str, out: str) -> argparse.ArgumentParser:
    """The options that every measurement has."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--out", type=Path, default=Path(out), help="folder for results")
    made.add_argument("--seeds", type=int, nargs="+", help="one repetition each")
    made.add_argument("--rates", type=float, nargs="+", help="shares of wrong labels")
    made.add_argument("--epochs", type=int, help="of training")
    return made


def noise_spec(rate: float) -> NoiseSpec:
    """Symmetric noise; exactly this share of the labels is wrong."""
    return NoiseSpec(kind="symmetric", rate=rate) if rate else NoiseSpec()


class Ledger:
    """Values of finished cells, one JSON line each, written atomically.

    Raises:
        UserError: when the file holds a line that is none.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CELLS_FILE
        self._lines: dict[str, dict[str, Any]] = {}
        self._commit = commit()
        if self._path.is_file():
            for number, text in enumerate(self._path.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    line = json.loads(text)
                    self._lines[_key(line["cell"])] = line
                except (ValueError, KeyError, TypeError):
                    raise UserError(
                        f"{self._path}, line {number}: no finished cell; remove the line"
                    ) from None

    def __contains__(self, cell: Cell) -> bool:
        return _key(cell) in self._lines

    def __getitem__(self, cell: Cell) -> Values:
        return self._lines[_key(cell)]["values"]

    def add(self, finished: Iterable[tuple[Cell, Values]]) -> None:
        """Keep the values of these cells."""
        for cell, values in finished:
            self._lines[_key(cell)] = {"cell": cell, "values": values, "commit": self._commit}
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in self._lines.values()))

    def commits(self, cells: Iterable[Cell]) -> list[str]:
        """The code that these cells were made with."""
        return sorted({self._lines[_key(cell)]["commit"] for cell in cells})


def _key(cell: Cell) -> str:
    return json.dumps(cell, sort_keys=True)


class Clock:
    """Tells on standard error how far a measurement is."""

    def __init__(self, total: int, kept: int) -> None:
        self._total, self._done, self._began = total, kept, time.perf_counter()
        self.say(f"{kept} of {total} cells are there already" if kept else f"{total} cells to do")

    def advance(self, cells: int, what: str) -> None:
        """So many more cells are done."""
        self._done += cells
        passed = time.perf_counter() - self._began
        self.say(f"{self._done}/{self._total} cells, {passed:.0f} s: {what}")

    @staticmethod
    def say(text: str) -> None:
        """One line."""
        print(text, file=sys.stderr, flush=True)


def mean_and_margin(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % t-interval over repetitions; None for a single one."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    error = statistics.stdev(values) / math.sqrt(len(values))
    return mean, t_quantile(len(values) - 1) * error


def show(mean: float, margin: float | None, *, sign: bool = False) -> str:
    """A share in percent, or a difference of two in points, with its interval."""
    text = f"{100 * mean:+.1f}" if sign else f"{100 * mean:.1f}"
    return text if margin is None else f"{text} ± {100 * margin:.1f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """First column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def commit() -> str:
    """Short hash of the code that runs, marked when files were changed."""
    call = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(
        call, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def provenance(
    module: str, arguments: argparse.Namespace, ledger: Ledger, cells: Sequence[Cell]
) -> Origin:
    """Command, code, machine and seeds, to stand beside the numbers."""
    import torch

    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "settings": {k: v for k, v in vars(arguments).items() if k != "out"},
        "commits": ledger.commits(cells),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), "
        f"torch {torch.__version__}, Python {platform.python_version()}",
        "seeds": arguments.seeds,
    }


def publish(
    folder: Path, name: str, origin: Origin, rows: Sequence[Values], table: str, drawing: Drawing
) -> None:
    """Print the table; write it, its rows as JSON and the figure as PNG and SVG."""
    write_text(folder / f"{name}.json", json.dumps({**origin, "rows": rows}, indent=1) + "\n")
    write_text(folder / f"{name}.md", table)
    write_bytes(folder / f"{name}.png", _few_colours(drawing.png()))
    write_text(folder / f"{name}.svg", drawing.svg())
    print(table)
    print(f"{origin['command']}\ncode {', '.join(origin['commits'])}; {origin['machine']}")


def _few_colours(png: bytes) -> bytes:
    """The same picture with a palette: a fifth of the bytes, no difference to the eye."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.quantize(128, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# Drawing


def method_marks(methods: Sequence[str]) -> dict[str, Mark]:
    """Every method's own mark."""
    return assign_marks((method, method) for method in methods)


_RATE_MARKS = (
    Mark("blue", "o"),
    Mark("vermilion", "s", (6, 2)),
    Mark("green", "^", (2, 1.6)),
    Mark("purple", "D", (7, 2, 1.6, 2)),
    Mark("amber", "v", (4, 1.6)),
)


def rate_marks(rates: Sequence[float]) -> list[Mark]:
    """A mark for every share of wrong labels.

    Raises:
        UserError: for more than there are marks.
    """
    if len(rates) > len(_RATE_MARKS):
        raise UserError(f"rates: at most {len(_RATE_MARKS)} can be told apart in a figure")
    return list(_RATE_MARKS[: len(rates)])


def percent(rate: float) -> str:
    """A share of wrong labels in words."""
    return f"{100 * rate:g} % wrong labels"


def line_with_intervals(
    canvas: Canvas, axes: Any, points: Sequence[tuple[float, float, float | None]], mark: Mark,
    label: str, **more: Any,
) -> None:  # fmt: skip
    """Points (x, mean, margin), means and margins as shares, drawn in percent."""
    x = [point[0] for point in points]
    y = [100 * point[1] for point in points]
    bars = [100 * (point[2] or 0.0) for point in points]
    if any(bars):
        colour = canvas.colour(mark.colour)
        axes.errorbar(x, y, bars, fmt="none", ecolor=colour, elinewidth=1.4, alpha=0.55, zorder=2)
    plot_line(canvas, axes, x, y, mark, label=label, **more)


def frame(canvas: Canvas, axes: Any, title: str, x: str, *, difference: bool = False) -> None:
    """Title, axes and grid in the manner of the package's other figures.

    The vertical axis is in percent, or, for a difference of two shares, in points with a line at 0.
    """
    axes.set_title(title, fontsize=12.5)
    axes.set_xlabel(x)
    axes.grid(axis="y", linewidth=1)
    axes.spines["left"].set_visible(False)
    form = "{:+g}" if difference else "{:g}\u00a0%"
    axes.yaxis.set_major_formatter(
        lambda value, _: form.format(value).replace("-", "−") if value else "0"
    )
    if difference:
        axes.axhline(0, color=canvas.colour("reference"), linewidth=1.4, zorder=1)


def legend(canvas: Canvas, axes: Any, **where: Any) -> None:
    """Without a frame, in the ink of the page."""
    axes.legend(
        frameon=False, labelcolor=canvas.colour("ink"), handlelength=2.6, labelspacing=0.35,
        borderaxespad=0.3, fontsize=11.5, **where,
    )  # fmt: skip


__all__ = [
    "Cell",
    "Clock",
    "Ledger",
    "Origin",
    "Values",
    "frame",
    "legend",
    "line_with_intervals",
    "markdown_table",
    "mean_and_margin",
    "method_label",
    "method_marks",
    "noise_spec",
    "parser",
    "percent",
    "provenance",
    "publish",
    "rate_marks",
    "show",
]
