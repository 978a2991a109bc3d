"""Features on disk, by the content of the picture: shards that are mapped, not loaded.

A cache of one view holds safetensors files, each with the SHA-256 of its pictures (``digests``, [n,
32]), their features ([n, D], fp32 or fp16) and, as metadata, the SHA-256 of the features; its name
is the SHA-256 of the digests. Opening a cache reads and checks only the digests. A shard's features
are mapped into memory and checked when the first of them is asked for, so every byte is read once
and only where it is needed; a shard that is damaged is removed, and its pictures count as unknown.

Memory does not grow with the number of pictures but by a byte or two for each: the index is in a
file of its own (:mod:`dspt.digest_index`), and :data:`MAPPED` shards are mapped at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dspt.digest_index import DigestIndex
from dspt.errors import UserError
from dspt.files import remove_abandoned, write_tensors

FeatureType = Literal["fp32", "fp16"]
SHARD_SIZE = 1024
MAPPED = 16
CACHE_VERSION = "1"

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_STORED: dict[str, tuple[str, np.dtype[Any]]] = {
    "fp32": ("F32", np.dtype(np.float32)),
    "fp16": ("F16", np.dtype(np.float16)),
}
_AT_ONCE = 64  # shards whose digests are sorted together


class FeatureCache:
    """Features of one view.

    Args:
        folder: of this image tower.
        view: 0 for the plain picture, v for its v-th augmentation.
        dtype: how values are stored. Each type has a folder of its own, and values are rounded when
            they are added, so it plays no part whether a value was on disk before.

    Attributes:
        folder: of this view.
        damaged: shards that were found damaged and removed.
    """

    def __init__(self, folder: Path, view: int, dtype: FeatureType = "fp32") -> None:
        what = "picture" if view == 0 else f"crop-flip-{view}"
        half = "" if dtype == "fp32" else f"-{dtype}"
        self.folder = folder / f"v{CACHE_VERSION}-{what}{half}"
        self.damaged: list[Path] = []
        self._dtype = dtype
        self._new: dict[bytes, np.ndarray] = {}
        self._files: set[str] = set()  # names of shards that were looked at
        self._shards: list[_Shard] = []
        self._firsts: list[int] = []  # place of each shard's first picture, ascending
        self._count = 0
        self._places = DigestIndex(self.folder)
        self._mapped: dict[str, _Mapped] = {}
        remove_abandoned(self.folder)
        self.refresh()

    def refresh(self) -> None:
        """Take notice of what other processes have written meanwhile."""
        found = {path.name for path in self.folder.glob("*.safetensors")}
        new = sorted(found - self._files)
        for start in range(0, len(new), _AT_ONCE):
            self._index(new[start : start + _AT_ONCE])

    def get(self, digest: bytes) -> np.ndarray | None:
        """The feature, [D] fp32 or fp16, if it is here and sound."""
        if (new := self._new.get(digest)) is not None:
            return new
        for place in self._places.find(digest):
            shard = self._shards[bisect_right(self._firsts, place) - 1]
            mapped = self._mapped.get(shard.name) or self._map(shard)
            row = place - shard.first
            if mapped is not None and mapped.digests[row].tobytes() == digest:
                return mapped.features[row]
        return None

    def add(self, digest: bytes, feature: Tensor) -> np.ndarray:
        """Take a feature in, [D]; it is on disk after :meth:`flush` or enough others.

        Returns:
            What :meth:`get` will give.
        """
        stored: np.ndarray = feature.to(_DTYPES[self._dtype]).numpy()
        self._new[digest] = stored
        if len(self._new) >= SHARD_SIZE:
            self.flush()
        return stored

    def flush(self) -> None:
        """Write what is new.

        Raises:
            UserError: when the folder cannot be written or gives back something else.
        """
        if not self._new:
            return
        digests = torch.frombuffer(bytearray(b"".join(self._new)), dtype=torch.uint8).view(-1, 32)
        values = torch.from_numpy(np.stack(list(self._new.values())))
        # Named by content: processes that extract the same pictures write the same file.
        shard = self.folder / f"{_name(digests.numpy())}.safetensors"
        tensors = {"digests": digests, "features": values}
        write_tensors(shard, tensors, {"sha256": _sha256(values.numpy())})
        self._new.clear()
        self._index([shard.name])
        last = self._shards[-1] if self._shards else None
        if last is None or last.name != shard.name or self._map(last) is None:
            raise UserError(f"{shard}: what was written cannot be read back; check the disk")

    def _index(self, names: Sequence[str]) -> None:
        """Note which pictures these shards hold."""
        first, digests = self._count, []
        for name in names:
            self._files.add(name)
            found = _read(self.folder / name, self._dtype, self._count)
            if found is None:
                self._remove(name)
                continue
            self._shards.append(found[0])
            self._firsts.append(self._count)
            self._count += len(found[1])
            digests.append(found[1])
        if digests:
            self._places.add(np.concatenate(digests), first)

    def _map(self, shard: _Shard) -> _Mapped | None:
        """Map a shard, and check its features the first time; remove one that is damaged."""
        if shard.lost:
            return None
        opened = _open(self.folder / shard.name, shard, self._dtype)
        if opened is not None:
            mapped, state = opened
            if state == shard.checked or _sha256(mapped.features) == shard.sha256:
                shard.checked = state
                if len(self._mapped) >= MAPPED:
                    del self._mapped[next(iter(self._mapped))]
                self._mapped[shard.name] = mapped
                return mapped
        shard.lost = True
        self._remove(shard.name)
        return None

    def _remove(self, name: str) -> None:
        """Remove what is damaged, and remember it; what another process removed is no damage."""
        shard = self.folder / name
        if shard.is_file():
            self.damaged.append(shard)
        with contextlib.suppress(OSError):  # of a cache that may only be read
            shard.unlink()
        if not shard.is_file():
            self._files.discard(name)


@dataclass(slots=True)
class _Shard:
    """What is known of a shard without its pictures.

    Attributes:
        name: of the file.
        first: place of its first picture.
        rows: number of pictures.
        width: of a feature.
        digests, features: where they begin in the file, bytes.
        sha256: of the features.
        checked: identity of the file whose features were found sound.
        lost: whether the file was damaged or is gone.
    """

    name: str
    first: int
    rows: int
    width: int
    digests: int
    features: int
    sha256: str | None
    checked: tuple[int, int, int] | None = None
    lost: bool = False


@dataclass(frozen=True)
class _Mapped:
    """A shard in memory, backed by its file: ``digests`` [n, 32], ``features`` [n, D]."""

    digests: np.ndarray
    features: np.ndarray


def _read(path: Path, dtype: FeatureType, first: int) -> tuple[_Shard, np.ndarray] | None:
    """A shard and its digests, [n, 32]; None for a file that is damaged or gone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:  # checks the header against the file
            found = stored.get_tensor("digests")
            features = stored.get_slice("features")
            kind, shape = features.get_dtype(), features.get_shape()
            check = (stored.metadata() or {}).get("sha256")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        digests_at, features_at = (
            8 + length + header[name]["data_offsets"][0] for name in ("digests", "features")
        )
    except (SafetensorError, FileNotFoundError, LookupError, ValueError, RecursionError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}; mend or leave out --cache") from error
    if found.dtype != torch.uint8 or found.shape[1:] != (32,) or kind != _STORED[dtype][0]:
        return None
    digests = found.numpy().copy()
    if len(shape) != 2 or shape[0] != len(digests) or _name(digests) != path.stem:
        return None
    rows, width = shape
    return _Shard(path.name, first, rows, width, digests_at, features_at, check), digests


def _open(
    path: Path, shard: _Shard, dtype: FeatureType
) -> tuple[_Mapped, tuple[int, int, int]] | None:
    """A shard's file, mapped, and its identity; None when it is too short or gone."""
    kind = _STORED[dtype][1]
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        digests = np.frombuffer(mapping, np.uint8, 32 * shard.rows, shard.digests)
        features = np.frombuffer(mapping, kind, shard.rows * shard.width, shard.features)
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}; mend or leave out --cache") from error
    shape = shard.rows, shard.width
    mapped = _Mapped(digests.reshape(-1, 32), features.reshape(shape))
    return mapped, (status.st_ino, status.st_size, status.st_mtime_ns)


def _name(digests: np.ndarray) -> str:
    """Of the shard that holds these pictures."""
    return _sha256(digests)[:32]


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.data).hexdigest()
