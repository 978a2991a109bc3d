"""Where encoded pictures are read from: files, rows of a table, or several stores in a row."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from dspt.data.dataset import ImageStore
from dspt.data.paths import check_ordinary, relative_path
from dspt.errors import UserError

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

LARGEST_FILE = 2**31
"""Bytes; no picture below Pillow's limit of pixels is larger."""


class FileImages:
    """Pictures that are files below one folder.

    Args:
        folder: paths are relative to it. It may itself be a symbolic link.
        paths: relative POSIX paths, already checked.
        contained: refuse a file that a symbolic link leads out of the folder. On for paths that a
            file names, off for files that were found by listing the user's own folders.
        keys: as many, all different, where they are not the paths themselves.
    """

    def __init__(
        self, folder: Path, paths: Sequence[str], *, contained: bool, keys: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self._paths = tuple(paths)
        self._keys = tuple(keys) or self._paths
        self._contained = contained

    def __len__(self) -> int:
        return len(self._paths)

    def key(self, i: int) -> str:
        """Relative POSIX path, or the key given for it."""
        return self._keys[i]

    def read(self, i: int) -> bytes:
        """Bytes of the file."""
        if self._contained:
            return read_inside(self.folder, self._paths[i])
        return read_picture(self.folder / self._paths[i], f"{self._keys[i]} in {self.folder}")

    def missing(self) -> list[str]:
        """Keys of the pictures that are no files; nothing is opened."""
        pairs = zip(self._keys, self._paths, strict=True)
        return [key for key, path in pairs if not (self.folder / path).is_file()]


def read_picture(path: Path, name: str) -> bytes:
    """The bytes of a picture's file, which need not be a picture.

    Args:
        path: a file; a pipe or a device is not opened, for reading it could take for ever.
        name: what messages call it.

    Raises:
        UserError: when it is missing, no ordinary file, too large or not readable.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no ordinary file"
            raise UserError(f"picture {name} is {what}; replace or remove it")
        if found.st_size > LARGEST_FILE:
            raise UserError(f"picture {name} has {found.st_size} bytes; replace or remove it")
        return path.read_bytes()
    except FileNotFoundError as error:
        what = "is a broken link" if path.is_symlink() else "is missing"
        raise UserError(f"picture {name} {what}; complete the data or leave it out") from error
    except UserError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"picture {name} cannot be read: {reason}; replace or remove it") from error


def read_inside(folder: Path, relative: str) -> bytes:
    """The bytes of a picture's file below ``folder``, as :func:`read_picture`.

    Raises:
        UserError: also when the file really lies outside the folder.
    """
    path = folder / relative
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise UserError(
            f"picture {relative} in {folder} cannot be read: {error}; replace it or remove its row"
        ) from error
    if not inside:
        raise UserError(
            f"picture {relative}: a symbolic link leads out of {folder}; copy the file inside"
        )
    return read_picture(path, f"{relative} in {folder}")


class CellImages(ABC):
    """Pictures that are cells of one column of a file, read when asked for.

    A cell is the encoded picture, or a Hugging Face struct {"bytes", "path"} whose path is used
    where it has no bytes.

    Args:
        path: the file.
        name: what its keys begin with.
        column: of the pictures.
        n_rows: of the file.
    """

    def __init__(self, path: Path, name: str, column: str, n_rows: int) -> None:
        self._path = path
        self._name = name
        self._column = column
        self._n_rows = n_rows

    def __len__(self) -> int:
        return self._n_rows

    def key(self, i: int) -> str:
        """File name and row, counted from 0."""
        return f"{self._name}#{range(self._n_rows)[i]}"

    def read(self, i: int) -> bytes:
        """Bytes in the cell."""
        row = range(self._n_rows)[i]
        try:
            cell = self._cell(row)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.key(row)}, column {self._column!r}: {error}; drop the row"
            ) from error
        except IndexError as error:
            raise UserError(f"{self._path} has changed since it was opened; start again") from error
        if isinstance(cell, dict):
            content, path = cell.get("bytes"), cell.get("path")
            if content is None and path:
                checked = relative_path(str(path), f"{self.key(row)}, column {self._column!r}")
                return read_inside(self._path.parent, checked)
            cell = content
        if not isinstance(cell, bytes) or not cell:
            raise UserError(f"{self.key(row)}, column {self._column!r}: no picture; drop the row")
        return cell

    @abstractmethod
    def _cell(self, row: int) -> Any:
        """What the file holds in a row of the column."""


class ParquetImages(CellImages):
    """Cells of a Parquet file. Whole row groups are read, and the last one is kept: read in order.

    Args:
        row_group_sizes: rows in every row group.
    """

    def __init__(self, path: Path, name: str, column: str, row_group_sizes: Sequence[int]) -> None:
        self._ends = list(accumulate(row_group_sizes))
        super().__init__(path, name, column, self._ends[-1] if self._ends else 0)
        self._kept: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # a worker process reads its own row groups

    def _cell(self, row: int) -> Any:
        group = bisect_right(self._ends, row)
        offset = row - (self._ends[group - 1] if group else 0)
        return self._row_group(group)[offset].as_py()

    def _row_group(self, group: int) -> Any:
        kept = self._kept  # one assignment, so threads need no lock: a race only reads twice
        if kept is None or kept[0] != group:
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                with pq.ParquetFile(self._path) as file:
                    table = file.read_row_group(group, columns=[self._column])
            except (OSError, pa.ArrowException, IndexError) as error:
                raise UserError(
                    f"{self._path}: cannot read the pictures: {first_line(error)}; write it again"
                ) from error
            kept = (group, table.column(self._column))
            self._kept = kept
        return kept[1]


class ArrowImages(CellImages):
    """Cells of an Arrow stream file, mapped into memory: the system reads the pages asked for."""

    def __init__(self, path: Path, name: str, column: str, n_rows: int) -> None:
        super().__init__(path, name, column, n_rows)
        self._mapped: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # a worker process maps the file itself

    def _cell(self, row: int) -> Any:
        if self._mapped is None:
            self._mapped = read_arrow_column(self._path, self._column)
        return self._mapped[row].as_py()


def read_arrow(path: Path) -> Any:
    """An Arrow stream file as a table whose columns stay on the disk.

    Raises:
        UserError: when it is missing, damaged or cut short.
    """
    import pyarrow as pa

    check_ordinary(path)
    try:
        with path.open("rb") as file:
            file.seek(-min(len(_END_OF_STREAM), path.stat().st_size), os.SEEK_END)
            if file.read() != _END_OF_STREAM:  # without it a file cut between batches looks whole
                raise UserError(f"{path}: no Arrow stream or cut short; save the data again")
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            return stream.read_all()
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: no readable Arrow stream: {first_line(error)}; save the data again"
        ) from error


def read_arrow_column(path: Path, column: str) -> Any:
    """A column of an Arrow stream file, with offsets that were found to stay inside it.

    Raises:
        UserError: as :func:`read_arrow`, and without such a column.
    """
    import pyarrow as pa

    table = read_arrow(path)
    if table.schema.names.count(column) != 1:
        raise UserError(f"{path} has changed since it was opened; start again")
    values = table.column(column)
    try:
        values.validate(full=True)
    except pa.ArrowException as error:
        raise UserError(
            f"{path}, column {column!r}: damaged: {first_line(error)}; save the data again"
        ) from error
    return values


def first_line(error: Exception) -> str:
    """What a library says, without the lines of detail that some add."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class JoinedImages:
    """Several stores, one after another."""

    def __init__(self, parts: Sequence[ImageStore]) -> None:
        self._parts = tuple(parts)
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def key(self, i: int) -> str:
        """Key in the part that holds picture ``i``."""
        part, offset = self._locate(i)
        return part.key(offset)

    def read(self, i: int) -> bytes:
        """Bytes from the part that holds picture ``i``."""
        part, offset = self._locate(i)
        return part.read(offset)

    def missing(self) -> list[str]:
        """Keys of the pictures that are no files, where the parts are files."""
        return [key for part in self._parts for key in missing_pictures(part)]

    def _locate(self, i: int) -> tuple[ImageStore, int]:
        i = range(len(self))[i]
        number = bisect_right(self._ends, i)
        return self._parts[number], i - (self._ends[number - 1] if number else 0)


class ChosenImages:
    """Some pictures of another store, under the same keys.

    Args:
        images: the other store.
        numbers: which of its pictures, int64 [N].
    """

    def __init__(self, images: ImageStore, numbers: np.ndarray) -> None:
        self._images = images
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def key(self, i: int) -> str:
        """Key in the other store."""
        return self._images.key(int(self._numbers[i]))

    def read(self, i: int) -> bytes:
        """Bytes from the other store."""
        return self._images.read(int(self._numbers[i]))


def missing_pictures(images: ImageStore) -> list[str]:
    """Keys of the pictures that are not on disk; empty for pictures inside tables."""
    return images.missing() if isinstance(images, (FileImages, JoinedImages)) else []
