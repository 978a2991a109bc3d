"""A manifest with corrected labels, beside the original and never over it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dspt.audit.record import AuditReport
from dspt.configuration import FitConfig
from dspt.data import load_dataset
from dspt.data.manifest import (
    CLASSES_FILE,
    LABEL_COLUMNS,
    SPLIT_WORDS,
    find_column,
    find_manifests,
)
from dspt.data.paths import relative_path
from dspt.data.split_file import find_split_files
from dspt.data.stores import FileImages
from dspt.data.tables import SUFFIXES, read_table
from dspt.errors import UserError
from dspt.files import atomic_path

ADDED = ("given_label", "confidence", "changed")
_PICTURES_AT_ONCE = 256


class CorrectedManifest:
    """Where a corrected manifest goes and what it is made from; everything is checked at once.

    A single table keeps its rows, columns and pictures. Of other data, and of class folders, a
    table of images, labels and splits is made: paths that hold from where the table lies, or
    the pictures' own bytes where they are not files of one folder.

    Args:
        config: names the data.
        target: a CSV, TSV or Parquet file that does not exist yet.

    Raises:
        UserError: when the file exists or would not load as the same data.
    """

    def __init__(self, config: FitConfig, target: Path) -> None:
        self.target = target
        if target.suffix.lower() not in SUFFIXES:
            raise UserError(f"apply: {target} must end in {', '.join(SUFFIXES)}")
        if os.path.lexists(target):
            raise UserError(f"apply: {target} exists and is not replaced; name a new file")
        if target.stem.lower() in SPLIT_WORDS:
            raise UserError(
                f"apply: a folder's {target.name} is read as one of its splits; choose another name"
            )
        if config.noise.kind != "none":
            raise UserError(
                f"apply: the labels were made wrong on purpose (noise {config.noise}), so there is "
                "nothing to correct; audit the data's own labels"
            )
        self._data = load_dataset(
            config.data,
            image_column=config.image_column,
            label_column=config.label_column,
            split_column=config.split_column,
            holdout=0,
            root=config.data_root,
        )
        self._table = _single_table(config.data)
        self._images: list[str] | None = None
        if self._table is not None:
            self._check_table(self._table, config.label_column)
        elif (target.parent / CLASSES_FILE).exists():
            raise UserError(
                f"apply: {target.parent / CLASSES_FILE} would rename the classes of {target.name}; "
                "write into another folder"
            )
        else:
            self._images = self._paths()

    def _check_table(self, table: Path, label_column: str | None) -> None:
        if self.target.parent.resolve() != table.parent.resolve():
            raise UserError(
                f"apply: {self.target} must lie beside {table}, for pictures and class names are "
                f"looked up from there; write into {table.parent}"
            )
        opened = read_table(table, table.parent)
        self._label = find_column(opened, label_column, LABEL_COLUMNS, opened.class_names, "label")
        there = [name for name in ADDED if name in opened.names]
        if there:
            raise UserError(
                f"apply: {table} already has a column {there[0]!r}; rename it, or audit the "
                "manifest that came before"
            )
        if table.suffix.lower() == ".parquet" and self.target.suffix.lower() != ".parquet":
            import pyarrow.parquet as pq
            import pyarrow.types as types

            for field in pq.read_schema(table):
                if types.is_nested(field.type) or "binary" in str(field.type):
                    raise UserError(
                        f"apply: column {field.name!r} of {table} holds no text; name a .parquet "
                        "file"
                    )

    def _paths(self) -> list[str] | None:
        """Every picture's path from the new file; None when the pictures' bytes must be kept."""
        images = self._data.images
        if not isinstance(images, FileImages):
            if self.target.suffix.lower() != ".parquet":
                raise UserError(
                    f"apply: the pictures of {self._data.source} are not files of one folder; name "
                    "a .parquet file, which keeps their bytes, or audit one of its tables alone"
                )
            return None
        base = self.target.parent.resolve()
        paths = []
        for i in range(len(images)):
            file = images.folder.resolve() / images.key(i)
            if not file.resolve().is_relative_to(base) or not file.is_relative_to(base):
                raise UserError(
                    f"apply: {images.key(i)} lies outside {self.target.parent}, so a manifest "
                    f"there cannot name it; write into {images.folder} or a folder above"
                )
            path = file.relative_to(base).as_posix()
            if path != path.strip() or relative_path(path, "apply") != path:
                raise UserError(
                    f"apply: a manifest cannot name the picture {path!a}; rename the file"
                )
            paths.append(path)
        return paths

    def write(self, report: AuditReport, confidence: float) -> int:
        """Write the file.

        Args:
            report: of an audit of the same data.
            confidence: the least with which a proposal replaces the given label.

        Returns:
            How many labels were replaced.

        Raises:
            UserError: when the audit is not to be trusted, or the file has come to exist or cannot
                be written.
        """
        if not report.record.informed:
            raise UserError(
                f"apply: {self.target} is not written, for this audit cannot tell wrong labels "
                "from right ones; check the class names and the template"
            )
        data = self._data
        names = report.record.class_names
        found = {finding.image: finding for finding in report.findings}
        number = {name: i for i, name in enumerate(data.class_names)}
        labels = data.labels.copy()
        sure: list[float | None] = [None] * len(labels)
        for i in range(len(labels)):
            finding = found.get(data.images.key(i))
            if finding is None:
                continue
            sure[i] = finding.confidence
            if finding.suspect and finding.confidence >= confidence:
                labels[i] = number[names[finding.proposed]]
        with atomic_path(self.target) as temporary:
            pieces = self._pieces(labels, sure)
            if self.target.suffix.lower() == ".parquet":
                _write_parquet(temporary, pieces)
            else:
                _write_text(temporary, pieces, self.target.suffix.lower())
            if os.path.lexists(self.target):
                raise UserError(f"apply: {self.target} exists and is not replaced; name a new file")
        return int((labels != data.labels).sum())

    def _pieces(self, labels: np.ndarray, sure: list[float | None]) -> Iterator[Any]:
        """The rows as Arrow tables, so few at once that their pictures fit into memory."""
        import pyarrow as pa

        changed = labels != self._data.labels
        start = 0
        rows = self._made(labels) if self._table is None else self._kept(self._table, labels)
        for piece, given in rows:
            chosen = slice(start, start + piece.num_rows)
            piece = piece.append_column(ADDED[0], given)
            piece = piece.append_column(ADDED[1], pa.array(sure[chosen], pa.float64()))
            piece = piece.append_column(ADDED[2], pa.array(changed[chosen]))
            yield piece
            start = chosen.stop

    def _made(self, labels: np.ndarray) -> Iterator[tuple[Any, Any]]:
        """Rows of a table that there was not: image, label, split; and the given labels."""
        import pyarrow as pa

        data = self._data
        split_of = {int(i): split for split, rows in data.splits.items() for i in rows}
        names = data.class_names
        for start in range(0, len(labels), _PICTURES_AT_ONCE):
            rows = range(start, min(start + _PICTURES_AT_ONCE, len(labels)))
            images = (
                pa.array([self._bytes(i) for i in rows], pa.binary())
                if self._images is None
                else pa.array([self._images[i] for i in rows])
            )
            new = pa.array([names[labels[i]] for i in rows])
            split = pa.array([split_of[i] for i in rows])
            given = pa.array([names[data.labels[i]] for i in rows])
            yield pa.table({"image": images, "label": new, "split": split}), given

    def _bytes(self, i: int) -> bytes | None:
        try:
            return self._data.images.read(i)
        except UserError:  # an unreadable picture stays one
            return None

    def _kept(self, table: Path, labels: np.ndarray) -> Iterator[tuple[Any, Any]]:
        """Rows of the original table with new labels; and the given labels."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if table.suffix.lower() != ".parquet":
            whole = _read_text(table)
            given = whole.column(self._label)
            new = self._relabelled(given, labels)
            yield (
                whole.set_column(whole.schema.get_field_index(self._label), self._label, new),
                given,
            )
            return
        with pq.ParquetFile(table) as file:
            given = file.read(columns=[self._label]).column(0)
            if pa.types.is_dictionary(given.type):
                given = given.cast(given.type.value_type)
            if pa.types.is_floating(given.type):  # whole numbers; as text, 3.0 would be no label
                given = given.cast(pa.int64())
            new = self._relabelled(given, labels)
            described = _described(file.schema_arrow.metadata, self._label)
            place = file.schema_arrow.get_field_index(self._label)
            start = 0
            for group in range(file.num_row_groups):
                piece = file.read_row_group(group)
                size = piece.num_rows
                piece = piece.set_column(place, self._label, new.slice(start, size))
                yield piece.replace_schema_metadata(described), given.slice(start, size)
                start += size

    def _relabelled(self, given: Any, labels: np.ndarray) -> Any:
        """The label column, every new label written as the table writes that class elsewhere."""
        import pyarrow as pa

        old = self._data.labels
        rows = np.arange(len(old))
        seen, first = np.unique(old, return_index=True)
        written = dict(zip(seen.tolist(), first.tolist(), strict=True))
        # A class that no row has is known from a list of names: by number or by name.
        numbered = all(str(given[row]).strip() == str(label) for label, row in written.items())
        unseen = sorted(set(labels[labels != old].tolist()) - set(written))
        words = [str(c) if numbered else self._data.class_names[c] for c in unseen]
        extra = pa.array(words, pa.string()).cast(given.type)
        written |= {label: len(old) + place for place, label in enumerate(unseen)}
        for i in np.flatnonzero(labels != old):
            rows[i] = written[int(labels[i])]
        return pa.chunked_array([*given.chunks, extra], given.type).take(pa.array(rows))


def _single_table(source: str) -> Path | None:
    """The one table that data consists of, None for anything else."""
    path = Path(source).expanduser()
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES else None
    if not path.is_dir() or find_split_files(path):
        return None
    tables = [table for part in find_manifests(path).values() for table in part]
    return tables[0] if len(tables) == 1 else None


def _read_text(path: Path) -> Any:
    """A CSV or TSV file that was read before, its cells as they are."""
    import pyarrow as pa

    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        header, *rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    columns = {name.strip(): [row[i] for row in rows] for i, name in enumerate(header)}
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})


def _described(metadata: dict[bytes, bytes] | None, label: str) -> dict[bytes, bytes]:
    """What Hugging Face's `datasets` knows of the columns, with the new ones."""
    described = dict(metadata or {})
    try:
        content = json.loads(described[b"huggingface"])
        features = content["info"]["features"]
        kinds = (features[label], *({"dtype": t, "_type": "Value"} for t in ("float64", "bool")))
        features.update(zip(ADDED, kinds, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError):
        return described
    return {**described, b"huggingface": json.dumps(content).encode()}


def _write_parquet(path: Path, pieces: Iterator[Any]) -> None:
    import pyarrow.parquet as pq

    first = next(pieces)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for piece in pieces:
            writer.write_table(piece)


def _write_text(path: Path, pieces: Iterator[Any], suffix: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        delimiter = "\t" if suffix == ".tsv" else ","
        plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for number, piece in enumerate(pieces):
            if not number:
                plain.writerow(piece.schema.names)
            for row in zip(*(column.to_pylist() for column in piece.columns), strict=True):
                # Python before 3.13 leaves a lone carriage return bare, and cannot read it back.
                returns = any(isinstance(cell, str) and "\r" in cell for cell in row)
                (quoted if returns else plain).writerow(row)
