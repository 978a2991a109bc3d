"""Where the picture with a digest is: an index that does not grow in memory.

The logarithmic method of Bentley and Saxe (1980): sorted runs, each more than twice as long as the
next; a new one is merged with those that are not. Of a digest a run holds the first eight bytes, so
what is found is to be compared with the whole digest. Large runs are in files without a name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dspt.large_arrays import LargeArray

IN_MEMORY = 1 << 20
"""Bytes of a run; larger ones are in files."""
PART = 1 << 16
"""Entries that are merged at once."""


class DigestIndex:
    """Digests and their places, numbers that the caller gives a meaning.

    Args:
        folder: on whose disk large runs lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[_Run] = []

    def add(self, digests: np.ndarray, first: int) -> None:
        """Take in digests, [n, 32] of uint8, that are at the places ``first`` and following."""
        heads = np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.uint64)
        order = heads.argsort(kind="stable")
        run = _Run(len(heads), self._folder)
        run.values[0], run.values[1] = heads[order], order + first
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = _merged(self._runs.pop(), run, self._folder)
        self._runs.append(run)
        for run in self._runs:
            run.release()

    def find(self, digest: bytes) -> Iterator[int]:
        """Places where it may be."""
        head = int.from_bytes(digest[:8], "big")
        for run in self._runs:
            at = bisect_left(run.heads, head)
            while at < len(run) and run.heads[at] == head:
                yield run.places[at]
                at += 1


class _Run(LargeArray):
    """``values``, [2, n]: the first bytes of digests as numbers, ascending, and their places."""

    def __init__(self, count: int, folder: Path) -> None:
        super().__init__((2, count), np.uint64, folder, in_memory=IN_MEMORY)
        # As Python's own, for `bisect`.
        self.heads, self.places = memoryview(self.values[0]), memoryview(self.values[1])

    def __len__(self) -> int:
        return len(self.heads)


def _merged(one: _Run, other: _Run, folder: Path) -> _Run:
    made = _Run(len(one) + len(other), folder)
    runs, parts = (one, other), len(made) // PART + 1
    starts, end = [0, 0], 0
    for part in range(1, parts + 1):
        # Digests are as good as random, so equal ranges hold about equally many.
        stops = [bisect_left(run.heads, (part << 64) // parts) for run in runs]
        pieces = [run.values[:, a:b] for run, a, b in zip(runs, starts, stops, strict=True)]
        piece = np.concatenate(pieces, axis=1)
        start, end = end, end + piece.shape[1]
        made.values[:, start:end] = piece[:, piece[0].argsort(kind="stable")]
        starts = stops
    return made
