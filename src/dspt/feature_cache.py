"""Features on disk, by the content of the picture: shards that are mapped, not loaded.

A cache of one view holds safetensors files, each with the SHA-256 of its pictures (``digests``, [n,
32]), their features ([n, D], fp32 or fp16) and, as metadata, the SHA-256 of the features; its name
is the SHA-256 of the digests. Opening a cache reads and checks only the digests. A shard's features
are mapped into memory and checked when the first of them is asked for, so every byte is read once
and only where it is needed; a shard that is damaged is removed, and its pictures count as unknown.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dspt.errors import UserError
from dspt.files import remove_abandoned, write_tensors

FeatureType = Literal["fp32", "fp16"]
SHARD_SIZE = 1024
CACHE_VERSION = "1"

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class FeatureCache:
    """Features of one view.

    Args:
        folder: of this image tower.
        view: 0 for the plain picture, v for its v-th augmentation.
        dtype: how values are stored. Each type has a folder of its own, and values are rounded when
            they are added, so it plays no part whether a value was on disk before.

    Attributes:
        damaged: shards that were found damaged and removed.
    """

    def __init__(self, folder: Path, view: int, dtype: FeatureType = "fp32") -> None:
        what = "picture" if view == 0 else f"crop-flip-{view}"
        half = "" if dtype == "fp32" else f"-{dtype}"
        self._folder = folder / f"v{CACHE_VERSION}-{what}{half}"
        self._dtype = _DTYPES[dtype]
        self.damaged: list[Path] = []
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._mapped: dict[Path, Tensor] = {}
        self._new: dict[bytes, Tensor] = {}
        self._indexed: set[Path] = set()
        remove_abandoned(self._folder)
        self.refresh()

    def refresh(self) -> None:
        """Take notice of what other processes have written meanwhile."""
        for shard in sorted(set(self._folder.glob("*.safetensors")) - self._indexed):
            self._index(shard)

    def __contains__(self, digest: bytes) -> bool:
        """Whether the feature is here and sound."""
        if digest in self._new:
            return True
        place = self._places.get(digest)
        return place is not None and (place[0] in self._mapped or self._map(place[0]))

    def add(self, digest: bytes, feature: Tensor) -> None:
        """Take a feature in, [D]; it is on disk after :meth:`flush` or enough others."""
        self._new[digest] = feature.to(self._dtype)
        if len(self._new) >= SHARD_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write what is new.

        Raises:
            UserError: when the folder cannot be written or gives back something else.
        """
        if not self._new:
            return
        digests = torch.tensor([list(digest) for digest in self._new], dtype=torch.uint8)
        values = torch.stack(list(self._new.values())).contiguous()
        # Named by content: processes that extract the same pictures write the same file.
        shard = self._folder / f"{_name(digests)}.safetensors"
        tensors = {"digests": digests, "features": values}
        write_tensors(shard, tensors, {"sha256": _sha256(values)})
        self._new.clear()
        self._index(shard)
        if not self._map(shard):
            raise UserError(f"{shard}: what was written cannot be read back; check the disk")

    def take(self, digests: Sequence[bytes]) -> Tensor:
        """Features of pictures that are here (``in`` has said so), [n, D] fp32."""
        rows_of: dict[Path | None, list[int]] = defaultdict(list)
        for row, digest in enumerate(digests):
            rows_of[None if digest in self._new else self._places[digest][0]].append(row)
        values: Tensor | None = None
        for shard, rows in rows_of.items():
            found = (
                torch.stack([self._new[digests[row]] for row in rows])
                if shard is None
                else self._mapped[shard][[self._places[digests[row]][1] for row in rows]]
            )
            if values is None:
                values = torch.empty(len(digests), found.shape[1])
            values[rows] = found.float()
        assert values is not None, "no picture asked for"
        return values

    def _index(self, shard: Path) -> None:
        """Note which pictures a shard holds."""
        self._indexed.add(shard)
        found = _read(shard, "digests")
        if (
            found is None
            or found.tensor.dtype != torch.uint8
            or found.tensor.shape[1:] != (32,)
            or _name(found.tensor) != shard.stem
        ):
            self._remove(shard)
            return
        raw = found.tensor.numpy().tobytes()
        for row in range(len(found.tensor)):
            self._places[raw[32 * row : 32 * (row + 1)]] = (shard, row)

    def _map(self, shard: Path) -> bool:
        """Map a shard's features and check them; forget and remove one that is damaged."""
        found = _read(shard, "features")
        if (
            found is not None
            and found.tensor.dtype == self._dtype
            and len(found.tensor) == found.rows
            and _sha256(found.tensor) == found.check
        ):
            self._mapped[shard] = found.tensor
            return True
        self._remove(shard)
        self._places = {key: place for key, place in self._places.items() if place[0] != shard}
        return False

    def _remove(self, shard: Path) -> None:
        """Remove what is damaged, and remember it; what another process removed is no damage."""
        self._indexed.discard(shard)
        if shard.is_file():
            self.damaged.append(shard)
        with contextlib.suppress(OSError):  # of a cache that may only be read
            shard.unlink()


@dataclass(frozen=True)
class _Stored:
    tensor: Tensor  # backed by the mapped file, not copied
    rows: int  # number of digests
    check: str | None


def _read(shard: Path, name: str) -> _Stored | None:
    """A tensor of a shard; None for a file that is damaged or gone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="pt") as stored:
            rows = int(stored.get_slice("digests").get_shape()[0])
            check = (stored.metadata() or {}).get("sha256")
            return _Stored(stored.get_tensor(name), rows, check)
    except (SafetensorError, FileNotFoundError, KeyError, IndexError):
        return None
    except OSError as error:
        raise UserError(f"{shard} cannot be read: {error}; mend or leave out --cache") from error


def _name(digests: Tensor) -> str:
    """Of the shard that holds these pictures."""
    return _sha256(digests)[:32]


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.numpy().data).hexdigest()
