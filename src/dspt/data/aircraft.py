"""FGVC-Aircraft as its archive holds it, by variant: `variants.txt`, `images_variant_*.txt`.

Source: Maji et al. 2013; CoOp's datasets/fgvc_aircraft.py reads the same files: classes are
numbered by their line in variants.txt, and a line of images_variant_<split>.txt is a picture's
number, a space and the variant.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dspt.data.dataset import SPLITS, ImageDataset
from dspt.data.paths import relative_path
from dspt.data.split_file import TEMPLATES
from dspt.data.stores import FileImages
from dspt.data.text_lines import read_lines
from dspt.errors import UserError

VARIANTS = "variants.txt"


def is_aircraft(folder: Path) -> bool:
    """Whether the folder looks like this layout."""
    return (folder / VARIANTS).is_file() and (folder / "images_variant_train.txt").is_file()


def read_aircraft(folder: Path, source: str) -> ImageDataset:
    """Read the three lists; pictures are not touched.

    Raises:
        UserError: naming file and line, for a missing file, an unknown variant, a picture that is
            listed twice.
    """
    names = [line for _, line in read_lines(folder / VARIANTS)]
    codes = {name: label for label, name in enumerate(names)}
    paths: list[str] = []
    labels: list[int] = []
    seen: dict[str, str] = {}
    splits: dict[str, np.ndarray] = {}
    for split in SPLITS:
        path = folder / f"images_variant_{split}.txt"
        start = len(paths)
        for number, line in read_lines(path):
            where = f"{path}, line {number}"
            picture, _, variant = line.partition(" ")
            if variant not in codes:
                raise UserError(f"{where}: {variant!r} is not in {VARIANTS}; download both again")
            relative = relative_path(f"{picture}.jpg", where)
            if relative in seen:
                raise UserError(f"{where}: {relative} is listed twice, first in {seen[relative]}")
            seen[relative] = where
            paths.append(relative)
            labels.append(codes[variant])
        splits[split] = np.arange(start, len(paths), dtype=np.int64)
    return ImageDataset(
        name=folder.resolve().name,
        source=source,
        class_names=tuple(names),
        images=FileImages(folder / "images", paths, contained=True),
        labels=np.array(labels, dtype=np.int64),
        splits=splits,
        template=TEMPLATES["FGVCAircraft"],
    )
