"""Tables that list pictures and labels: CSV, TSV, Parquet or Arrow; one, or some a split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dspt.data.dataset import SPLITS, ImageDataset, ImageStore
from dspt.data.paths import check_ordinary, relative_path
from dspt.data.stores import FileImages, JoinedImages
from dspt.data.tables import SUFFIXES, Cell, Table, read_table
from dspt.errors import UserError, did_you_mean

IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "y")
SPLIT_COLUMN = "split"
CLASSES_FILE = "classes.txt"

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_FILE_STEMS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)


@dataclass(frozen=True)
class Columns:
    """Names of columns that the user gave; None means: find it."""

    image: str | None = None
    label: str | None = None
    split: str | None = None


def find_manifests(folder: Path) -> dict[str, list[Path]]:
    """The tables called train, val and test in a folder, by split; without "train": empty.

    Raises:
        UserError: two tables for the same split.
    """
    found: dict[str, list[Path]] = {}
    for split, stems in _FILE_STEMS.items():
        names = [stem + suffix for stem in stems for suffix in SUFFIXES]
        # A broken link counts: without its test table a data set would be tested on other pictures.
        present = [folder / name for name in names if os.path.lexists(folder / name)]
        if len(present) > 1 and (split == "train" or "train" in found):
            raise UserError(
                f"{folder}: both {present[0].name} and {present[1].name}; keep one, or give the "
                "path of the file instead of the folder"
            )
        if present:
            found[split] = [present[0]]
    return found if "train" in found else {}


def read_manifest(
    files: Mapping[str, Sequence[Path]],
    folder: Path,
    source: str,
    name: str,
    columns: Columns = Columns(),
) -> ImageDataset:
    """Read the labels of one table, or of the tables of every split; pictures are read later.

    Tables of the training split alone may have a column of split names; without one all their rows
    are for training. Integer labels are named by `classes.txt` in the folder (one name a line),
    else by the class names that Hugging Face files carry, else by their own digits. Further columns
    whose values are all labels of the same classes become label columns of the data set.

    Args:
        files: of "train" and perhaps "val" and "test", in order where a split has several.
        folder: keys of pictures inside tables are relative to it.
        source: what the user gave.
        name: name of the data set.
        columns: names of columns; defaults are tried in the order of the lists above, then the only
            column of pictures, or of a recorded class label, is taken.

    Raises:
        UserError: naming file, row and column.
    """
    tables = [read_table(path, folder) for paths in files.values() for path in paths]
    splits = [split for split, paths in files.items() for _ in paths]
    labels_in = [
        find_column(table, columns.label, LABEL_COLUMNS, table.class_names, "label")
        for table in tables
    ]
    images_in = [
        find_column(table, columns.image, IMAGE_COLUMNS, table.pictures, "image")
        for table in tables
    ]
    split_name = _find_split_column(tables, splits, columns.split)
    label_cells = [
        _label_cells(table, column) for table, column in zip(tables, labels_in, strict=True)
    ]
    coder = _coder(folder, tables, labels_in, label_cells)
    labels = np.concatenate(
        [
            coder.labels(table, column, cells)
            for table, column, cells in zip(tables, labels_in, label_cells, strict=True)
        ]
    )
    return ImageDataset(
        name=name,
        source=source,
        class_names=tuple(class_name.replace("_", " ") for class_name in coder.names),
        images=_join_images(list(zip(tables, images_in, strict=True))),
        labels=labels,
        splits=_splits(tables, splits, split_name),
        columns=_further_columns(tables, coder, {split_name, *labels_in, *images_in}),
    )


def find_column(
    table: Table,
    given: str | None,
    defaults: Sequence[str],
    suits: Callable[[str], object],
    what: str,
) -> str:
    """The name of a column: the user's, else the first default (exact, then in any case), else the
    only one that suits."""
    if given is not None:
        if given in table.names:
            return given
        hint = did_you_mean(given, table.names)
        raise UserError(f"{table.path}: no column {given!r}; it has {', '.join(table.names)}{hint}")
    by_lower = {name.lower(): name for name in reversed(table.names)}
    for default in defaults:
        if default in table.names:
            return default
    for default in defaults:
        if default in by_lower:
            return by_lower[default]
    suitable = [name for name in table.names if suits(name) is not None]
    if len(suitable) == 1:
        return suitable[0]
    raise UserError(
        f"{table.path}: no {what} column among {', '.join(table.names)}; call it {defaults[0]!r} "
        f"or name it with {what}_column"
    )


def _find_split_column(
    tables: Sequence[Table], splits: Sequence[str], given: str | None
) -> str | None:
    if set(splits) != {"train"}:
        if given is not None:
            raise UserError(
                f"split_column {given!r}: the splits are already files of their own "
                f"({', '.join(table.path.name for table in tables)}); give one file"
            )
        return None
    for table in tables:
        if given is not None and given not in table.names:
            return find_column(table, given, (), lambda name: None, "split")
    wanted = given or SPLIT_COLUMN
    return wanted if all(wanted in table.names for table in tables) else None


def _splits(
    tables: Sequence[Table], splits: Sequence[str], split_name: str | None
) -> dict[str, np.ndarray]:
    """Row numbers of each split, over all tables one after another."""
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    start = 0
    for table, split in zip(tables, splits, strict=True):
        if split_name is None:
            rows[split].extend(range(start, start + table.n_rows))
        else:
            for row, cell in enumerate(_plain_cells(table, split_name, "split")):
                named = SPLIT_WORDS.get(str(cell).lower(), "") if cell is not None else ""
                if not named:
                    raise UserError(
                        f"{table.where(row)}, column {split_name!r}: {_show(cell)} is no split; "
                        "write train, val or test"
                    )
                rows[named].append(start + row)
        start += table.n_rows
    if not rows["train"]:
        raise UserError(f"{tables[0].path}: no rows for training; add some")
    return {split: np.array(found, dtype=np.int64) for split, found in rows.items() if found}


def _join_images(columns: Sequence[tuple[Table, str]]) -> ImageStore:
    stores: list[ImageStore] = []
    seen: dict[str, str] = {}
    for table, column in columns:
        store: ImageStore | None = table.pictures(column)
        if store is None:
            paths = []
            for row, cell in enumerate(_plain_cells(table, column, "image")):
                where = f"{table.where(row)}, column {column!r}"
                if not isinstance(cell, str):
                    raise UserError(f"{where}: {_show(cell)} is no path of a picture; name a file")
                path = relative_path(cell, where)
                if path in seen:
                    raise UserError(
                        f"{where}: {path} is listed twice, first in {seen[path]}; keep one row"
                    )
                seen[path] = table.where(row)
                paths.append(path)
            store = FileImages(table.path.parent, paths, contained=True)
        stores.append(store)
    return stores[0] if len(stores) == 1 else JoinedImages(stores)


def _plain_cells(table: Table, column: str, what: str) -> list[Cell]:
    cells = table.cells(column)
    if cells is None:
        raise UserError(
            f"{table.path}, column {column!r}: its type cannot be a{'n' * (what[0] in 'aeiou')} "
            f"{what} column; choose another"
        )
    return cells


def _label_cells(table: Table, column: str) -> list[Cell]:
    """Cells of the label column, none of them empty."""
    cells = _plain_cells(table, column, "label")
    for row, cell in enumerate(cells):
        if cell is None:
            raise UserError(
                f"{table.where(row)}, column {column!r}: the label is empty; fill it in or drop "
                "the row"
            )
    return cells


@dataclass(frozen=True)
class Coder:
    """From cells to class numbers.

    ``codes`` maps a cell's canonical text to its class; ``names`` are the class names as written.
    """

    names: tuple[str, ...]
    codes: dict[str, int]
    integers: bool

    def code(self, cell: Cell) -> int | None:
        """The class of a cell, or None when it is not one."""
        return self.codes.get(str(cell)) if not isinstance(cell, float) else None

    def labels(self, table: Table, column: str, cells: Sequence[Cell]) -> np.ndarray:
        """Class of every cell, int64 [rows].

        Raises:
            UserError: naming the row whose cell is not a class.
        """
        out = np.empty(len(cells), dtype=np.int64)
        for row, cell in enumerate(cells):
            code = self.code(cell)
            if code is None:
                wanted = (
                    f"an integer from 0 to {len(self.names) - 1}"
                    if self.integers
                    else f"one of {len(self.names)} class names such as {self.names[0]!r}"
                )
                raise UserError(
                    f"{table.where(row)}, column {column!r}: {_show(cell)} is not a label; "
                    f"it must be {wanted}"
                )
            out[row] = code
        return out


def _coder(
    folder: Path,
    tables: Sequence[Table],
    columns: Sequence[str],
    cells: Sequence[Sequence[Cell]],
) -> Coder:
    """Decide what the classes are from the label columns of all tables."""
    values: dict[Cell, None] = dict.fromkeys(cell for part in cells for cell in part)
    integers = all(isinstance(v, int) or _INTEGER.fullmatch(str(v)) for v in values)
    names = _listed_names(folder / CLASSES_FILE)
    if names is None:
        names = _recorded_names(tables, columns)
    if names is not None:
        if integers:
            _check_unambiguous(folder, names, values)
            return Coder(tuple(names), {str(i): i for i in range(len(names))}, True)
        codes = {name.replace("_", " "): i for i, name in enumerate(names)}
        codes.update({name: i for i, name in enumerate(names)})
        return Coder(tuple(names), codes, False)
    for table, column, part in zip(tables, columns, cells, strict=True):
        for row, cell in enumerate(part):
            if isinstance(cell, float) or (integers and int(cell or 0) < 0):
                raise UserError(
                    f"{table.where(row)}, column {column!r}: {_show(cell)} is not a label; use "
                    "class names or integers from 0"
                )
    if integers:
        found = [str(v) for v in sorted({int(v) for v in values if v is not None})]
    else:
        found = sorted(str(v) for v in values)
    return Coder(tuple(found), {name: i for i, name in enumerate(found)}, integers)


def _check_unambiguous(folder: Path, names: Sequence[str], values: Iterable[Cell]) -> None:
    """A "1" in a text must not be class number 1 when another class is called "1"."""
    for value in values:
        if isinstance(value, str) and value in names and names.index(value) != int(value):
            raise UserError(
                f"{folder / CLASSES_FILE}: class {names.index(value)} is called {value!r}, so "
                f"label {value!r} may mean two classes; write the labels as words"
            )


def _recorded_names(tables: Sequence[Table], columns: Sequence[str]) -> list[str] | None:
    """Class names by number that the tables' own label columns carry."""
    names = tables[0].class_names(columns[0])
    for table, column in zip(tables, columns, strict=True):
        if table.class_names(column) != names:
            raise UserError(
                f"{table.path}, column {column!r}: its class names are not those of "
                f"{tables[0].path}; save both with the same ones"
            )
    if names is not None:
        _check_distinct(names, f"{tables[0].path}, names of column {columns[0]!r}, entry")
    return names


def _listed_names(path: Path) -> list[str] | None:
    """Class names by number from classes.txt, None without one."""
    if not os.path.lexists(path):
        return None
    check_ordinary(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; save it as UTF-8 text") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    _check_distinct(names, f"{path}, line")
    return names


def _check_distinct(names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise UserError(f"{where} {number}: empty; write one class name a line")
        if name in seen:
            raise UserError(f"{where} {number}: {name!a} occurs twice; class names must differ")
        seen.add(name)


def _further_columns(
    tables: Sequence[Table], coder: Coder, used: set[str | None]
) -> dict[str, np.ndarray]:
    """Columns whose cells are all labels; -1 for an empty cell and for a table without it."""
    out: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for table in tables for name in table.names):
        if name in used:
            continue
        parts = []
        for table in tables:
            codes = _codes_or_none(table, name, coder)
            if codes is None:
                break
            parts.append(codes)
        else:
            labels = np.concatenate(parts)
            if (labels >= 0).any():
                out[name] = labels
    return out


def _codes_or_none(table: Table, name: str, coder: Coder) -> np.ndarray | None:
    if name not in table.names:
        return np.full(table.n_rows, -1, dtype=np.int64)
    cells = table.cells(name)
    if cells is None or table.class_names(name) not in (None, list(coder.names)):
        return None
    out = np.empty(len(cells), dtype=np.int64)
    for row, cell in enumerate(cells):
        missing = cell is None or str(cell) == "-1"
        code = -1 if missing else coder.code(cell)
        if code is None:
            return None
        out[row] = code
    return out


def _show(cell: Cell) -> str:
    text = "an empty cell" if cell is None else repr(cell)
    return text if len(text) <= 80 else text[:77] + "..."
