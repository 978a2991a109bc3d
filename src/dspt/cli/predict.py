"""``dspt predict``: classify pictures."""

from __future__ import annotations

import contextlib
import csv
import glob
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
        list[Path],
        typer.Argument(
            metavar="IMAGES...",
            help="Picture files, folders of them, patterns in quotes ('shots/**/*.jpg'), or CSV / "
            "TSV / Parquet tables with a column of paths.",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes per picture.")] = 1,
    format: Annotated[
        str,
        typer.Option(
            help="text, csv, jsonl or parquet.",
            autocompletion=options.one_of(("text", "csv", "jsonl", "parquet")),
        ),
    ] = "text",
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
    image_column: options.ImageColumn = None,
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
    dspt predict run pictures.csv --image-column path --format jsonl > predictions.jsonl
    """
    from dspt.model import load_model

    options.check_choice("format", format, _WRITERS)
    if format == "parquet" and out is None:
        raise UserError("format: parquet is written to a file; name it with --out")
    files = _files(images, image_column)
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
                advance(done + len(skipped), len(files))
                write(prediction)
        if len(skipped) == len(files):
            raise UserError(f"none of the {len(files)} pictures could be read")


def _files(places: list[Path], image_column: str | None) -> list[Path]:
    """The pictures that files, folders, patterns and tables name.

    Raises:
        UserError: when a place does not exist or names no picture.
    """
    from dspt.data import picture_files
    from dspt.data.tables import SUFFIXES

    files: list[Path] = []
    for place in places:
        if place.suffix.lower() in SUFFIXES and os.path.isfile(place):
            files += _listed(place, image_column)
        elif not os.path.lexists(place) and (found := _matching(place)):
            files += picture_files(found)
        else:
            files += picture_files([place])
    return files


def _matching(pattern: Path) -> list[str]:
    return sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - may be absolute


def _listed(path: Path, image_column: str | None) -> list[Path]:
    """The pictures that a table names, relative to its folder."""
    from dspt.data.manifest import IMAGE_COLUMNS
    from dspt.data.paths import relative_path
    from dspt.data.tables import read_table

    table = read_table(path, path.parent)
    wanted = IMAGE_COLUMNS if image_column is None else (image_column,)
    column = next((name for name in wanted if name in table.names), None)
    if column is None:
        raise UserError(
            f"{path}: no column {' or '.join(map(repr, wanted))} among {', '.join(table.names)}; "
            "name the column of paths with --image-column"
        )
    cells = table.cells(column)
    if cells is None:
        raise UserError(f"{path}: column {column!r} holds no paths; write the pictures to files")
    named = [relative_path(str(c or ""), table.where(row)) for row, c in enumerate(cells)]
    if not named:
        raise UserError(f"{path}: names no picture; add rows")
    return [path.parent / name for name in named]


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
    from dspt.data.paths import printable

    with _stream(out) as stream:

        def write(prediction: Prediction) -> None:
            named = "\t".join(f"{label} ({p:.1%})" for label, p in _pairs(prediction))
            stream.write(f"{printable(prediction.image)}\t{named}\n")

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
