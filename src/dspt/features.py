"""Image features: extracted once, cached by content.

The image tower is frozen, so a picture has one feature for ever. The cache is keyed by what decides
it: the tower's weights, precision and preprocessing (the folder), and the bytes of the picture and
the view (the entry). Names, data sets and runs play no part, so nothing is ever reused wrongly and
everything is shared. Entries are written in shards as extraction goes on; an interrupted extraction
loses at most one shard.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dspt.backbones import Backbone
from dspt.data.dataset import ImageStore
from dspt.data.images import UnreadableImage, open_image
from dspt.files import atomic_path
from dspt.seeding import keyed_uint64

if TYPE_CHECKING:
    from PIL.Image import Image

SHARD_SIZE = 1024
CACHE_VERSION = "1"


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a list of pictures.

    Attributes:
        values: L2-normalised features, [n, V, D] fp32; view 0 is the plain picture.
        readable: [n] of bool; rows of unreadable pictures are zero.
        unreadable: one line per picture that could not be read.
    """

    values: Tensor
    readable: np.ndarray
    unreadable: list[str]


def batch_size(device: torch.device) -> int:
    """Pictures per forward pass of the image tower.

    Few on a CPU: with 32, a convolution's output is a fresh block of a hundred megabytes that the
    system zeroes page by page every time; with 4 the allocator uses the same memory again.
    """
    return 128 if device.type == "cuda" else max(4, 2 * torch.get_num_threads())


def default_cache() -> Path:
    """``$DSPT_CACHE``, else ``dspt`` in the user's cache folder."""
    if os.environ.get("DSPT_CACHE"):
        return Path(os.environ["DSPT_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dspt"


def extract_features(
    backbone: Backbone,
    images: ImageStore,
    indices: Sequence[int] | np.ndarray,
    *,
    views: int = 0,
    cache: Path | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageFeatures:
    """Features of the pictures ``indices``, from the cache where they are in it.

    Args:
        backbone: gives the image tower and its preprocessing.
        images: where the pictures are.
        indices: which ones, n of them.
        views: number of augmented views beside the plain picture (random resized crop and flip,
            CoOp's augmentation); view v of a picture is always the same one.
        cache: folder; None for :func:`default_cache`.
        workers: threads that read and decode; default one per processor.
        on_progress: called with (pictures done, n).

    Returns:
        Features [n, 1 + views, D] on the backbone's device.
    """
    folder = (cache or default_cache()) / "features" / backbone.image_fingerprint[:32]
    batch = batch_size(backbone.device)
    stores = [_ViewCache(folder / _view_name(view)) for view in range(1 + views)]
    n, dim = len(indices), backbone.embed_dim
    values = torch.zeros(n, 1 + views, dim)
    problems: list[str] = []

    def load(job: tuple[int, int]) -> _Loaded:
        row, index = job
        key = images.key(index)
        data = images.read(index)
        digest = hashlib.sha256(data).digest()
        missing = [view for view, store in enumerate(stores) if digest not in store]
        tensors = []
        if missing:
            try:
                picture = open_image(data, key)
            except UnreadableImage as error:
                return _Loaded(row, digest, [], [], str(error))
            tensors = [
                backbone.preprocess(augment(picture, digest, view) if view else picture)
                for view in missing
            ]
        return _Loaded(row, digest, missing, tensors, None)

    digests: list[bytes | None] = [None] * n
    waiting: dict[bytes, _Loaded] = {}  # by content, so the same picture is encoded once

    def encode() -> None:
        if not waiting:
            return
        tensors = [tensor for item in waiting.values() for tensor in item.tensors]
        encoded = iter(_encode(backbone, tensors, batch))
        for item in waiting.values():
            for view in item.views:
                stores[view].add(item.digest, next(encoded))
        waiting.clear()

    jobs = [(row, int(index)) for row, index in enumerate(indices)]
    try:
        for done, item in enumerate(
            _in_parallel(load, jobs, workers or os.cpu_count() or 1, 2 * batch), 1
        ):
            if item.problem is None:
                digests[item.row] = item.digest
                if any(item.digest not in stores[view] for view in item.views):
                    waiting.setdefault(item.digest, item)
                    if sum(len(other.tensors) for other in waiting.values()) >= batch:
                        encode()
            else:
                problems.append(item.problem)
            if on_progress:
                on_progress(done, n)
        encode()
    finally:
        for store in stores:
            store.flush()
    for row, digest in enumerate(digests):
        if digest is not None:
            for view, store in enumerate(stores):
                values[row, view] = store.get(digest)
    readable = np.array([digest is not None for digest in digests], dtype=bool)
    return ImageFeatures(values.to(backbone.device), readable, problems)


def augment(picture: Image, digest: bytes, view: int) -> Image:
    """CoOp's augmentation: a random resized crop (8 to 100 % of the area) and a random flip.

    Drawn from the picture's content and the view's number alone, so views are cached once for all
    runs. The crop is left at its own size; the model's preprocessing resizes it.

    Source: the distribution of torchvision's ``RandomResizedCrop`` (area uniform in [0.08, 1],
    aspect ratio log-uniform in [3/4, 4/3], ten tries, then the central crop).
    """
    from PIL.Image import Resampling, Transpose

    draws = iter(
        keyed_uint64(view, f"augment/{digest.hex()}", range(41)).astype(np.float64) / 2.0**64
    )
    width, height = picture.size
    flip = next(draws) < 0.5
    box = None
    for _ in range(10):
        area = width * height * (0.08 + 0.92 * next(draws))
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * next(draws))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        x, y = next(draws), next(draws)
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            box = (left, top, left + w, top + h)
            break
    if box is None:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    crop = picture.crop(box)
    # The preprocessing keeps the aspect ratio; a resized crop does not, so it is squared here.
    side = max(crop.size)
    crop = crop.resize((side, side), Resampling.BICUBIC)
    return crop.transpose(Transpose.FLIP_LEFT_RIGHT) if flip else crop


def _encode(backbone: Backbone, tensors: list[Tensor], batch: int) -> Tensor:
    """Features of preprocessed pictures, [n, D].

    Always in batches of one size, the last filled up with zeros: a library may compute a small
    batch by another algorithm, and a picture's feature must not depend, not even in its last bit,
    on which others happened to be in the cache already.
    """
    rows = []
    for start in range(0, len(tensors), batch):
        part = tensors[start : start + batch]
        filled = torch.zeros(batch, *part[0].shape)
        filled[: len(part)] = torch.stack(part)
        rows.append(backbone.encode_image(filled)[: len(part)].cpu())
    return torch.cat(rows)


@dataclass(frozen=True)
class _Loaded:
    row: int
    digest: bytes
    views: list[int]  # those that are not in the cache, one tensor each
    tensors: list[Tensor]
    problem: str | None


def _in_parallel(
    load: Callable[[tuple[int, int]], _Loaded],
    jobs: list[tuple[int, int]],
    workers: int,
    ahead: int,
) -> Iterator[_Loaded]:
    """Results in order; at most ``ahead`` pictures wait besides those being worked on."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Loaded]] = deque()
        remaining = iter(jobs)
        for job in itertools.islice(remaining, ahead + workers):
            waiting.append(pool.submit(load, job))
        try:
            while waiting:
                yield waiting.popleft().result()
                for job in itertools.islice(remaining, 1):
                    waiting.append(pool.submit(load, job))
        finally:
            for future in waiting:
                future.cancel()


def _view_name(view: int) -> str:
    return f"v{CACHE_VERSION}-picture" if view == 0 else f"v{CACHE_VERSION}-crop-flip-{view}"


class _ViewCache:
    """Features of one view, by SHA-256 of the picture's bytes, in safetensors shards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[bytes, Tensor] = {}
        self._new: dict[bytes, Tensor] = {}
        if folder.is_dir():
            for shard in sorted(folder.glob("*.safetensors")):
                self._read(shard)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def get(self, digest: bytes) -> Tensor:
        return self._known[digest]

    def add(self, digest: bytes, feature: Tensor) -> None:
        self._known[digest] = feature
        self._new[digest] = feature
        if len(self._new) >= SHARD_SIZE:
            self.flush()

    def flush(self) -> None:
        if not self._new:
            return
        from safetensors.torch import save_file

        digests = torch.tensor([list(digest) for digest in self._new], dtype=torch.uint8)
        values = torch.stack(list(self._new.values())).contiguous()
        # Named by content: processes that extract the same pictures write the same file.
        name = hashlib.sha256(digests.numpy().tobytes()).hexdigest()[:32]
        check = hashlib.sha256(values.numpy().tobytes()).hexdigest()
        with atomic_path(self._folder / f"{name}.safetensors") as temporary:
            save_file(
                {"digests": digests, "features": values}, temporary, metadata={"sha256": check}
            )
        self._new.clear()

    def _read(self, shard: Path) -> None:
        """Take in a shard; one that is damaged is removed, and its pictures are extracted again."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(shard, framework="pt") as stored:
                digests, values = stored.get_tensor("digests"), stored.get_tensor("features")
                check = (stored.metadata() or {}).get("sha256")
        except (SafetensorError, OSError, KeyError):
            check = values = digests = None
        if values is None or hashlib.sha256(values.numpy().tobytes()).hexdigest() != check:
            shard.unlink(missing_ok=True)
            return
        raw = digests.numpy()
        for row in range(len(raw)):
            self._known[raw[row].tobytes()] = values[row]
