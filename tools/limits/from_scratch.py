"""Is DSPT's loss any good without a pretrained prior, in classical noisy-label learning?

    python -m tools.limits.from_scratch --out runs/limits/from-scratch

trains a small network from random weights on scikit-learn's digits (1,797 pictures of 8 x 8 pixels,
10 classes) under symmetric noise. Losses differ in the size of their gradients, so each also gets a
learning rate of its own, chosen by the last epoch's accuracy on a validation split whose labels are
as wrong as the training labels; no true label is looked at. All learning rates and seeds train side
by side.

Source of the setting: Zhang and Sabuncu (NeurIPS 2018) and Ghosh et al. (AAAI 2017) compare GCE,
MAE and cross-entropy from scratch; DSPT's authors name this as a limitation (arXiv 2605.00591).
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tools.limits import common
from torch import Tensor

from dspt.losses import per_sample_loss
from dspt.noise import apply_noise
from dspt.report.figures import NARROW, WIDE, Canvas, Drawing
from dspt.seeding import derived_seed, keyed_order

LOSSES = ("ce", "gce", "mae", "dspt")
RATES_OF_LEARNING = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SHARED_RATE = 0.1
LAYERS = (64, 128, 128, 10)
SIZES = {"train": 1000, "val": 300, "test": 497}
BATCH = 100
MOMENTUM = 0.9
CURVE_RATE = 0.4


@dataclass(frozen=True)
class Digits:
    """The data of one seed; every seed has a split and a noise of its own.

    Attributes:
        pixels: split -> [n, 64] in [0, 1].
        true: split -> labels, [n].
        given: the same for "train" and "val", as wrong as asked for.
    """

    pixels: Mapping[str, Tensor]
    true: Mapping[str, Tensor]
    given: Mapping[str, Tensor]


def draw_digits(rate: float, seed: int) -> Digits:
    """Split the digits and make a share of the training and validation labels wrong."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = keyed_order(seed, "limits/digits-split", range(len(labels)))
    ends = np.cumsum(list(SIZES.values()))
    parts = dict(zip(SIZES, np.split(order[: ends[-1]], ends[:-1]), strict=True))
    spec = common.noise_spec(rate)
    given = {
        name: apply_noise(labels[parts[name]], spec, LAYERS[-1], seed, parts[name].tolist())
        for name in ("train", "val")
    }
    return Digits(
        {k: torch.from_numpy(pixels[v] / 16.0).float() for k, v in parts.items()},
        {k: torch.from_numpy(labels[v]) for k, v in parts.items()},
        {k: torch.from_numpy(v) for k, v in given.items()},
    )


def initial_weights(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Weight [in, out] and bias [1, out] per layer, uniform as in ``torch.nn.Linear``."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "limits/network"))
    layers = []
    for inputs, outputs in itertools.pairwise(LAYERS):
        bound = 1 / math.sqrt(inputs)
        shapes = ((inputs, outputs), (1, outputs))
        weight, bias = (
            (2 * torch.rand(shape, generator=generator) - 1) * bound for shape in shapes
        )
        layers.append((weight, bias))
    return layers


def logits_of(parameters: Sequence[Tensor], pixels: Tensor) -> Tensor:
    """K networks on their pictures [K, n, 64]: [K, n, 10]."""
    hidden = pixels
    pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
    for number, (weight, bias) in enumerate(pairs):
        hidden = torch.baddbmm(bias, hidden, weight)
        if number < len(pairs) - 1:
            hidden = hidden.relu()
    return hidden


def train_side_by_side(
    loss: str, rate: float, jobs: Sequence[tuple[int, float]], epochs: int
) -> list[common.Values]:
    """Train one network per (seed, learning rate); curves by epoch and what stands at the end.

    SGD with momentum, no weight decay, a constant learning rate, so that slowness shows.
    """
    seeds = sorted({seed for seed, _ in jobs})
    data = {seed: draw_digits(rate, seed) for seed in seeds}
    start = {seed: initial_weights(seed) for seed in seeds}
    parameters = [
        torch.stack([start[seed][layer][part] for seed, _ in jobs]).requires_grad_(True)
        for layer in range(len(LAYERS) - 1)
        for part in range(2)
    ]
    velocity = [torch.zeros_like(parameter) for parameter in parameters]
    speed = torch.tensor([lr for _, lr in jobs])[:, None, None]
    pixels = {split: torch.stack([data[seed].pixels[split] for seed, _ in jobs]) for split in SIZES}
    given = torch.stack([data[seed].given["train"] for seed, _ in jobs])
    followed = {
        "test": ("test", torch.stack([data[seed].true["test"] for seed, _ in jobs])),
        "val_given": ("val", torch.stack([data[seed].given["val"] for seed, _ in jobs])),
    }
    values = per_sample_loss(loss)
    curves: list[dict[str, list[float]]] = [{name: [] for name in followed} for _ in jobs]
    here = torch.arange(len(jobs))[:, None]
    for epoch in range(epochs):
        order = {
            seed: torch.from_numpy(
                keyed_order(seed, f"limits/digits-order/{epoch}", range(SIZES["train"]))
            )
            for seed in seeds
        }
        orders = torch.stack([order[seed] for seed, _ in jobs])
        for rows in orders.split(BATCH, dim=1):
            logits = logits_of(parameters, pixels["train"][here, rows])
            # Networks do not mix: the gradient of the sum is each network's own.
            total = values(logits.flatten(0, 1), given.gather(1, rows).flatten()).sum() / BATCH
            gradients = torch.autograd.grad(total, parameters)
            with torch.no_grad():
                for parameter, moving, gradient in zip(
                    parameters, velocity, gradients, strict=True
                ):
                    moving.mul_(MOMENTUM).add_(gradient)
                    parameter.sub_(speed * moving)
        predicted = {split: predict(parameters, pixels[split]) for split in ("test", "val")}
        for name, (split, labels) in followed.items():
            for curve, share in zip(curves, shares(predicted[split], labels), strict=True):
                curve[name].append(share)
    fitted = predict(parameters, pixels["train"])
    true = torch.stack([data[seed].true["train"] for seed, _ in jobs])
    ends = {"train_true": shares(fitted, true), "train_given": shares(fitted, given)}
    return [
        {
            **curves[k],
            **{name: found[k] for name, found in ends.items()},
            "classes_predicted": len(predicted["test"][k].unique()),
            "diverged": not all(bool(parameter[k].isfinite().all()) for parameter in parameters),
        }
        for k in range(len(jobs))
    ]


@torch.no_grad()
def predict(parameters: Sequence[Tensor], pixels: Tensor) -> Tensor:
    """Classes that K networks prefer, [K, n]."""
    return logits_of(parameters, pixels).argmax(-1)


def shares(predicted: Tensor, labels: Tensor) -> list[float]:
    """Per network, the share of its predictions [K, n] that agree with its labels."""
    return [round(share, 5) for share in (predicted == labels).float().mean(dim=1).tolist()]


def cell_of(loss: str, rate: float, seed: int, lr: float, epochs: int) -> common.Cell:
    """Everything that a training depends on."""
    return {
        "loss": loss, "rate": rate, "seed": seed, "lr": lr, "epochs": epochs,
        "layers": LAYERS, "batch": BATCH,
    }  # fmt: skip


def measure(arguments: argparse.Namespace, ledger: common.Ledger) -> list[common.Cell]:
    """Train what is missing; all cells."""
    jobs = list(itertools.product(arguments.seeds, arguments.learning_rates))
    groups = list(itertools.product(LOSSES, arguments.rates))

    def group(loss: str, rate: float) -> list[common.Cell]:
        return [cell_of(loss, rate, seed, lr, arguments.epochs) for seed, lr in jobs]

    cells = [cell for place in groups for cell in group(*place)]
    clock = common.Clock(len(cells), sum(cell in ledger for cell in cells))
    for loss, rate in groups:
        todo = [cell for cell in group(loss, rate) if cell not in ledger]
        if not todo:
            continue
        pending = [(cell["seed"], cell["lr"]) for cell in todo]
        found = train_side_by_side(loss, rate, pending, arguments.epochs)
        ledger.add(zip(todo, found, strict=True))
        clock.advance(len(todo), f"{loss} at {100 * rate:g} %")
    return cells


def epochs_to(curve: Sequence[float], share: float = 0.9) -> int:
    """First epoch, from 1, at which the curve has reached this share of its last value."""
    return next(i for i, value in enumerate(curve, 1) if value >= share * curve[-1])


def best_epoch(values: common.Values) -> float:
    """Test accuracy at the epoch of the best accuracy on the given validation labels."""
    return float(values["test"][int(np.argmax(values["val_given"]))])


def summarise(arguments: argparse.Namespace, ledger: common.Ledger) -> list[common.Values]:
    """One row per noise rate and loss."""
    rows = []
    for rate in arguments.rates:

        def runs(loss: str, lr: float, rate: float = rate) -> list[common.Values]:
            return [
                ledger[cell_of(loss, rate, seed, lr, arguments.epochs)] for seed in arguments.seeds
            ]

        chosen = {
            loss: max(
                arguments.learning_rates,
                key=lambda lr: statistics.fmean(v["val_given"][-1] for v in runs(loss, lr)),
            )
            for loss in LOSSES
        }
        ends = {loss: [v["test"][-1] for v in runs(loss, chosen[loss])] for loss in LOSSES}
        for loss in LOSSES:
            own = runs(loss, chosen[loss])
            row: common.Values = {
                "rate": rate,
                "loss": loss,
                "lr": chosen[loss],
                "test": common.mean_and_margin(ends[loss]),
                "test_best_epoch": common.mean_and_margin([best_epoch(v) for v in own]),
                "train_true": common.mean_and_margin([v["train_true"] for v in own]),
                "train_given": common.mean_and_margin([v["train_given"] for v in own]),
                "epochs_to_90": statistics.median(epochs_to(v["test"]) for v in own),
                "dspt_minus": common.mean_and_margin(
                    [a - b for a, b in zip(ends["dspt"], ends[loss], strict=True)]
                ),
                "classes_predicted": statistics.fmean(v["classes_predicted"] for v in own),
                "diverged": sum(v["diverged"] for v in own),
                "curve": [statistics.fmean(v["test"][e] for v in own)
                          for e in range(arguments.epochs)],
            }  # fmt: skip
            if SHARED_RATE in arguments.learning_rates:
                shared = runs(loss, SHARED_RATE)
                row["test_shared"] = common.mean_and_margin([v["test"][-1] for v in shared])
                row["epochs_to_90_shared"] = statistics.median(epochs_to(v["test"]) for v in shared)
            rows.append(row)
    return rows


def table(rows: Sequence[common.Values]) -> str:
    """The rows in Markdown."""
    shared = f"test, rate {SHARED_RATE:g}"
    header = [
        "wrong labels, loss", "own rate", "test", "test, best epoch", "training, true labels",
        "training, given labels", "classes predicted", "epochs to 90 %",
        "DSPT − this", shared,
        f"epochs to 90 %, rate {SHARED_RATE:g}",
    ]  # fmt: skip
    lines = []
    for row in rows:
        lines.append(
            [
                f"{100 * row['rate']:g} %, {common.method_label(row['loss'])}",
                f"{row['lr']:g}",
                common.show(*row["test"]),
                common.show(*row["test_best_epoch"]),
                f"{100 * row['train_true'][0]:.1f}",
                f"{100 * row['train_given'][0]:.1f}",
                f"{row['classes_predicted']:g}",
                f"{row['epochs_to_90']:g}",
                "" if row["loss"] == "dspt" else common.show(*row["dspt_minus"], sign=True),
                common.show(*row["test_shared"]) if "test_shared" in row else "",
                f"{row['epochs_to_90_shared']:g}" if "test_shared" in row else "",
            ]
        )
    return common.markdown_table(header, lines)


def drawing(rows: Sequence[common.Values], rates: Sequence[float]) -> Drawing:
    """Accuracy against noise with own and with shared learning rates; learning curves."""
    marks = common.method_marks(LOSSES)
    curve_rate = min(rates, key=lambda rate: abs(rate - CURVE_RATE))

    def draw(canvas: Canvas) -> None:
        panels = canvas.figure.subplots(*((4, 1) if canvas.narrow else (2, 2)), squeeze=False).flat
        for axes, key in zip(panels, ("test", "test_shared", "curve", "train_true"), strict=True):
            for loss in LOSSES:
                own = [row for row in rows if row["loss"] == loss]
                width = 2.9 if loss == "dspt" else 2.1
                if key == "curve":
                    (row,) = (row for row in own if row["rate"] == curve_rate)
                    y = [100 * value for value in row["curve"]]
                    common.plot_line(
                        canvas, axes, range(1, len(y) + 1), y, marks[loss],
                        label=common.method_label(loss), linewidth=width,
                        markevery=(2 + 3 * LOSSES.index(loss), max(1, len(y) // 5)),
                    )  # fmt: skip
                elif all(key in row for row in own):
                    points = [(100 * row["rate"], *row[key]) for row in own]
                    common.line_with_intervals(
                        canvas, axes, points, marks[loss], common.method_label(loss),
                        linewidth=width,
                    )  # fmt: skip
        titles = (
            "Test accuracy, own learning rate",
            f"Test accuracy, all at rate {SHARED_RATE:g}",
            f"Test accuracy at {100 * curve_rate:g} % wrong, own rate",
            "Training pictures, true labels, own rate",
        )
        names = ("Wrong labels, %", "Wrong labels, %", "Epoch", "Wrong labels, %")
        axes_list = canvas.figure.axes
        for axes, title, name in zip(axes_list, titles, names, strict=True):
            common.frame(canvas, axes, title, name)
            if name != "Epoch":
                axes.set_xticks([100 * rate for rate in rates])
        common.legend(canvas, axes_list[2], loc="lower right")

    return Drawing(
        name="limits-from-scratch",
        label="Accuracy of four losses trained from scratch on digits, against the share of wrong "
        "labels and against the epoch.",
        wide=(WIDE, 640),
        narrow=(NARROW, 1180),
        draw=draw,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, draw."""
    options = common.parser(__doc__ or "", "runs/limits/from-scratch")
    options.add_argument("--learning-rates", type=float, nargs="+", default=RATES_OF_LEARNING)
    options.set_defaults(seeds=[1, 2, 3, 4, 5], rates=[0.0, 0.2, 0.4, 0.6, 0.8], epochs=100)
    arguments = options.parse_args(argv)
    ledger = common.Ledger(arguments.out)
    cells = measure(arguments, ledger)
    rows = summarise(arguments, ledger)
    origin = common.provenance("tools.limits.from_scratch", arguments, ledger, cells)
    common.publish(
        Path(arguments.out), "from-scratch", origin, rows, table(rows),
        drawing(rows, arguments.rates),
    )  # fmt: skip


if __name__ == "__main__":
    main()
