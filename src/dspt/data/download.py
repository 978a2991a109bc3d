"""Getting a data set through torchvision, into the layout that the readers expect.

torchvision does the downloading, the checksums and the unpacking, into a folder of its own beside
the goal; finished parts are then renamed into place, so that nothing half-made is ever found there.
What torchvision does not bring (CoOp's split files, human labels) is said, with where to get it.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dspt.data.human_labels import read_human_labels
from dspt.data.on_disk import DiskCheck, check_dataset
from dspt.data.registry import DatasetCard, dataset_card, find_root
from dspt.errors import UserError
from dspt.files import write_text
from dspt.progress import Progress, Silent

if TYPE_CHECKING:
    from PIL import Image

ROWS_PER_GROUP = 5000

# The official file of human labels, looked for in the data set's folder.
LABEL_FILES = {"cifar10n": "CIFAR-10_human.pt", "cifar100n": "CIFAR-100_human.pt"}


# Of torchvision's own words, in characters: they can name every address that was tried.
_LONGEST_REASON = 300


@dataclass(frozen=True)
class _Unpacked:
    """The folder below its root where torchvision leaves things, and which of them are kept."""

    folder: str
    parts: tuple[str, ...]
    needs: tuple[str, ...] = ()


_UNPACKED = {
    "caltech101": _Unpacked("caltech101", ("101_ObjectCategories",)),
    "oxford_pets": _Unpacked("oxford-iiit-pet", ("images", "annotations")),
    "oxford_flowers": _Unpacked("flowers-102", ("jpg", "imagelabels.mat", "setid.mat"), ("scipy",)),
    "food101": _Unpacked("food-101", ("images", "meta")),
    "fgvc_aircraft": _Unpacked(
        "fgvc-aircraft-2013b/data",
        (
            "images",
            "variants.txt",
            "images_variant_train.txt",
            "images_variant_val.txt",
            "images_variant_test.txt",
        ),
    ),
    "sun397": _Unpacked(".", ("SUN397",)),
    "dtd": _Unpacked("dtd/dtd", ("images", "imdb", "labels")),
    "eurosat": _Unpacked("eurosat", ("2750",)),
}


def get_dataset(
    name: str,
    root: str | Path,
    *,
    labels: Path | None = None,
    progress: Progress | None = None,
) -> DiskCheck:
    """Download what torchvision can, and look at what is there afterwards.

    What already lies in the data set's folder is kept as it is and not downloaded again.

    Args:
        name: of a registered data set.
        root: data root; created when missing.
        labels: for CIFAR-10N and CIFAR-100N the official file of human labels; None looks for it
            in the data set's folder.
        progress: where to report.

    Returns:
        The state of the data set on disk; it need not be complete (see ``problems``).

    Raises:
        UserError: an unknown name, a data set that torchvision cannot download (with where to get
            it), human labels that are absent or do not fit, no space, no network.
    """
    card = dataset_card(name)
    if labels is not None and card.name not in LABEL_FILES:
        raise UserError(f"labels: {card.title} has no file of human labels; leave it out")
    if card.torchvision is None:
        raise UserError(f"{card.name}: torchvision cannot download it; {how_to_get(card)}")
    place = Path(root).expanduser()
    folder = find_root(card.name, place) or place / card.folders[0]
    if card.name in LABEL_FILES:
        labels = labels or folder / LABEL_FILES[card.name]
        if not labels.is_file():
            raise UserError(
                f"{card.name}: no human labels at {labels}; download {LABEL_FILES[card.name]} from "
                f"{card.index_source} and name it with --labels"
            )
    parts = _UNPACKED[card.name].parts if card.name in _UNPACKED else card.index
    if any(not (folder / part).exists() for part in parts):
        (progress or Silent()).note(f"{card.title}: licence: {card.licence}; {card.source}")
        _fetch(card, place, folder, labels, progress or Silent())
    return check_dataset(card.name, place)


def how_to_get(card: DatasetCard) -> str:
    """Where a person gets the data set and where it goes."""
    extra = f" and {card.index_source}" if card.index_source else ""
    return f"get it from {card.source}{extra}, and lay it out as {card.layout}"


def _fetch(
    card: DatasetCard, root: Path, folder: Path, labels: Path | None, progress: Progress
) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{card.name}.", suffix=".part", dir=root))
    except OSError as error:
        raise UserError(f"cannot write into {root}: {error.strerror}") from error
    try:
        if card.name in _UNPACKED:
            unpacked = _UNPACKED[card.name]
            _need(card, unpacked.needs)
            _torchvision(card, staging)
            _move(staging / unpacked.folder, folder, unpacked.parts, card)
        else:
            made = staging / "made"
            made.mkdir()
            _make_tables(card, staging, made, labels, progress)
            # "train" last: a folder is taken for a data set once it is there.
            names = ("classes.txt", "test.parquet", "train.parquet")
            _move(made, folder, names, card)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _need(card: DatasetCard, modules: Sequence[str]) -> None:
    """Refuse before the download what torchvision would refuse after it."""
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise UserError(f"{card.name}: torchvision needs {module} for it; install {module}")


def _torchvision(card: DatasetCard, root: Path, **options: Any) -> Any:
    """The torchvision data set, downloaded into ``root``."""
    from torchvision import datasets

    make: Callable[..., Any] = getattr(datasets, card.torchvision or "")
    try:
        return make(root=str(root), download=True, **options)
    except Exception as error:  # urllib, zipfile, tarfile, gdown: whatever went wrong there
        line = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise UserError(
            f"{card.name}: torchvision could not download it: {line}; try again, or "
            f"{how_to_get(card)}"
        ) from error


def _move(unpacked: Path, folder: Path, parts: Sequence[str], card: DatasetCard) -> None:
    absent = [name for name in parts if not (unpacked / name).exists()]
    if absent:
        raise UserError(
            f"{card.name}: torchvision's download holds no {', '.join(absent)}; this version of "
            f"torchvision lays it out otherwise, so {how_to_get(card)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in parts:
        if not (folder / name).exists():
            os.replace(unpacked / name, folder / name)


def _make_tables(
    card: DatasetCard, staging: Path, made: Path, labels: Path | None, progress: Progress
) -> None:
    """Write a torchvision set of small pictures as Parquet tables with PNG bytes."""
    for split, train in (("test", False), ("train", True)):
        pictures = _torchvision(card, staging, train=train)
        columns = {"label": np.asarray(pictures.targets, dtype=np.int64)}
        if train and labels is not None:
            columns.update(
                read_human_labels(labels, card.noise_columns, columns["label"], card.num_classes)
            )
        _write_table(made / f"{split}.parquet", pictures, columns, f"writing {split}", progress)
    write_text(made / "classes.txt", "".join(f"{name}\n" for name in pictures.classes))


def _write_table(
    path: Path,
    pictures: Any,
    columns: dict[str, np.ndarray],
    description: str,
    progress: Progress,
) -> None:
    """Columns "image" (PNG bytes) and the label columns, int16."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = len(pictures)
    fields = [("image", pa.binary()), *((name, pa.int16()) for name in columns)]
    schema = pa.schema(fields)
    with progress.task(description) as advance, pq.ParquetWriter(path, schema) as writer:
        for start in range(0, total, ROWS_PER_GROUP):
            stop = min(start + ROWS_PER_GROUP, total)
            cells = {"image": [_png(pictures[i][0]) for i in range(start, stop)]}
            cells.update({name: values[start:stop].tolist() for name, values in columns.items()})
            writer.write_table(pa.table(cells, schema=schema))
            advance(stop, total)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
