"""``dspt predict``: classify pictures."""

from __future__ import annotations

import contextlib
import csv
import json as json_module
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from dspt.cli import console, options
from dspt.errors import UserError

if TYPE_CHECKING:
    from dspt.classifier import Prediction

ROWS_AT_ONCE = 4096
"""Rows of a Parquet file that are collected before they are written."""

Write = Callable[["Prediction"], None]


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="Picture files, or folders of them.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes per picture.")] = 1,
    format: Annotated[str, typer.Option(help="text, csv, jsonl or parquet.")] = "text",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; parquet needs one. \\[default: standard output]",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first unreadable picture.")
    ] = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Classify pictures with what a run trained; one line per picture on standard output.

    Any number of pictures: they are read and written batch by batch. A file (--out) appears when it
    is complete. Unreadable pictures are named on standard error and left out.

    \b
    [bold]Examples[/]
    dspt predict run cat.jpg
    dspt predict run holiday/ --top 5 --format csv > predictions.csv
    dspt predict run holiday/ --format parquet --out predictions.parquet
    """
    from dspt.data import picture_files
    from dspt.model import load_model

    if format not in _WRITERS:
        raise UserError(f"format: must be {', '.join(_WRITERS)}, not {format!r}")
    if format == "parquet" and out is None:
        raise UserError("format: parquet is written to a file; name it with --out")
    files = picture_files(images)
    progress = console.BarProgress(quiet)
    model = load_model(run, device=device)
    skipped: list[str] = []

    def unreadable(reason: str) -> None:
        skipped.append(reason)
        console.err.print(f"skipped: {reason}", soft_wrap=True, markup=False)

    predictions = model.iter_predict(files, top=top, on_unreadable=None if strict else unreadable)
    with _WRITERS[format](out) as write:
        with progress.task("predicting") as advance:
            for done, prediction in enumerate(predictions, 1):
                advance(done, len(files))
                write(prediction)
        if len(skipped) == len(files):
            raise UserError(f"none of the {len(files)} pictures could be read")


@contextlib.contextmanager
def _stream(out: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears when it is complete."""
    from dspt.files import atomic_path

    if out is None:
        yield sys.stdout
        return
    # As on standard output: a picture's name need not be text.
    with (
        atomic_path(out) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        yield stream


@contextlib.contextmanager
def _text(out: Path | None) -> Iterator[Write]:
    with _stream(out) as stream:

        def write(prediction: Prediction) -> None:
            named = "\t".join(f"{label} ({p:.1%})" for label, p in _pairs(prediction))
            stream.write(f"{prediction.image}\t{named}\n")

        yield write


@contextlib.contextmanager
def _csv(out: Path | None) -> Iterator[Write]:
    with _stream(out) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "rank", "label", "probability"])

        def write(prediction: Prediction) -> None:
            for rank, (label, p) in enumerate(_pairs(prediction), 1):
                writer.writerow([prediction.image, rank, label, f"{p:.6f}"])

        yield write


@contextlib.contextmanager
def _jsonl(out: Path | None) -> Iterator[Write]:
    with _stream(out) as stream:

        def write(prediction: Prediction) -> None:
            named = [{"label": n, "probability": round(p, 6)} for n, p in _pairs(prediction)]
            row = {"image": prediction.image, "predictions": named}
            stream.write(json_module.dumps(row, ensure_ascii=False) + "\n")

        yield write


@contextlib.contextmanager
def _parquet(out: Path | None) -> Iterator[Write]:
    """Columns and rows as in CSV: one row per picture and class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dspt.files import atomic_path

    assert out is not None
    fields = {"image": pa.string(), "rank": pa.int32(), "label": pa.string()}
    schema = pa.schema({**fields, "probability": pa.float32()})
    rows: list[dict[str, Any]] = []
    with atomic_path(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:

        def write(prediction: Prediction) -> None:
            image = os.fsencode(prediction.image).decode("utf-8", "backslashreplace")
            for rank, (label, p) in enumerate(_pairs(prediction), 1):
                rows.append({"image": image, "rank": rank, "label": label, "probability": p})
            if len(rows) >= ROWS_AT_ONCE:
                flush()

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()

        yield write
        flush()


def _pairs(prediction: Prediction) -> list[tuple[str, float]]:
    return list(zip(prediction.labels, prediction.probabilities, strict=True))


_WRITERS: dict[str, Callable[[Path | None], contextlib.AbstractContextManager[Write]]] = {
    "text": _text,
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
