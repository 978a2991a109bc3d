"""Arrays that grow with the data: the large ones are mapped files without a name.

What is in a mapped file costs no memory that is needed elsewhere: the system writes it out and
takes its pages away. The file lies in no folder, so nothing of it is left however a process ends.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np

_BLOCK = 1 << 20


class LargeArray:
    """Zeros to be filled in.

    Args:
        shape: of the array.
        dtype: of its values.
        folder: on whose disk a large array lies; made when it is not there. Where it cannot be
            written or has no room, the array is in memory.
        in_memory: bytes up to which an array is in memory.

    Attributes:
        values: the array.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: type[np.generic], folder: Path, *, in_memory: int
    ) -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._mapping = _mapped(folder, size) if size > in_memory else None
        self.values = (
            np.zeros(shape, dtype)
            if self._mapping is None
            else np.frombuffer(self._mapping, dtype).reshape(shape)
        )

    @property
    def mapped(self) -> bool:
        """Whether it is in a file."""
        return self._mapping is not None

    def release(self) -> None:
        """Give back the memory of what was used; the values stay in the file."""
        if self._mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)


def _mapped(folder: Path, size: int) -> mmap.mmap | None:
    """A file of zeros; None where it cannot be made.

    Its room on the disk is taken at once: a disk that is full later would be no error that can be
    caught, but a signal that ends the process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Where a file cannot be made without a name, it has one for a moment: one that
        # `dspt.files.remove_abandoned` knows.
        with tempfile.TemporaryFile(dir=folder, prefix=".array.", suffix=".tmp") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                for start in range(0, size, _BLOCK):
                    file.write(bytes(min(_BLOCK, size - start)))
                file.flush()
            return mmap.mmap(file.fileno(), size)
    except OSError:
        return None
