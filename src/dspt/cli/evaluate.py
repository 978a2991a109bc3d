"""``dspt eval``: measure a trained prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspt.cli import console, options
from dspt.errors import UserError


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="Labelled pictures of the same classes. \\[default: the run's own data]",
            show_default=False,
            autocompletion=options.offer(options.data_words),
        ),
    ] = None,
    split: options.Split = "test",
    device: options.Device = "auto",
    root: options.Root = None,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    split_column: options.SplitColumn = None,
    holdout: options.Holdout = 0.2,
    cache: options.Cache = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a trained prompt on labelled pictures, against zero-shot.

    \b
    [bold]Examples[/]
    dspt eval run
    dspt eval run other_pictures --holdout 0 --split train
    dspt eval run --json
    """
    from dspt.measuring import measure_run

    reading = {
        "root": root,
        "image_column": image_column,
        "label_column": label_column,
        "split_column": split_column,
    }
    for name, given in reading.items():
        if data is None and given is not None:
            option = name.replace("_", "-")
            raise UserError(f"{option}: says how to read DATA; the run's own is read as it was")
    measured = measure_run(
        run,
        data,
        split=split,
        device=device,
        holdout=holdout,
        cache=cache,
        progress=console.BarProgress(quiet),
        **reading,
    )
    print_measurement(measured.model_dump_json(indent=1) if json else measured)


def print_measurement(measured: object) -> None:
    """A measurement as JSON text, or as a few lines with the worst classes."""
    from dspt.measuring import Measurement

    if not isinstance(measured, Measurement):
        console.out.print(str(measured), soft_wrap=True, markup=False)
        return
    percent = console.percent
    names = measured.class_names
    console.out.print(
        f"{measured.data} ({measured.split}): {len(names)} classes, "
        f"{measured.zero_shot.n} pictures",
        soft_wrap=True,
        markup=False,
    )
    rows = [("zero-shot", measured.zero_shot)]
    if measured.tuned is not None:
        rows.append(("tuned", measured.tuned))
    for title, evaluation in rows:
        low, high = evaluation.interval
        console.out.print(
            f"{title:<9}  {percent(evaluation.accuracy)}  (95 % interval {percent(low)} to "
            f"{percent(high)}; calibration error {percent(evaluation.calibration_error)}, "
            f"mean confidence {percent(evaluation.mean_confidence)})",
            soft_wrap=True,
            markup=False,
        )
    last = rows[-1][1].per_class_accuracy
    worst = sorted((a, n) for a, n in zip(last, names, strict=True) if a is not None)[:5]
    listed = ", ".join(f"{name} {percent(accuracy)}" for accuracy, name in worst)
    console.out.print(f"worst classes: {listed}", soft_wrap=True, markup=False)
