"""A transition matrix of labels as a heat map: a table for few classes, a drawing for many.

Both are coloured by classes of the style sheet, because the page's policy allows no other styles,
and because the colours must follow dark mode.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from dspt.report.wording import DASH, listing, percent, share

_EDGES = (0.005, 0.02, 0.05, 0.10, 0.25)
"""Where the colours begin: shares of a class's pictures."""

_TABLE_CLASSES = 16
_DRAWN_CLASSES = 120
_FLOWS = 40
_CELL = 12  # CSS pixels
_MARGIN = 130  # for names
_NAME = 20  # characters


@dataclass(frozen=True)
class Flow:
    """A share of a class's pictures that carries another class's label."""

    true: str
    given: str
    share: float


@dataclass(frozen=True)
class HeatMap:
    """What the template draws; one of ``rows`` and ``paths`` is empty.

    Attributes:
        names: of the classes drawn.
        left_out: how many classes are not drawn.
        rows: of a table, [class][class]: (text, class of the style sheet).
        paths: (class of the style sheet, path data) of a drawing.
        lines: path data of a line after every tenth class, and around all.
        labels: class names for the drawing, shortened.
        size, cell, margin: of the drawing.
        legend: (class of the style sheet, text).
        flows: the largest wrong shares, largest first.
        label: what is to be seen, for those who do not see it.
    """

    names: Sequence[str]
    left_out: int
    rows: Sequence[Sequence[tuple[str, str]]]
    paths: Sequence[tuple[str, str]]
    lines: str
    labels: Sequence[str]
    size: int
    legend: Sequence[tuple[str, str]]
    flows: Sequence[Flow]
    label: str
    cell: int = _CELL
    margin: int = _MARGIN


def heat_map(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> HeatMap:
    """What to draw of a transition matrix.

    Args:
        matrix: [true class][given class], the share of a class's pictures with each label; rows sum
            to 1. Of more than 120 classes those with the most wrong labels are drawn.
        names: of the classes.

    Raises:
        ValueError: when the matrix is not square or does not fit the names.
    """
    n = len(names)
    if len(matrix) != n or any(len(row) != n for row in matrix):
        raise ValueError(f"a transition matrix of {n} classes must be {n} by {n}")
    by_wrong = sorted(range(n), key=lambda c: matrix[c][c])
    drawn = sorted(by_wrong[:_DRAWN_CLASSES])
    flows = sorted(
        (
            Flow(names[t], names[g], matrix[t][g])
            for t in range(n)
            for g in range(n)
            if t != g and matrix[t][g] >= _EDGES[0]
        ),
        key=lambda flow: -flow.share,
    )[:_FLOWS]
    small = n <= _TABLE_CLASSES
    largest = listing(f"{f.true} labelled {f.given} {percent(f.share)}" for f in flows[:3])
    return HeatMap(
        names=[names[c] for c in drawn],
        left_out=n - len(drawn),
        rows=[[_cell(matrix[t][g], t == g) for g in drawn] for t in drawn] if small else [],
        paths=[] if small else _paths([[matrix[t][g] for g in drawn] for t in drawn]),
        lines=_lines(len(drawn)),
        labels=[_short(names[c]) for c in drawn],
        size=_MARGIN + _CELL * len(drawn) + 1,
        legend=_legend(),
        flows=flows,
        label=f"Share of each class's pictures by given label, {len(drawn)} classes. "
        + (f"The largest wrong shares: {largest}." if flows else "No share is 0.5 % or more."),
    )


def _level(value: float) -> int:
    return sum(value >= edge for edge in _EDGES)


def _cell(value: float, own: bool) -> tuple[str, str]:
    if own:
        return share(value), "own"
    level = _level(value)
    return (share(value), f"heat{level}") if level else ("", "")


def _paths(matrix: Sequence[Sequence[float]]) -> list[tuple[str, str]]:
    """One path a colour: a page with 10,000 elements of their own would be slow."""
    squares: dict[str, list[str]] = {}
    for t, row in enumerate(matrix):
        for g, value in enumerate(row):
            level = _level(value)
            if t == g or level:
                name = "own" if t == g else f"heat{level}"
                corner = f"M{_MARGIN + g * _CELL} {_MARGIN + t * _CELL}"
                squares.setdefault(name, []).append(f"{corner}h{_CELL}v{_CELL}h-{_CELL}z")
    return [(name, "".join(parts)) for name, parts in sorted(squares.items())]


def _lines(n: int) -> str:
    places = [_MARGIN + _CELL * c for c in [*range(0, n, 10), n]]
    side = _CELL * n
    return "".join(f"M{place} {_MARGIN}v{side}M{_MARGIN} {place}h{side}" for place in places)


def _legend() -> list[tuple[str, str]]:
    texts = [f"{100 * low:g} {DASH} {percent(high, 0)}" for low, high in itertools.pairwise(_EDGES)]
    texts.append(f"{percent(_EDGES[-1], 0)} and more")
    return [("own", "rightly labelled")] + [(f"heat{i}", text) for i, text in enumerate(texts, 1)]


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
