"""Tables on disk (CSV, TSV, Parquet) read column by column, without the pictures in them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, Protocol

from dspt.data.stores import ParquetImages
from dspt.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet")

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

    def pictures(self, column: str) -> ParquetImages | None:
        """Pictures stored in the cells of a column, or None when it does not hold bytes."""
        ...

    def class_names(self, column: str) -> list[str] | None:
        """Names that the file itself records for the integers of a column, if any."""
        ...


def read_table(path: Path) -> Table:
    """Open a table by its suffix.

    Raises:
        UserError: naming file and line, when it is not a well-formed table.
    """
    if path.suffix.lower() == ".parquet":
        return ParquetTable(path)
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

    def pictures(self, column: str) -> ParquetImages | None:
        """None: text has no bytes."""
        return None

    def class_names(self, column: str) -> list[str] | None:
        """None: text records no class names."""
        return None


class ParquetTable:
    """A Parquet file; only the columns asked for are read."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise UserError(f"{path}: reading Parquet needs pyarrow; install pyarrow") from error
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self._schema = file.schema_arrow
                metadata = file.metadata
                self._sizes = [
                    metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
                ]
        except (OSError, pa.ArrowException) as error:
            line = str(error).splitlines()[0]
            raise UserError(f"{path}: no readable Parquet file: {line}; write it again") from error
        self.names = _check_header(path, list(self._schema.names))
        self.n_rows = sum(self._sizes)

    def cells(self, column: str) -> list[Cell] | None:
        """Text, integers and whole floats; booleans as "False" and "True"."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._is_plain(self._schema.field(column).type):
            return None
        try:
            with pq.ParquetFile(self.path) as file:
                values = file.read(columns=[column]).column(column).to_pylist()
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            line = str(error).splitlines()[0]
            raise UserError(f"{self.path}, column {column!r}: cannot be read: {line}") from error
        return [_plain(value) for value in values]

    def where(self, row: int) -> str:
        """Row, counted from 0 as in the keys of pictures."""
        return f"{self.path}, row {row}"

    def pictures(self, column: str) -> ParquetImages | None:
        """Bytes, or structs of bytes and path as Hugging Face writes them."""
        import pyarrow.types as types

        kind = self._schema.field(column).type
        if types.is_struct(kind):
            fields = {kind.field(i).name for i in range(kind.num_fields)}
            holds_bytes = "bytes" in fields
        else:
            holds_bytes = _is_binary(kind)
        return ParquetImages(self.path, column, self._sizes) if holds_bytes else None

    def class_names(self, column: str) -> list[str] | None:
        """Names in the metadata that the Hugging Face `datasets` library writes."""
        try:
            metadata = json.loads((self._schema.metadata or {})[b"huggingface"])
            names = metadata["info"]["features"][column]["names"]
        except (KeyError, TypeError, ValueError):
            return None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
        return None

    @staticmethod
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
        if names.count(name) > 1:
            raise UserError(f"{path}: two columns are called {name!r}; rename one")
    return names
