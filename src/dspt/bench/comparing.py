"""What is compared with what, over which seeds: shared by the tables and the long table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from dspt.report.summary import Block, Difference, Method, Seeds, mean_difference
from dspt.result import RunResult, Transfer

Values = Mapping[Seeds, float]

ZERO_SHOT = "Zero-shot"


def comparable_rows(
    block: Block, method: Method, reference: str
) -> list[tuple[str, Method | None]]:
    """Rows of the reference that ``method`` is compared with; None is the untrained model."""
    rows: list[tuple[str, Method | None]] = [
        (first.label, first)
        for first in block.rivals
        if first.canonical == reference and are_compared(first, method, block.rivals)
    ]
    return [(ZERO_SHOT, None)] if reference == "zero_shot" and not rows else rows


def are_compared(first: Method | None, other: Method | None, methods: Sequence[Method]) -> bool:
    """Whether to compare: with the same variant of a method where there is one, else with all."""
    if first == other:
        return False
    if first is None or other is None or not other.variant:
        return True
    if first.canonical == other.canonical:
        return methods.index(other) > methods.index(first)
    variants = [m.variant for m in methods if m.canonical == other.canonical]
    return other.variant == first.variant or first.variant not in variants


def overall_difference(
    first: Sequence[Values], second: Sequence[Values]
) -> tuple[Difference | None, int]:
    """First minus second over all columns that both have, and how many these are.

    Columns share the seeds' draws and starts, so they are no independent repetitions: the
    differences of a seed are averaged over the columns first, and the 95 % t-interval is over the
    seeds. Only seeds that are there in every such column count.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a.keys() & b.keys()]
    if not pairs:
        return None, 0
    shared = set.intersection(*(set(a.keys() & b.keys()) for a, b in pairs))
    if not shared:
        return None, len(pairs)
    means = [statistics.fmean(a[seeds] - b[seeds] for a, b in pairs) for seeds in sorted(shared)]
    return mean_difference(means), len(pairs)


def transfer_to(run: RunResult, target: str) -> Transfer | None:
    """What a run measured on other classes or data."""
    return next((t for t in run.transfers if t.target == target), None)
