"""Results as one CSV in long form: a line for every data set, model, method, condition, measure."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Sequence

from dspt.bench.comparing import Values, comparable_rows, transfer_to
from dspt.bench.published import Published
from dspt.report.summary import (
    Block,
    Condition,
    Method,
    measured,
    option_text,
    paired_difference,
    seeds_of,
)
from dspt.result import NEW

CSV_COLUMNS = (
    "status",
    "data",
    "backbone",
    "weights",
    "shots",
    "setting",
    "method",
    "options",
    "variant",
    "noise_kind",
    "noise_rate",
    "noise",
    "realised_rate",
    "measure",
    "n",
    "seeds",
    "mean",
    "std",
    "zero_shot",
    "calibration_error",
    "n_test",
    "against",
    "difference",
    "difference_low",
    "difference_high",
    "pairs",
    "source",
)
"""Columns of the CSV; accuracies, errors and differences are fractions, empty means none."""


def long_table(blocks: Sequence[Block], reference: str, published: Published | None) -> str:
    """CSV of every cell of some tables, with full precision.

    Args:
        blocks: the tables.
        reference: canonical name of the method that is compared with every other one.
        published: numbers of others, in lines whose status says so.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for block in blocks:
        for method in block.methods:
            for condition in block.conditions:
                writer.writerows(_csv_rows(block, method, condition, reference))
    if published is not None:
        for name in dict.fromkeys(block.data for block in blocks):
            writer.writerows(_csv_published(name, published))
    return buffer.getvalue()


def _csv_rows(
    block: Block, method: Method, condition: Condition, reference: str
) -> Iterator[dict[str, object]]:
    cell = block.cell(method, condition)
    if cell is None:
        return
    runs = [run for run in cell.runs if run.final is not None]
    common = {
        "status": "measured",
        "data": block.data,
        "backbone": block.backbone,
        "weights": runs[0].backbone.fingerprint,
        "shots": "all" if block.shots is None else block.shots,
        "setting": _pairs(block.setting),
        "method": method.key,
        "options": _pairs(method.options),
        "variant": _pairs(method.variant),
        "noise_kind": condition.kind,
        "noise_rate": condition.rate,
        "noise": condition.text,
        "realised_rate": block.realised_rate(condition),
    }
    zero = block.zero_shot(condition)
    row = {
        **common,
        "measure": "accuracy" if block.metric == "accuracy" else "calibration error",
        **_spread_columns(cell.by_seeds),
        "zero_shot": zero,
        "calibration_error": statistics.fmean(r.final.calibration_error for r in runs if r.final),
        "n_test": runs[0].final.n if runs[0].final else None,
    }
    row |= _difference_columns(block, method, condition, reference)
    yield row
    for target in dict.fromkeys(t.target for run in runs for t in run.transfers):
        known = [(run, t) for run in runs if (t := transfer_to(run, target)) is not None]
        values = {
            seeds_of(r): v for r, t in known if (v := measured(t.tuned, block.metric)) is not None
        }
        where = "new classes" if target == NEW else known[0][1].data
        yield {
            **common,
            "measure": f"{row['measure']} on {where}",
            **_spread_columns(values),
            "zero_shot": statistics.fmean(
                v for _, t in known if (v := measured(t.zero_shot, block.metric)) is not None
            ),
            "calibration_error": statistics.fmean(t.tuned.calibration_error for _, t in known),
            "n_test": known[0][1].tuned.n,
        }


def _difference_columns(
    block: Block, method: Method, condition: Condition, reference: str
) -> dict[str, object]:
    """The reference method minus this one; of several references the one that fits it best."""
    rows = comparable_rows(block, method, reference)
    cell = block.cell(method, condition)
    for label, first in rows:
        other = block.cell(first, condition) if first else None
        values = other.by_seeds if other else {} if first else block.zero_shot_by_seeds(condition)
        gap = paired_difference(values, cell.by_seeds) if cell else None
        if gap is not None:
            margin = gap.margin
            return {
                "against": label,
                "difference": gap.mean,
                "difference_low": None if margin is None else gap.mean - margin,
                "difference_high": None if margin is None else gap.mean + margin,
                "pairs": gap.n,
            }
    return {}


def _spread_columns(values: Values) -> dict[str, object]:
    return {
        "n": len(values),
        "seeds": " ".join(str(seeds[0]) for seeds in sorted(values)),
        "mean": statistics.fmean(values.values()),
        "std": statistics.stdev(values.values()) if len(values) > 1 else None,
    }


def _pairs(pairs: Sequence[tuple[str, float | str]]) -> str:
    return "; ".join(f"{key}={option_text(value)}" for key, value in pairs)


def _csv_published(data: str, published: Published) -> Iterator[dict[str, object]]:
    for number in published.on(data):
        source = published.sources[number.source]
        yield {
            "status": "published",
            "data": data,
            "backbone": number.backbone,
            "shots": number.shots,
            "method": number.method,
            "noise_kind": number.noise or "not stated",
            "noise_rate": None if number.rate is None else number.rate / 100,
            "measure": "accuracy",
            "mean": number.accuracy / 100,
            "std": None if number.std is None else number.std / 100,
            "source": f"{source.status}: {source.text.removeprefix('second-hand: ')}",
        }
