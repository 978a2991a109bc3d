"""How long work tells what it is doing: nothing by default, a bar on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

Advance = Callable[[int, int], None]
"""Called with (units done, units in all)."""


class Progress(Protocol):
    """A place to report to."""

    def task(self, description: str) -> contextlib.AbstractContextManager[Advance]:
        """Begin a piece of work; the context yields the function to report with."""

    def note(self, text: str) -> None:
        """Say something once."""


class Silent:
    """Reports nothing."""

    @contextlib.contextmanager
    def task(self, description: str) -> Iterator[Advance]:
        yield lambda done, total: None

    def note(self, text: str) -> None:
        return None
