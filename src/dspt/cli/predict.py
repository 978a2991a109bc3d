"""``dspt predict``: classify pictures."""

from __future__ import annotations

import csv
import json as json_module
import sys
from pathlib import Path
from typing import Annotated

import typer

from dspt.cli import console, options
from dspt.errors import UserError


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="Picture files, or folders of them.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes per picture.")] = 1,
    format: Annotated[str, typer.Option(help="text, csv or jsonl.")] = "text",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first unreadable picture.")
    ] = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Classify pictures with what a run trained; one line per picture on standard output.

    Unreadable pictures are named on standard error and left out.

    \b
    [bold]Examples[/]
    dspt predict run cat.jpg
    dspt predict run holiday/ --top 5 --format csv > predictions.csv
    """
    from dspt.data import picture_files
    from dspt.model import load_model

    if format not in ("text", "csv", "jsonl"):
        raise UserError(f"format: must be text, csv or jsonl, not {format!r}")
    files = picture_files(images)
    progress = console.BarProgress(quiet)
    model = load_model(run, device=device)
    skipped: list[str] = []

    def unreadable(reason: str) -> None:
        skipped.append(reason)
        console.err.print(f"skipped: {reason}", soft_wrap=True, markup=False)

    writer = csv.writer(sys.stdout, lineterminator="\n")
    if format == "csv":
        writer.writerow(["image", "rank", "label", "probability"])
    with progress.task("predicting") as advance:
        for done, prediction in enumerate(
            model.iter_predict(files, top=top, on_unreadable=None if strict else unreadable), 1
        ):
            advance(done, len(files))
            pairs = list(zip(prediction.labels, prediction.probabilities, strict=True))
            if format == "csv":
                for rank, (label, p) in enumerate(pairs, 1):
                    writer.writerow([prediction.image, rank, label, f"{p:.6f}"])
            elif format == "jsonl":
                row = {
                    "image": prediction.image,
                    "predictions": [{"label": n, "probability": round(p, 6)} for n, p in pairs],
                }
                sys.stdout.write(json_module.dumps(row, ensure_ascii=False) + "\n")
            else:
                named = "\t".join(f"{label} ({p:.1%})" for label, p in pairs)
                sys.stdout.write(f"{prediction.image}\t{named}\n")
    if len(skipped) == len(files):
        raise UserError(f"none of the {len(files)} pictures could be read")
