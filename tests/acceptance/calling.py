"""Calls of the command line, in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dspt.cli import main


@dataclass(frozen=True)
class Answer:
    """What a call left behind."""

    code: int
    out: str
    err: str


class Caller:
    """Runs ``dspt`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Answer:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Answer(exit_.value.code, out, err)

    def ok(self, *arguments: str | Path) -> Answer:
        """A call that must succeed."""
        answer = self(*arguments)
        assert answer.code == 0, answer.err
        return answer

    def refused(self, *arguments: str | Path) -> str:
        """A call that must fail with one line on standard error; the line."""
        answer = self(*arguments)
        assert answer.code == 2, answer
        assert answer.out == ""
        assert answer.err.endswith("\n")
        lines = answer.err.splitlines()
        assert len(lines) == 1, answer.err
        assert lines[0].startswith("dspt: error: ")
        return lines[0]


def in_a_process(*arguments: str | Path, **environment: str) -> Answer:
    """Runs ``python -m dspt`` as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "dspt", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
    )
    return Answer(done.returncode, done.stdout, done.stderr)
