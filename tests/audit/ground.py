"""Pictures with planted wrong labels, and what an audit wrote about them."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from tests.tiny import draw, encoded

CLASSES = ("blue", "green", "red")
N = 8
WRONG = {"red/003.png": "green", "blue/005.png": "red", "green/000.png": "blue"}
"""Picture to what it really shows."""


def write_planted(folder: Path, wrong: dict[str, str], classes: Collection[str] = CLASSES) -> Path:
    """One folder a class, N pictures each; those in ``wrong`` show another class."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(N):
            path = f"{name}/{number:03}.png"
            picture = draw(wrong.get(path, name), number + 40)
            (folder / path).write_bytes(encoded(picture))
    return folder


def rows_of(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))
