"""What the command line prints: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dspt.progress import Advance

out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def say_error(text: str) -> None:
    """One line on standard error."""
    err.print(f"[bold red]dspt: error:[/] {escape(' '.join(text.split()))}", soft_wrap=True)


def percent(fraction: float | None) -> str:
    """A share as people read it; a dash for none."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


class BarProgress:
    """Progress bars on standard error, one per task, finished ones kept as a line."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    @contextlib.contextmanager
    def task(self, description: str) -> Iterator[Advance]:
        if self._quiet:
            yield lambda done, total: None
            return
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            redirect_stdout=False,  # or what goes to a file would land on the terminal
        )
        with bar:
            number = bar.add_task(escape(description), total=None)
            yield lambda done, total: bar.update(number, completed=done, total=total)

    def note(self, text: str) -> None:
        if not self._quiet:
            err.print(f"note: {escape(text)}", soft_wrap=True)
