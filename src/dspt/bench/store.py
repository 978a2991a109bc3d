"""The folder of a bench: which cells are finished, who computes which, what is half done.

``bench.json`` holds the grids that were asked for, ``cells/`` one run folder per cell as ``dspt
fit`` writes it, ``groups/`` what is unfinished, ``locks/`` the locks of processes at work. Nothing
but the files says what is done: a cell is finished when its ``result.json`` can be read and is of
the same settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspt.configuration import FitConfig
from dspt.errors import UserError
from dspt.files import locked, remove_abandoned, write_text
from dspt.result import RunResult
from dspt.run_folder import CONFIG_FILE, RESULT_FILE

BENCH_FILE = "bench.json"
FAILURE_FILE = "failure.json"
FORMAT = "dspt-bench-1"
ELSEWHERE = {"data_root"}
"""Fields that say where things lie and not what comes out."""


def cell_id(config: FitConfig) -> str:
    """Hash of everything that decides a run's outcome, the same in every process.

    Fields at their default do not count, so that a later version with one more field still finds
    its cells; should a default ever change, the comparison with ``result.json`` notices.
    """
    said = config.model_dump(mode="json", exclude_defaults=True, exclude=ELSEWHERE)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def group_id(cells: Sequence[FitConfig]) -> str:
    """Hash of the runs of a group, in their order."""
    return hashlib.sha256(" ".join(map(cell_id, cells)).encode()).hexdigest()[:12]


def cell_name(config: FitConfig) -> str:
    """Name of a cell's folder: words for people, the hash for certainty."""
    shots = "all" if config.shots is None else str(config.shots)
    words = f"{Path(config.data).name}-{config.method}-{config.noise}-{shots}shots-s{config.seed}"
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")
    return f"{plain[:80]}-{cell_id(config)}"


def same_run(one: FitConfig, other: FitConfig) -> bool:
    """Whether two runs are equal wherever their data lies."""
    return one.model_copy(update={"data_root": None}) == other.model_copy(
        update={"data_root": None}
    )


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result.

    Attributes:
        reason: one line.
        final: whether trying again would end the same way.
    """

    reason: str
    final: bool


@dataclass(frozen=True)
class Store:
    """The files of a bench below one folder."""

    out: Path

    def folder(self, cell: FitConfig) -> Path:
        """Where the run of a cell lies."""
        return self.out / "cells" / cell_name(cell)

    def checkpoint(self, cells: Sequence[FitConfig]) -> Path:
        """The unfinished training of a group."""
        return self.out / "groups" / f"{group_id(cells)}.safetensors"

    def finished(self, cell: FitConfig) -> RunResult | None:
        """The result of a cell, or None when there is none, it is damaged or of another run."""
        path = self.folder(cell) / RESULT_FILE
        if not path.is_file():
            return None
        try:
            result = RunResult.read(path)
        except UserError:
            return None
        return result if same_run(result.config, cell) else None

    def failure(self, cell: FitConfig) -> Failure | None:
        """Why an earlier attempt came to nothing."""
        try:
            told = json.loads((self.folder(cell) / FAILURE_FILE).read_text(encoding="utf-8"))
            return Failure(str(told["reason"]), bool(told["final"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write_failure(self, cell: FitConfig, failure: Failure) -> None:
        """Say why a cell has no result."""
        told = {"reason": failure.reason, "final": failure.final}
        told["config"] = cell.model_dump(mode="json")
        write_text(self.folder(cell) / FAILURE_FILE, json.dumps(told, indent=1) + "\n")

    def prepare(self, cell: FitConfig) -> None:
        """Make a cell's folder ready for its run; only for the holder of its lock."""
        folder = self.folder(cell)
        remove_abandoned(folder)
        for name in (FAILURE_FILE, RESULT_FILE):
            (folder / name).unlink(missing_ok=True)
        write_text(folder / CONFIG_FILE, cell.model_dump_json(indent=1) + "\n")

    @contextlib.contextmanager
    def locked(self, cells: Sequence[FitConfig]) -> Iterator[list[FitConfig]]:
        """Hold the locks of those cells that no other process holds; yields these cells."""
        with contextlib.ExitStack() as held:
            yield [cell for cell in cells if self.lock(cell, held)]

    def lock(self, cell: FitConfig, held: contextlib.ExitStack) -> bool:
        """Take the lock of a cell until ``held`` closes; False when another process has it.

        The operating system releases a lock when its process ends, however it ends.

        Raises:
            UserError: when the folder cannot be written.
        """
        path = self.out / "locks" / f"{cell_id(cell)}.lock"
        return held.enter_context(locked(path, blocking=False))

    def write_group(self, cells: Sequence[FitConfig]) -> None:
        """Remember which cells train side by side, so that their checkpoint is found again."""
        path = self.checkpoint(cells).with_suffix(".json")
        if not path.is_file():
            said = {"cells": [cell.model_dump(mode="json") for cell in cells]}
            write_text(path, json.dumps(said) + "\n")

    def forget_group(self, cells: Sequence[FitConfig]) -> None:
        """Remove what is kept of a group; only for the holder of its cells' locks."""
        path = self.checkpoint(cells)
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        remove_abandoned(path.parent)

    def groups(self) -> list[list[FitConfig]]:
        """The groups that were begun, in a fixed order; damaged records are passed over."""
        found = []
        for path in sorted((self.out / "groups").glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                told = json.loads(path.read_text(encoding="utf-8"))
                cells = [FitConfig.model_validate(fields) for fields in told["cells"]]
                if cells and group_id(cells) == path.stem:
                    found.append(cells)
        return found

    def remember(self, grid: Mapping[str, Any]) -> None:
        """Add a grid to ``bench.json``; those that stand there stay.

        Raises:
            UserError: when the folder cannot be written or holds another kind of ``bench.json``.
        """
        path = self.out / BENCH_FILE
        with locked(self.out / "locks" / "bench.lock"):
            grids = self._grids(path) if path.is_file() else []
            if grid not in grids:
                told = {"format": FORMAT, "grids": [*grids, grid]}
                write_text(path, json.dumps(told, indent=1) + "\n")

    def _grids(self, path: Path) -> list[Any]:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["format"] == FORMAT and isinstance(told["grids"], list):
                return list(told["grids"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        raise UserError(f"out: {path} is not a bench of this version; choose another folder")
