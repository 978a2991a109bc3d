"""How does DSPT fare against MAE and cross-entropy as the number of classes C grows?

    python -m tools.limits.number_of_classes --out runs/limits/number-of-classes

tunes the packaged model on C of the packaged classes (another random choice for every seed) and,
where $DSPT_DATA holds cifar-10n, on the first C classes of CIFAR-10 (its true labels, made wrong
symmetrically).

DSPT is MAE / 2 plus a term without the label that is of the order of 1 / C (docs/theory.md,
theorem 2). So besides MAE there is MAE at half the learning rate, from which DSPT should differ
less and less. Every C trains for equally many steps: a batch is a quarter of the training pictures.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tools.limits import common

from dspt.backbones import Backbone, load_backbone
from dspt.configuration import FitConfig, build_config
from dspt.data import ImageDataset, load_dataset
from dspt.data.registry import VARIABLE
from dspt.data.stores import ChosenImages
from dspt.fitting import fit_many
from dspt.progress import Silent
from dspt.report.figures import NARROW, WIDE, Canvas, Drawing
from dspt.seeding import keyed_order
from dspt.training_set import FeatureTable

SHOTS = 16
LEARNING_RATE = 0.0065


@dataclass(frozen=True)
class Method:
    """A loss and a factor on the learning rate."""

    key: str
    label: str
    loss: str
    factor: float = 1.0


METHODS = (
    Method("ce", "Cross-entropy", "ce"),
    Method("mae", "MAE", "mae"),
    Method("mae-half", "MAE, half the rate", "mae", 0.5),
    Method("dspt", "DSPT", "dspt"),
)
_DIFFERENCES = (
    ("over_start", "untrained"),
    ("over_ce", "cross-entropy"),
    ("over_mae-half", "MAE / 2"),
)
DATA = {"demo": "Emoji", "cifar-10n": "CIFAR-10"}


def some_classes(dataset: ImageDataset, count: int, seed: int) -> ImageDataset:
    """A random choice of ``count`` classes, with labels from 0 again."""
    order = keyed_order(seed, "limits/classes", dataset.class_names)
    chosen = np.sort(order[:count])
    new_label = np.full(len(dataset.class_names), -1, dtype=np.int64)
    new_label[chosen] = np.arange(count)
    kept = np.flatnonzero(new_label[dataset.labels] >= 0)
    place = np.full(len(dataset.labels), -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    splits = {name: place[rows][place[rows] >= 0] for name, rows in dataset.splits.items()}
    return replace(
        dataset,
        class_names=tuple(dataset.class_names[c] for c in chosen),
        images=ChosenImages(dataset.images, kept),
        labels=new_label[dataset.labels[kept]],
        splits=splits,
        columns={},
    )


def load(data: str, count: int, seed: int) -> ImageDataset:
    """C classes of a data set: drawn for the packaged one, the first ones of CIFAR-10."""
    if data == "demo":
        return some_classes(load_dataset("demo"), count, seed)
    return load_dataset(data, classes=f"first:{count}")


def cell_of(
    data: str, count: int, method: Method, rate: float, seed: int, epochs: int
) -> common.Cell:
    """Everything that a run depends on."""
    return {
        "data": data,
        "classes": count,
        "method": method.key,
        "rate": rate,
        "seed": seed,
        "epochs": epochs,
        "shots": SHOTS,
        "batch": SHOTS * count // 4,
        "lr": LEARNING_RATE * method.factor,
    }


def config_of(method: Method, cell: common.Cell) -> FitConfig:
    """The run of a cell."""
    return build_config(
        data=cell["data"],
        method=method.loss,
        noise=common.noise_spec(cell["rate"]),
        seed=cell["seed"],
        shots=cell["shots"],
        recipe={"epochs": cell["epochs"], "batch_size": cell["batch"], "lr": cell["lr"]},
    )


def available(data: Sequence[str]) -> list[str]:
    """The data sets that are there; says which one is not."""
    here = []
    for name in data:
        if name != "demo" and not (Path(os.environ.get(VARIABLE) or "-") / name).is_dir():
            common.Clock.say(f"SKIPPED: {name} is not in ${VARIABLE}; the table is without it")
        else:
            here.append(name)
    return here


def sizes(arguments: argparse.Namespace, data: Sequence[str]) -> list[tuple[str, int]]:
    """Pairs of data set and C."""
    counts = {"demo": arguments.demo_classes, "cifar-10n": arguments.cifar_classes}
    return [(name, count) for name in data for count in counts[name]]


def measure(
    arguments: argparse.Namespace, ledger: common.Ledger, data: Sequence[str]
) -> list[common.Cell]:
    """Run the cells that are missing, side by side for each data set, C and seed; all cells."""
    places = [(*size, seed) for seed in arguments.seeds for size in sizes(arguments, data)]

    def group(name: str, count: int, seed: int) -> list[tuple[Method, common.Cell]]:
        return [
            (method, cell_of(name, count, method, rate, seed, arguments.epochs))
            for method, rate in itertools.product(METHODS, arguments.rates)
        ]

    cells = [cell for place in places for _, cell in group(*place)]
    clock = common.Clock(len(cells), sum(cell in ledger for cell in cells))
    backbone: Backbone | None = None
    for name, count, seed in places:
        todo = [(method, cell) for method, cell in group(name, count, seed) if cell not in ledger]
        if not todo:
            continue
        backbone = backbone or load_backbone("default")
        dataset = load(name, count, seed)
        features = FeatureTable(backbone, dataset, 0, None, Silent())
        # Side by side goes what shares a learning rate.
        for factor in dict.fromkeys(method.factor for method, _ in todo):
            part = [(method, cell) for method, cell in todo if method.factor == factor]
            configs = [config_of(*one) for one in part]
            runs = fit_many(configs, dataset, backbone, features=features)
            values = []
            for run in runs:
                zero, final = run.result.zero_shot.test, run.result.final
                assert zero is not None
                assert final is not None
                values.append(
                    {
                        "zero_shot": zero.accuracy,
                        "start": run.result.epochs[0].accuracy_test,
                        "final": final.accuracy,
                        "n_test": final.n,
                    }
                )
            ledger.add(zip([cell for _, cell in part], values, strict=True))
        clock.advance(len(todo), f"{DATA[name]}, {count} classes, seed {seed}")
    return cells


def summarise(
    arguments: argparse.Namespace, ledger: common.Ledger, data: Sequence[str]
) -> list[common.Values]:
    """One row per data set, C and rate."""
    rows = []
    for (name, count), rate in itertools.product(sizes(arguments, data), arguments.rates):
        values = {
            method.key: [
                ledger[cell_of(name, count, method, rate, seed, arguments.epochs)]
                for seed in arguments.seeds
            ]
            for method in METHODS
        }
        final = {key: [v["final"] for v in found] for key, found in values.items()}
        row: common.Values = {
            "data": name,
            "classes": count,
            "rate": rate,
            "n_test": [v["n_test"] for v in values["dspt"]],
            "zero_shot": common.mean_and_margin([v["zero_shot"] for v in values["dspt"]]),
            "start": common.mean_and_margin([v["start"] for v in values["dspt"]]),
            "over_start": common.mean_and_margin([v["final"] - v["start"] for v in values["dspt"]]),
        }
        for method in METHODS:
            row[method.key] = common.mean_and_margin(final[method.key])
            row[f"over_{method.key}"] = common.mean_and_margin(
                [a - b for a, b in zip(final["dspt"], final[method.key], strict=True)]
            )
        rows.append(row)
    return rows


def table(rows: Sequence[common.Values]) -> str:
    """The rows in Markdown."""
    others = [method for method in METHODS if method.key != "dspt"]
    header = ["data", "classes", "wrong labels", "zero-shot", "before training"]
    header += [method.label for method in METHODS]
    header += [*[f"DSPT − {method.label}" for method in others], "DSPT − before training"]
    differences = [*[f"over_{method.key}" for method in others], "over_start"]
    return common.markdown_table(
        header,
        [
            [
                DATA[row["data"]],
                str(row["classes"]),
                f"{100 * row['rate']:g} %",
                f"{100 * row['zero_shot'][0]:.1f}",
                f"{100 * row['start'][0]:.1f}",
                *[f"{100 * row[method.key][0]:.1f}" for method in METHODS],
                *[common.show(*row[key], sign=True) for key in differences],
            ]
            for row in rows
        ],
    )


def drawing(rows: Sequence[common.Values], rates: Sequence[float]) -> Drawing:
    """Paired differences of DSPT to no training, cross-entropy and MAE / 2 against C."""
    sets = list(dict.fromkeys(row["data"] for row in rows))

    def draw(canvas: Canvas) -> None:
        shape = (3 * len(sets), 1) if canvas.narrow else (3, len(sets))
        panels = canvas.figure.subplots(*shape, squeeze=False)
        for column, name in enumerate(sets):
            for line, (key, other) in enumerate(_DIFFERENCES):
                axes = panels[3 * column + line, 0] if canvas.narrow else panels[line, column]
                counts: list[int] = []
                for place, (rate, mark) in enumerate(
                    zip(rates, common.rate_marks(rates), strict=True)
                ):
                    own = [row for row in rows if row["data"] == name and row["rate"] == rate]
                    counts = [row["classes"] for row in own]
                    # A little apart, so that the intervals stay legible.
                    shift = 1 + 0.04 * (place - (len(rates) - 1) / 2)
                    points = [(row["classes"] * shift, *row[key]) for row in own]
                    common.line_with_intervals(canvas, axes, points, mark, common.percent(rate))
                common.frame(
                    canvas,
                    axes,
                    f"{DATA[name]}: DSPT − {other}, points",
                    "Classes",
                    difference=True,
                )
                axes.set_xscale("log")
                axes.set_xticks(counts, [str(count) for count in counts])
                axes.minorticks_off()
        common.legend(canvas, canvas.figure.axes[0], loc="lower right")

    return Drawing(
        name="limits-number-of-classes",
        label="Accuracy of DSPT minus that before training, of cross-entropy and of half of MAE, "
        "against the number of classes, in points.",
        wide=(WIDE, 820),
        narrow=(NARROW, 840 * len(sets)),
        draw=draw,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, draw."""
    options = common.parser(__doc__ or "", "runs/limits/number-of-classes")
    options.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    options.add_argument("--demo-classes", type=int, nargs="+", default=[2, 3, 5, 10, 26])
    options.add_argument("--cifar-classes", type=int, nargs="+", default=[2, 5, 10])
    options.set_defaults(seeds=[1, 2, 3, 4, 5], rates=[0.25, 0.5], epochs=30)
    arguments = options.parse_args(argv)
    data = available(arguments.data)
    ledger = common.Ledger(arguments.out)
    cells = measure(arguments, ledger, data)
    rows = summarise(arguments, ledger, data)
    origin = common.provenance("tools.limits.number_of_classes", arguments, ledger, cells)
    common.publish(
        Path(arguments.out), "number-of-classes", origin, rows, table(rows),
        drawing(rows, arguments.rates),
    )  # fmt: skip


if __name__ == "__main__":
    main()
