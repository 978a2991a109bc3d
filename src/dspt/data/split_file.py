"""CoOp's layout: `split_zhou_<Name>.json` beside the pictures.

Source: CoOp (Zhou et al. 2022), DATASETS.md: `{"train": [[path, label, class name], ...], "val":
..., "test": ...}`, paths relative to an image root that differs from data set to data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dspt.data.dataset import SPLITS, ImageDataset, check_class_name
from dspt.data.paths import relative_path
from dspt.data.stores import FileImages
from dspt.data.tables import read_json_object
from dspt.errors import UserError

PREFIX = "split_zhou_"

IMAGE_ROOTS = (
    "101_ObjectCategories",
    "images",
    "jpg",
    "2750",
    "SUN397",
    "UCF-101-midframes",
)

# CoOp's hand-written templates, by the name in the split file.
TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}
DEFAULT_TEMPLATE = "a photo of a {}."


def find_split_files(folder: Path) -> list[Path]:
    """Split files that lie directly in the folder, sorted; reading says what is wrong with one."""
    return sorted(folder.glob(f"{PREFIX}*.json"))


def read_split_file(path: Path, source: str) -> ImageDataset:
    """Read one split file; pictures are not touched.

    Raises:
        UserError: naming the file and the row, for anything that is not the format above.
    """
    content = read_json_object(path)
    for split in content:
        if split not in SPLITS:
            raise UserError(f'{path}: "{split:.40}" is no split; name it train, val or test')
    paths: list[str] = []
    labels: list[int] = []
    names: dict[int, str] = {}
    seen: dict[str, str] = {}
    splits: dict[str, np.ndarray] = {}
    for split in SPLITS:
        rows = content.get(split, [])
        if not isinstance(rows, list):
            raise UserError(f'{path}: "{split}" must be a list of [path, label, class name]')
        for number, row in enumerate(rows):
            where = f'{path}, "{split}" row {number}'
            relative, label, name = _check_row(row, where)
            if relative in seen:
                raise UserError(
                    f"{where}: {relative} is listed twice, first in {seen[relative]}; keep one row"
                )
            seen[relative] = f'"{split}" row {number}'
            if names.setdefault(label, name) != name:
                raise UserError(
                    f'{where}: label {label} is called "{name}" here and "{names[label]}" before; '
                    "one label must have one name"
                )
            paths.append(relative)
            labels.append(label)
        if rows:
            splits[split] = np.arange(len(paths) - len(rows), len(paths), dtype=np.int64)
    if "train" not in splits:
        raise UserError(f'{path}: no "train" rows; a split file needs [path, label, class name]')
    if len(names) <= max(names):
        missing = next(label for label in range(len(names)) if label not in names)
        raise UserError(
            f"{path}: labels go up to {max(names)}, but no row has label {missing}; number the "
            "classes from 0 without gaps"
        )
    name = path.stem.removeprefix(PREFIX)
    return ImageDataset(
        name=name,
        source=source,
        class_names=tuple(names[label].replace("_", " ") for label in range(len(names))),
        images=FileImages(_image_root(path.parent, paths[0]), paths, contained=True),
        labels=np.array(labels, dtype=np.int64),
        splits=splits,
        template=TEMPLATES.get(name, DEFAULT_TEMPLATE),
    )


def _check_row(row: Any, where: str) -> tuple[str, int, str]:
    """Path, label and class name of a row."""
    if (
        not isinstance(row, list)
        or len(row) != 3
        or not isinstance(row[0], str)
        or not isinstance(row[1], int)
        or isinstance(row[1], bool)
        or not isinstance(row[2], str)
    ):
        raise UserError(f'{where}: must be [path, label, class name], as in ["a/1.jpg", 0, "cat"]')
    if not 0 <= row[1] < 10_000_000:
        raise UserError(f"{where}: label {row[1]} is out of range; number the classes from 0")
    check_class_name(row[2], where)
    return relative_path(row[0], where), row[1], row[2]


def _image_root(folder: Path, first: str) -> Path:
    """The folder that the paths are relative to: where the first picture is, else the usual one."""
    candidates = [folder / name for name in IMAGE_ROOTS if (folder / name).is_dir()]
    candidates.append(folder)
    for candidate in candidates:
        if (candidate / first).is_file():
            return candidate
    return candidates[0]
