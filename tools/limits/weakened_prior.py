"""Where does DSPT stop working when the prior is weakened step by step?

    python -m tools.limits.weakened_prior --out runs/limits/weakened-prior

tunes the packaged model on the packaged pictures. The strongest prior is the hand-written template
with the right class names. A step down is the field's random start (16 vectors); every further one
changes one thing about that: wrong names for a growing share of the classes, names that say
nothing, a smaller logit scale.

Recipe: 50 epochs of four steps each in place of thirteen, with the learning rate of `dspt fit`
raised by the same factor (the cost of a step hardly depends on the batch).
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tools.limits import common

from dspt.backbones import Backbone, load_backbone
from dspt.configuration import FitConfig, build_config
from dspt.data import ImageDataset, load_dataset
from dspt.fitting import fit_many
from dspt.progress import Silent
from dspt.report.figures import NARROW, WIDE, Canvas, Drawing
from dspt.report.palette import Mark
from dspt.seeding import keyed_order
from dspt.training_set import FeatureTable

METHODS = ("ce", "mae", "dspt")
SHOTS = 16
BATCH, LEARNING_RATE = 104, 0.0065
_BEFORE = 'Accuracy before training, %\n(open marks: "class n" left, template right)'


@dataclass(frozen=True)
class Prior:
    """What the model is told before training.

    Attributes:
        key: short name, unique.
        label: for the table.
        init: start of the context vectors.
        swapped: share of the classes that carry the name of another class.
        numbered: whether the classes are called "class 1", "class 2", ...
        scale: factor on the cosine in place of the model's own, which is 100.
        faster: factor on the learning rate.
    """

    key: str
    label: str
    init: str = "random"
    swapped: float = 0.0
    numbered: bool = False
    scale: float | None = None
    faster: float = 1.0


NAMED = (
    Prior("template", "template, right names", init="a photo of a"),
    Prior("random", "random start, right names"),
    Prior("swapped-25", "25 % of the names wrong", swapped=0.25),
    Prior("swapped-50", "50 % of the names wrong", swapped=0.5),
    Prior("swapped-100", "all names wrong", swapped=1.0),
    Prior("numbered", 'names "class 1", "class 2", ...', numbered=True),
)
SCALED = tuple(Prior(f"scale-{s}", f"logit scale {s}", scale=s) for s in (50, 20, 10, 5))
CONTROL = Prior("scale-10-faster", "logit scale 10, learning rate x 10", scale=10, faster=10)
PRIORS = (*NAMED, *SCALED, CONTROL)


def class_names(prior: Prior, names: Sequence[str], seed: int) -> tuple[str, ...]:
    """The names under this prior; a swapped class has the name of another swapped class."""
    if prior.numbered:
        return tuple(f"class {number}" for number in range(1, len(names) + 1))
    chosen = keyed_order(seed, "limits/swapped-names", names)[: round(prior.swapped * len(names))]
    changed = list(names)
    for place, source in zip(chosen, [*chosen[1:], *chosen[:1]], strict=True):
        changed[place] = names[source]
    return tuple(changed)


def with_scale(scale: float | None) -> Backbone:
    """The packaged model with another factor on the cosine."""
    backbone = load_backbone("default")
    if scale is not None:
        with torch.no_grad():
            backbone.model.logit_scale.fill_(math.log(scale))  # type: ignore[operator, union-attr]
    return backbone


def cell_of(
    prior: Prior, method: str, rate: float, seed: int, arguments: argparse.Namespace
) -> common.Cell:
    """Everything that a run depends on."""
    return {
        "classes": arguments.classes,
        "prior": prior.key,
        "method": method,
        "rate": rate,
        "seed": seed,
        "epochs": arguments.epochs,
        "shots": SHOTS,
        "batch": BATCH,
        "lr": LEARNING_RATE * prior.faster,
    }


def config_of(prior: Prior, cell: common.Cell) -> FitConfig:
    """The run of a cell."""
    return build_config(
        data="demo",
        classes=cell["classes"],
        method=cell["method"],
        noise=common.noise_spec(cell["rate"]),
        seed=cell["seed"],
        shots=cell["shots"],
        prompt={"init": prior.init},
        recipe={"epochs": cell["epochs"], "batch_size": cell["batch"], "lr": cell["lr"]},
    )


def measure(arguments: argparse.Namespace, ledger: common.Ledger) -> list[common.Cell]:
    """Run the cells that are missing, side by side for each prior and seed; all cells."""
    priors = [prior for prior in PRIORS if prior.key in arguments.priors]

    def group(prior: Prior, seed: int) -> list[common.Cell]:
        return [
            cell_of(prior, method, rate, seed, arguments)
            for method, rate in itertools.product(METHODS, arguments.rates)
        ]

    # Seeds in the outer place: an early stop leaves whole tables of fewer seeds.
    places = [(prior, seed) for seed in arguments.seeds for prior in priors]
    cells = [cell for place in places for cell in group(*place)]
    clock = common.Clock(len(cells), sum(cell in ledger for cell in cells))
    dataset: ImageDataset | None = None
    for prior, seed in places:
        todo = [cell for cell in group(prior, seed) if cell not in ledger]
        if not todo:
            continue
        backbone = with_scale(prior.scale)
        if dataset is None:
            dataset = load_dataset("demo", classes=arguments.classes)
            features = FeatureTable(backbone, dataset, 0, None, Silent())
        renamed = replace(dataset, class_names=class_names(prior, dataset.class_names, seed))
        runs = fit_many(
            [config_of(prior, cell) for cell in todo], renamed, backbone, features=features
        )
        values = []
        for run in runs:
            first, last, final = run.result.epochs[0], run.result.epochs[-1], run.result.final
            assert final is not None
            values.append(
                {
                    "start": first.accuracy_test,
                    "final": final.accuracy,
                    "calibration_error": final.calibration_error,
                    "train_given": last.accuracy_given,
                    "n_test": final.n,
                    "scale": backbone.logit_scale,
                }
            )
        ledger.add(zip(todo, values, strict=True))
        clock.advance(len(todo), f"{prior.label}, seed {seed}")
    return cells


def summarise(arguments: argparse.Namespace, ledger: common.Ledger) -> list[common.Values]:
    """One row per prior and rate: accuracies, and paired differences over seeds."""
    rows = []
    for prior in PRIORS:
        if prior.key not in arguments.priors:
            continue
        for rate in arguments.rates:

            def values(
                method: str, prior: Prior = prior, rate: float = rate
            ) -> list[common.Values]:
                return [
                    ledger[cell_of(prior, method, rate, seed, arguments)]
                    for seed in arguments.seeds
                ]

            final = {method: [v["final"] for v in values(method)] for method in METHODS}
            start = [v["start"] for v in values("dspt")]
            rows.append(
                {
                    "prior": prior.key,
                    "label": prior.label,
                    "rate": rate,
                    "scale": values("dspt")[0]["scale"],
                    "start": common.mean_and_margin(start),
                    **{method: common.mean_and_margin(final[method]) for method in METHODS},
                    "over_ce": _difference(final["dspt"], final["ce"]),
                    "over_mae": _difference(final["dspt"], final["mae"]),
                    "over_start": _difference(final["dspt"], start),
                }
            )
    return rows


def _difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float | None]:
    return common.mean_and_margin([a - b for a, b in zip(one, other, strict=True)])


def table(rows: Sequence[common.Values]) -> str:
    """The rows in Markdown."""
    header = [
        "prior", "wrong labels", "before training", *map(common.method_label, METHODS),
        "DSPT − CE", "DSPT − MAE", "DSPT − start",
    ]  # fmt: skip
    return common.markdown_table(
        header,
        [
            [
                row["label"],
                f"{100 * row['rate']:g} %",
                f"{100 * row['start'][0]:.1f}",
                *[f"{100 * row[method][0]:.1f}" for method in METHODS],
                *[
                    common.show(*row[key], sign=True)
                    for key in ("over_ce", "over_mae", "over_start")
                ],
            ]
            for row in rows
        ],
    )


def drawing(rows: Sequence[common.Values], rates: Sequence[float]) -> Drawing:
    """Gain over cross-entropy, and accuracies at one rate, against the strength of the prior.

    On the left the lines join the priors that differ in names alone.
    """
    shown = 0.5 if 0.5 in rates else rates[-1]
    by_key = {prior.key: [row for row in rows if row["prior"] == prior.key] for prior in PRIORS}
    names = [row for key in ("swapped-100", "swapped-50", "swapped-25", "random")
             for row in by_key[key]]  # fmt: skip
    apart = [row for key in ("template", "numbered") for row in by_key[key]]
    scales = [row for prior in (*SCALED[::-1], NAMED[1]) for row in by_key[prior.key]]
    marks = common.method_marks(METHODS)

    def draw(canvas: Canvas) -> None:
        grid = canvas.figure.subplots(*((4, 1) if canvas.narrow else (2, 2)), squeeze=False)
        columns = ((0, 1), (2, 3)) if canvas.narrow else ((0, 2), (1, 3))
        for series, single, place, (upper, lower) in (
            (names, apart, _accuracy, columns[0]),
            (scales, [], _scale, columns[1]),
        ):
            gain, level = grid.flat[upper], grid.flat[lower]
            for rate, mark in zip(rates, common.rate_marks(rates), strict=True):
                _line(
                    canvas, gain, place, series, single, rate, "over_ce", mark, common.percent(rate)
                )
            for method in METHODS:
                label = common.method_label(method)
                _line(canvas, level, place, series, single, shown, method, marks[method], label)
            at = [row for row in series if row["rate"] == shown]
            level.plot(
                [place(row) for row in at], [100 * row["start"][0] for row in at],
                color=canvas.colour("reference"), linestyle=(0, (1.2, 1.8)), linewidth=1.6,
                label="before training", zorder=2,
            )  # fmt: skip
            what = _BEFORE if place is _accuracy else "Logit scale"
            common.frame(canvas, gain, "DSPT minus cross-entropy, points", what, difference=True)
            common.frame(canvas, level, f"Test accuracy, {common.percent(shown)}", what)
            if place is _scale:
                for axes in (gain, level):
                    axes.set_xscale("log")
                    ticks = sorted({round(_scale(row)) for row in series})
                    axes.set_xticks(ticks, [str(tick) for tick in ticks])
                    axes.minorticks_off()
            else:
                common.legend(canvas, gain, loc="lower right")
                common.legend(canvas, level, loc="upper left")

    return Drawing(
        name="limits-weakened-prior",
        label="Gain of DSPT over cross-entropy, and accuracies, against the accuracy of the "
        "untrained prompt and against the logit scale.",
        wide=(WIDE, 640),
        narrow=(NARROW, 1180),
        draw=draw,
    )


def _line(
    canvas: Canvas, axes: Any, place: Callable[[common.Values], float],
    series: Sequence[common.Values], single: Sequence[common.Values], rate: float, key: str,
    mark: Mark, label: str,
) -> None:  # fmt: skip
    """A line through the rows of a series at one rate, and single points beside it."""

    def points(rows: Sequence[common.Values]) -> list[tuple[float, float, float | None]]:
        # Seeds share much of an accuracy's spread: only paired differences have intervals.
        paired = key.startswith("over_")
        return [
            (place(row), row[key][0], row[key][1] if paired else None)
            for row in rows
            if row["rate"] == rate
        ]

    common.line_with_intervals(canvas, axes, points(series), mark, label)
    common.line_with_intervals(
        canvas, axes, points(single), mark, "_", linestyle="none", fillstyle="none",
        markeredgecolor=canvas.colour(mark.colour), markeredgewidth=1.8,
    )  # fmt: skip


def _accuracy(row: common.Values) -> float:
    return 100 * float(row["start"][0])


def _scale(row: common.Values) -> float:
    return float(row["scale"])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, draw."""
    options = common.parser(__doc__ or "", "runs/limits/weakened-prior")
    options.add_argument("--priors", nargs="+", default=[prior.key for prior in PRIORS],
                         choices=[prior.key for prior in PRIORS])  # fmt: skip
    options.add_argument("--classes", default="all", help='"first:N" for a smaller trial')
    options.set_defaults(seeds=[1, 2, 3], rates=[0.0, 0.25, 0.5, 0.75], epochs=50)
    arguments = options.parse_args(argv)
    ledger = common.Ledger(arguments.out)
    cells = measure(arguments, ledger)
    rows = summarise(arguments, ledger)
    origin = common.provenance("tools.limits.weakened_prior", arguments, ledger, cells)
    common.publish(
        Path(arguments.out), "weakened-prior", origin, rows, table(rows),
        drawing(rows, arguments.rates),
    )  # fmt: skip


if __name__ == "__main__":
    main()
