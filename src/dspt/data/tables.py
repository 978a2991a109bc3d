"""Tables on disk (CSV, TSV, Parquet, Arrow) read by column, without the pictures in them."""

from __future__ import annotations

import csv
import json
import math
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

from dspt.data.paths import LONGEST, check_ordinary, is_clean, printable
from dspt.data.stores import (
    ArrowImages,
    CellImages,
    ParquetImages,
    first_line,
    read_arrow,
    read_arrow_column,
)
from dspt.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet")
DATASET_INFO = "dataset_info.json"

Cell = str | int | float | None


class Table(Protocol):
    """Named columns of equal length."""

    path: Path
    names: list[str]
    n_rows: int

    def cells(self, column: str) -> list[Cell] | None:
        """Values of a column, None where empty; None altogether if it is not text or numbers."""
        ...

    def where(self, row: int) -> str:
        """Place of a row (counted from 0) for messages, the way an editor or its key counts."""
        ...

    def pictures(self, column: str) -> CellImages | None:
        """Pictures stored in the cells of a column, or None when it does not hold bytes."""
        ...

    def class_names(self, column: str) -> list[str] | None:
        """Names that the file itself records for the integers of a column, if any."""
        ...


def read_table(path: Path, folder: Path) -> Table:
    """Open a table by its suffix.

    Args:
        path: the file.
        folder: keys of its pictures are relative to it.

    Raises:
        UserError: naming file and line, when it is not a well-formed table.
    """
    check_ordinary(path)
    name = path.relative_to(folder).as_posix()
    if path.suffix.lower() == ".parquet":
        return ParquetTable(path, name)
    if path.suffix.lower() == ".arrow":
        return ArrowTable(path, name)
    return DelimitedTable(path, "\t" if path.suffix.lower() == ".tsv" else ",")


class DelimitedTable:
    """A CSV or TSV file with a header line. Every cell is text; blank lines are skipped.

    The standard reader is used, because it guesses nothing: a class may be called "NA" or "null".
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        self._lines: list[int] = []
        rows: list[list[str]] = []
        line = 0
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=delimiter, strict=True)
                header = [name.strip() for name in next(reader, [])]
                line = reader.line_num
                for row in reader:
                    if row:
                        self._check_width(row, header, line + 1)
                        rows.append(row)
                        self._lines.append(line + 1)
                    line = reader.line_num
        except csv.Error as error:
            raise UserError(
                f"{path}, after line {line}: {error}; mend the separators and quotes there"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {error}; save it as UTF-8 text") from error
        self.names = _check_header(path, header)
        self.n_rows = len(rows)
        self._columns: dict[str, list[Cell]] = {
            name: [row[i].strip() or None for row in rows] for i, name in enumerate(self.names)
        }

    def _check_width(self, row: list[str], header: list[str], line: int) -> None:
        if len(row) != len(header):
            raise UserError(
                f"{self.path}, line {line}: {len(row)} fields, the header has {len(header)}; quote "
                "fields that hold the separator"
            )

    def cells(self, column: str) -> list[Cell] | None:
        """All cells, as text without outer spaces."""
        return self._columns[column]

    def where(self, row: int) -> str:
        """Line in the file, counted from 1."""
        return f"{self.path}, line {self._lines[row]}"

    def pictures(self, column: str) -> CellImages | None:
        """None: text has no bytes."""
        return None

    def class_names(self, column: str) -> list[str] | None:
        """None: text records no class names."""
        return None


class TypedTable(ABC):
    """A table whose columns have Arrow types; only the columns asked for are read.

    Args:
        path: the file.
        name: what the keys of its pictures begin with.
        schema: an Arrow schema.
        n_rows: number of rows.
    """

    def __init__(self, path: Path, name: str, schema: Any, n_rows: int) -> None:
        self.path = path
        self.n_rows = n_rows
        self.names = _check_header(path, list(schema.names))
        self._name = name
        self._schema = schema
        self._features = self._recorded_features()

    def cells(self, column: str) -> list[Cell] | None:
        """Text, integers and whole floats; booleans as "False" and "True"."""
        if not _is_plain(self._schema.field(column).type):
            return None
        try:
            values = self._values(column).to_pylist()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.path}, column {column!r}: cannot be read: {error}; write it again"
            ) from error
        if len(values) != self.n_rows:
            raise UserError(
                f"{self.path}, column {column!r}: {len(values)} values in {self.n_rows} rows; "
                "write it again"
            )
        return [_plain(value) for value in values]

    def where(self, row: int) -> str:
        """Row, counted from 0 as in the keys of pictures."""
        return f"{self.path}, row {row}"

    def pictures(self, column: str) -> CellImages | None:
        """Bytes, or structs of bytes and path as Hugging Face writes them."""
        import pyarrow.types as types

        kind = self._schema.field(column).type
        if types.is_struct(kind):
            within = [kind.field(i) for i in range(kind.num_fields)]
            holds_bytes = any(
                field.name == "bytes" and (_is_binary(field.type) or types.is_null(field.type))
                for field in within
            )
        else:
            holds_bytes = _is_binary(kind)
        return self._images(column) if holds_bytes else None

    def class_names(self, column: str) -> list[str] | None:
        """Names of a ClassLabel in what the Hugging Face `datasets` library writes."""
        try:
            names = self._features[column]["names"]
        except (KeyError, TypeError):
            return None
        return names if _is_names(names) else None

    def _recorded_features(self) -> Any:
        """The library's description of the columns, None without one."""
        try:
            return json.loads((self._schema.metadata or {})[b"huggingface"])["info"]["features"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return None

    @abstractmethod
    def _values(self, column: str) -> Any:
        """A column as an Arrow array, in one or more chunks."""

    @abstractmethod
    def _images(self, column: str) -> CellImages:
        """The pictures that a column holds."""


class ParquetTable(TypedTable):
    """A Parquet file."""

    def __init__(self, path: Path, name: str) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise UserError(f"{path}: reading Parquet needs pyarrow; install pyarrow") from error
        try:
            with pq.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{path}: no readable Parquet file: {first_line(error)}; write it again"
            ) from error
        self._sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        super().__init__(path, name, schema, sum(self._sizes))

    def _values(self, column: str) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                return file.read(columns=[column]).column(column)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{self.path}, column {column!r}: cannot be read: {first_line(error)}; write it "
                "again"
            ) from error

    def _images(self, column: str) -> CellImages:
        return ParquetImages(self.path, self._name, column, self._sizes)


class ArrowTable(TypedTable):
    """An Arrow stream file, as `Dataset.save_to_disk` of Hugging Face's library writes it."""

    def __init__(self, path: Path, name: str) -> None:
        table = read_arrow(path)
        super().__init__(path, name, table.schema, table.num_rows)

    def _recorded_features(self) -> Any:
        """From the folder's dataset_info.json, which the library believes before the metadata."""
        described = self.path.parent / DATASET_INFO
        if not os.path.lexists(described):
            return super()._recorded_features()
        features = read_json_object(described).get("features")
        if features is None:
            return super()._recorded_features()
        for name in self.names:
            feature = features.get(name) if isinstance(features, dict) else None
            if not isinstance(feature, dict | list):
                raise UserError(f"{described}: does not describe column {name!a}; save it again")
            if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
                continue
            if not _is_names(feature.get("names")):
                raise UserError(
                    f"{described}: column {name!a} has no list of class names; save it again"
                )
        return features

    def _values(self, column: str) -> Any:
        return read_arrow_column(self.path, column)

    def _images(self, column: str) -> CellImages:
        return ArrowImages(self.path, self._name, column, self.n_rows)


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        UserError: when it is missing, no JSON, names a field twice or holds something else.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a field is given twice")
        return fields

    check_ordinary(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: no readable JSON: {first_line(error)}; mend it or get the file again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'{path}: must hold one object, {{"name": ...}}; get the file again')
    return content


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
        or str(kind) == "string_view"
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or str(kind) == "binary_view"
    )


def _plain(value: Any) -> Cell:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() else value
    if isinstance(value, str):
        return value.strip() or None
    return int(value) if value is not None else None


def _check_header(path: Path, names: list[str]) -> list[str]:
    if not any(names):
        raise UserError(f"{path}: is empty; the first line must name the columns")
    for name in names:
        if not is_clean(name) or len(name) > LONGEST:
            raise UserError(f"{path}: {printable(name):.40} cannot name a column; rename it")
        if names.count(name) > 1:
            raise UserError(f"{path}: two columns are called {name!r}; rename one")
    return names
