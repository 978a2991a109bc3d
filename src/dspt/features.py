"""Image features: extracted once, cached by content.

The image tower is frozen, so a picture has one feature for ever. The cache is keyed by what decides
it: the tower's weights, structure, precision and preprocessing (the folder), and the bytes of the
picture and the view (the entry). Names, data sets and runs play no part, so nothing is ever reused
wrongly and everything is shared. Entries are written in shards as extraction goes on
(:mod:`dspt.feature_cache`): an interruption loses at most one batch, a kill at most one shard. One
process at a time extracts for a tower; others that need its pictures wait and then find them.

However many pictures there are, memory stays the same but for a few bytes a picture: what is read
and decoded ahead is a group or two, the cache keeps itself small, and features that are more than
:data:`IN_MEMORY` bytes lie in a file that has no name (:mod:`dspt.large_arrays`).

The bytes of every picture are read and hashed at every start. An index by path, size and times
would save that and would be wrong when a file is exchanged without a trace in them.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dspt.backbones import Backbone
from dspt.backbones.devices import clear_memory_errors
from dspt.data.dataset import ImageStore
from dspt.data.images import UnreadableImage, open_image
from dspt.errors import UserError
from dspt.feature_cache import FeatureCache, FeatureType
from dspt.files import locked
from dspt.large_arrays import LargeArray
from dspt.seeding import keyed_uint64

if TYPE_CHECKING:
    from PIL.Image import Image

IN_MEMORY = 128 << 20
RELEASED = 4096
"""Rows after which the memory of what lies in a file is given back."""

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a list of pictures.

    Attributes:
        values: L2-normalised features, [n, V, D] fp32; view 0 is the plain picture. On a CPU large
            ones are in a mapped file on the disk of the cache, which goes with them.
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


def group_size(device: torch.device) -> int:
    """Pictures that are decoded together.

    On a CPU decoding and the tower want the same cores, and a tower whose threads wait for one that
    was pushed aside loses far more than the decoding takes. So they take turns: a group is decoded
    on all cores, then encoded on all cores. Beside a GPU the next group is decoded meanwhile.
    """
    return batch_size(device) * (1 if device.type == "cuda" else 16)


def extract_features(
    backbone: Backbone,
    images: ImageStore,
    indices: Sequence[int] | np.ndarray,
    *,
    views: int = 0,
    cache: Path | None = None,
    dtype: FeatureType = "fp32",
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    strict: bool = False,
) -> ImageFeatures:
    """Features of the pictures ``indices``, from the cache where they are in it.

    Args:
        backbone: gives the image tower and its preprocessing.
        images: where the pictures are.
        indices: which ones, n of them.
        views: number of augmented views beside the plain picture (random resized crop and flip,
            CoOp's augmentation); view v of a picture is always the same one.
        cache: folder; None for :func:`default_cache`.
        dtype: how the cache stores features. fp16 halves its size; the values are rounded whether
            they were in the cache before or not, so a result does not depend on that.
        workers: threads that read, and threads that decode; default one per processor.
        on_progress: called with (pictures done, n).
        on_note: told in one line when a part of the cache was damaged and made again.
        strict: refuse the first picture that cannot be read, instead of leaving it out.

    Returns:
        Features [n, 1 + views, D], fp32 on the backbone's device.

    Raises:
        UserError: when the memory of the device is too small, the cache cannot be written, or the
            tower gives something that is not finite; if ``strict``, for an unreadable picture.
    """
    folder = (cache or default_cache()) / "features" / backbone.image_fingerprint[:32]
    caches = [FeatureCache(folder, view, dtype) for view in range(1 + views)]
    workers = workers or os.cpu_count() or 1
    n, group = len(indices), group_size(backbone.device)
    shape = (n, 1 + views, backbone.embed_dim)
    made = LargeArray(shape, np.float32, caches[0].folder, in_memory=IN_MEMORY)
    readable = np.zeros(n, dtype=bool)
    problems: dict[int, str] = {}
    unknown: dict[bytes, _Picture] = {}  # by content, so the same picture is encoded once
    done = 0
    alone = contextlib.ExitStack()

    def finished(pictures: int) -> None:
        nonlocal done
        for _ in range(pictures):
            done += 1
            if done % RELEASED == 0:
                made.release()
            if on_progress:
                on_progress(done, n)

    def read(index: int) -> tuple[str, bytes, bytes] | UserError:
        try:
            data = images.read(index)
        except UserError as error:
            return error
        return images.key(index), data, hashlib.sha256(data).digest()

    def unreadable(row: int, error: UserError) -> None:
        if strict:
            raise error
        problems[row] = str(error)

    def keep(row: int, features: list[np.ndarray | None]) -> None:
        for view, feature in enumerate(features):
            made.values[row, view] = feature
        readable[row] = True

    def in_cache(digest: bytes) -> list[np.ndarray | None]:
        return [known.get(digest) for known in caches]

    def unknown_groups() -> Iterator[list[_Picture]]:
        locks = iter([folder / "extraction.lock"])  # taken once, for the first unknown picture
        waiting: list[_Picture] = []
        again = 0
        for row, found in enumerate(_ahead(readers, read, map(int, indices), group)):
            if isinstance(found, UserError):
                unreadable(row, found)
                finished(1)
                continue
            key, data, digest = found
            if digest in unknown:
                unknown[digest].places.append((row, key))
                again += 1
            else:
                features = in_cache(digest)
                if _missing(features) and (lock := next(locks, None)) is not None:
                    alone.enter_context(locked(lock))
                    for known in caches:
                        known.refresh()
                    features = in_cache(digest)
                if _missing(features):
                    unknown[digest] = _Picture(digest, data, features, [(row, key)])
                    waiting.append(unknown[digest])
                else:
                    keep(row, features)
                    finished(1)
            if len(waiting) == group or again == RELEASED:
                yield waiting
                waiting, again = [], 0
        yield waiting

    def decode(picture: _Picture) -> list[Tensor] | None:
        try:
            shown = open_image(picture.data, picture.places[0][1])
        except UnreadableImage:
            return None
        return [
            prepare.picture(augment(shown, picture.digest, view) if view else shown)
            for view in _missing(picture.features)
        ]

    def decode_group(pictures: list[_Picture]) -> list[Future[list[Tensor] | None]]:
        return [decoders.submit(decode, picture) for picture in pictures]

    prepare = _Preparation.of(backbone)
    with (
        alone,
        ThreadPoolExecutor(workers) as readers,
        ThreadPoolExecutor(workers) as decoders,
    ):
        try:
            meanwhile = 1 if backbone.device.type == "cuda" else 0
            for pictures, futures in _started(unknown_groups(), decode_group, meanwhile):
                decoded = [future.result() for future in futures]
                tensors = [tensor for item in decoded for tensor in item or ()]
                encoded = _encoded(backbone, prepare, tensors)
                for picture, item in zip(pictures, decoded, strict=True):
                    if item is None:
                        for row, key in picture.places:
                            unreadable(row, _problem(picture.data, key))
                    else:
                        features = picture.features
                        for view in _missing(features):
                            features[view] = caches[view].add(picture.digest, next(encoded))
                        for row, _ in picture.places:
                            keep(row, features)
                    del unknown[picture.digest]
                    finished(len(picture.places))
        finally:
            readers.shutdown(wait=False, cancel_futures=True)
            decoders.shutdown(wait=False, cancel_futures=True)
            for known in caches:
                known.flush()
    damaged = [shard for known in caches for shard in known.damaged]
    if damaged and on_note:
        on_note(
            f"image features: {len(damaged)} damaged files of the cache were removed and what was "
            f"asked for was computed again; the first: {damaged[0]}"
        )
    made.release()
    values = torch.from_numpy(made.values).to(backbone.device)
    return ImageFeatures(values, readable, [problems[row] for row in sorted(problems)])


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


@dataclass(frozen=True)
class _Picture:
    """One that is not in the cache."""

    digest: bytes
    data: bytes
    features: list[np.ndarray | None]  # by view; None for those that are missing
    places: list[tuple[int, str]] = field(default_factory=list)  # (row, key), every one


def _missing(features: Sequence[np.ndarray | None]) -> list[int]:
    """Views without a feature."""
    return [view for view, feature in enumerate(features) if feature is None]


def _problem(data: bytes, key: str) -> UnreadableImage:
    """Why a picture cannot be read, under the name that it has at this place."""
    try:
        open_image(data, key)
    except UnreadableImage as error:
        return error
    raise AssertionError(f"picture {key} was unreadable a moment ago")


@dataclass(frozen=True)
class _Preparation:
    """The model's preprocessing in two parts: of one picture, and of a batch.

    open_clip's ends with scaling to [0, 1] and normalising. Both act on every value by itself, so
    they are the same numbers for a batch at once, in the tower's own threads; what decoding threads
    hand over is bytes, a quarter of the size. Any other preprocessing is left whole.

    Attributes:
        picture: image -> [3, height, width], uint8 where ``mean`` is given.
        mean, std: [3, 1, 1], or None when ``picture`` does everything.
    """

    picture: Callable[[Image], Tensor]
    mean: Tensor | None = None
    std: Tensor | None = None

    @classmethod
    def of(cls, backbone: Backbone) -> _Preparation:
        from torchvision.transforms import Compose, Normalize, ToTensor

        whole: Any = backbone.preprocess
        if type(whole) is not Compose or len(whole.transforms) < 2:
            return cls(whole)
        *first, to_tensor, normalize = whole.transforms
        if not isinstance(to_tensor, ToTensor) or type(normalize) is not Normalize:
            return cls(whole)
        shaping = Compose(first)

        def picture(image: Image) -> Tensor:
            return torch.from_numpy(np.array(shaping(image))).permute(2, 0, 1)

        mean, std = (
            torch.as_tensor(values, device=backbone.device)[:, None, None]
            for values in (normalize.mean, normalize.std)
        )
        return cls(picture, mean, std)

    def batch(self, pictures: list[Tensor], device: torch.device) -> Tensor:
        """[n, 3, height, width] fp32 from what ``picture`` gave."""
        batch = torch.stack(pictures)
        if self.mean is None or self.std is None:
            return batch
        return batch.to(device).float().div_(255).sub_(self.mean).div_(self.std)


def _encoded(backbone: Backbone, prepare: _Preparation, pictures: list[Tensor]) -> Iterator[Tensor]:
    """Features, [D] each, batch by batch.

    Always in batches of one size, the last filled up with zeros: a library may compute a small
    batch by another algorithm, and a picture's feature must not depend, not even in its last bit,
    on which others happened to be in the cache already.
    """
    size = batch_size(backbone.device)
    for start in range(0, len(pictures), size):
        part = pictures[start : start + size]
        with clear_memory_errors(
            "image features", "take a smaller backbone, --precision bf16 or --device cpu"
        ):
            batch = prepare.batch(part, backbone.device)
            filled = torch.cat([batch, batch.new_zeros(size - len(part), *batch.shape[1:])])
            rows = backbone.encode_image(filled)[: len(part)].cpu()
        yield from rows


def _ahead(
    pool: ThreadPoolExecutor, call: Callable[[_Given], _Made], given: Iterable[_Given], ahead: int
) -> Iterator[_Made]:
    """Results in order; at most ``ahead`` of them are there or under way beforehand."""
    for _, future in _started(given, lambda item: pool.submit(call, item), ahead):
        yield future.result()


def _started(
    given: Iterable[_Given], start: Callable[[_Given], _Made], ahead: int
) -> Iterator[tuple[_Given, _Made]]:
    """(item, what ``start`` made of it), with ``ahead`` more of them started already."""
    waiting: deque[tuple[_Given, _Made]] = deque()
    for item in given:
        waiting.append((item, start(item)))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
