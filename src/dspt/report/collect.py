"""Results found below folders, with what should be known about them before they are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspt.errors import UserError
from dspt.result import RunResult
from dspt.run_folder import RESULT_FILE

# Files that `dspt bench` leaves beside the results; read here as data that may be anything.
_BENCH_FILE = "bench.json"
_FAILURE_FILE = "failure.json"


@dataclass(frozen=True)
class Collected:
    """What was found.

    Attributes:
        results: every readable result, in the order of their paths.
        skipped: one line per result file that could not be read.
        failures: one line per run of a bench that ended without a result.
        benches: how `dspt bench` was called, where a bench left its record.
    """

    results: list[RunResult]
    skipped: list[str]
    failures: list[str]
    benches: list[str]


def collect(folders: Sequence[Path]) -> Collected:
    """Read every ``result.json`` in or below some folders.

    Raises:
        UserError: when a folder does not exist or no result can be read.
    """
    paths: dict[Path, None] = {}
    failed: dict[Path, None] = {}
    benches: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; give folders that hold finished runs")
        paths |= dict.fromkeys(sorted(p.resolve() for p in folder.rglob(RESULT_FILE)))
        failed |= dict.fromkeys(sorted(p.resolve() for p in folder.rglob(_FAILURE_FILE)))
        benches |= dict.fromkeys(sorted(p.resolve() for p in folder.rglob(_BENCH_FILE)))
    results, skipped = [], []
    for path in paths:
        try:
            results.append(RunResult.read(path))
        except UserError as error:
            skipped.append(str(error))
    if not results:
        where = ", ".join(map(str, folders))
        reason = f"; {skipped[0]}" if skipped else "; give folders that hold finished runs"
        raise UserError(f"no result found below {where}{reason}")
    failures = [
        f"{path.parent.name}: {reason}"
        for path in failed
        if path.with_name(RESULT_FILE) not in paths and (reason := _said(path, "reason"))
    ]
    return Collected(
        results, skipped, failures, list(dict.fromkeys(c for p in benches for c in _calls(p)))
    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _said(path: Path, key: str) -> str:
    told = _read(path)
    return str(told.get(key, "")) if isinstance(told, dict) else ""


def _calls(path: Path) -> list[str]:
    """What every grid of a bench asked for; its command where that is kept."""
    told = _read(path)
    grids = told.get("grids") if isinstance(told, dict) else None
    calls = []
    for grid in grids if isinstance(grids, list) else []:
        if isinstance(grid, dict):
            command = grid.get("command")
            calls.append(command if isinstance(command, str) else f"dspt bench, {_brief(grid)}")
    return calls


_FIELDS = ("data", "backbones", "methods", "noise", "kinds", "rates", "shots", "seeds", "classes")


def _brief(grid: dict[str, Any]) -> str:
    parts = [f"{name}: {text}" for name in _FIELDS if (text := _words(grid.get(name)))]
    recipe = grid.get("recipe")
    if isinstance(recipe, dict) and recipe.get("epochs"):
        parts.append(f"epochs: {recipe['epochs']}")
    return "; ".join(parts)


def _words(value: Any) -> str:
    """A list as a listing; of an entry with several fields, those that say something."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_words, value)))
    if isinstance(value, dict):
        texts = [_words(part) for part in value.values()]
        return " ".join(filter(None, texts))
    return "" if value is None else str(value)
