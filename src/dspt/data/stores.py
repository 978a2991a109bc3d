"""Where encoded pictures are read from: files, Parquet rows, or several stores in a row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from dspt.data.dataset import ImageStore
from dspt.data.paths import relative_path
from dspt.errors import UserError


class FileImages:
    """Pictures that are files below one folder.

    Args:
        folder: paths are relative to it. It may itself be a symbolic link.
        paths: relative POSIX paths, already checked; these are the keys.
        contained: refuse a file that a symbolic link leads out of the folder. On for paths that a
            file names, off for files that were found by listing the user's own folders.
    """

    def __init__(self, folder: Path, paths: Sequence[str], *, contained: bool) -> None:
        self.folder = folder
        self._paths = tuple(paths)
        self._contained = contained

    def __len__(self) -> int:
        return len(self._paths)

    def key(self, i: int) -> str:
        """Relative POSIX path."""
        return self._paths[i]

    def read(self, i: int) -> bytes:
        """Bytes of the file."""
        return read_file(self.folder, self._paths[i], contained=self._contained)

    def missing(self) -> list[str]:
        """Keys of the pictures that are no files; nothing is opened."""
        return [path for path in self._paths if not (self.folder / path).is_file()]


def read_file(folder: Path, relative: str, *, contained: bool) -> bytes:
    """Read a picture below ``folder``.

    Raises:
        UserError: naming the file, when it is missing, unreadable, or (if ``contained``) really
            lies outside the folder.
    """
    path = folder / relative
    try:
        if contained and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"picture {relative}: a symbolic link leads out of {folder}; copy the file inside"
            )
        if not path.is_file():
            raise UserError(
                f"picture {relative} is missing in {folder}; complete the download or remove its "
                "row"
            )
        return path.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise UserError(f"picture {relative} in {folder} cannot be read: {error}") from error


class ParquetImages:
    """Pictures that are cells of one column of a Parquet file.

    A cell is the encoded picture, or a Hugging Face struct {"bytes", "path"} whose path is used
    where it has no bytes. Whole row groups are read, and the last one is kept: read rows in order.
    """

    def __init__(self, path: Path, column: str, row_group_sizes: Sequence[int]) -> None:
        self._path = path
        self._column = column
        self._ends = list(accumulate(row_group_sizes))
        self._kept: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # a worker process reads its own row groups

    def key(self, i: int) -> str:
        """File name and row, counted from 0."""
        return f"{self._path.name}#{range(len(self))[i]}"

    def read(self, i: int) -> bytes:
        """Bytes in the cell."""
        row = range(len(self))[i]
        group = bisect_right(self._ends, row)
        cells = self._row_group(group)
        offset = row - (self._ends[group - 1] if group else 0)
        if offset >= len(cells):
            raise UserError(f"{self._path} has changed since it was opened; start again")
        cell = cells[offset].as_py()
        if isinstance(cell, dict):
            content, path = cell.get("bytes"), cell.get("path")
            if content is None and path:
                checked = relative_path(str(path), f"{self.key(row)}, column {self._column!r}")
                return read_file(self._path.parent, checked, contained=True)
            cell = content
        if not cell:
            raise UserError(f"{self.key(row)}, column {self._column!r}: no picture; drop the row")
        return bytes(cell)

    def _row_group(self, group: int) -> Any:
        kept = self._kept  # one assignment, so threads need no lock: a race only reads twice
        if kept is None or kept[0] != group:
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                with pq.ParquetFile(self._path) as file:
                    table = file.read_row_group(group, columns=[self._column])
            except (OSError, pa.ArrowException, IndexError) as error:
                line = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"{self._path}: cannot read the pictures: {line}") from error
            kept = (group, table.column(self._column))
            self._kept = kept
        return kept[1]


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
