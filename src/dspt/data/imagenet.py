"""ImageNet in CoOp's layout: `classnames.txt` and `images/train`, `images/val`.

Source: CoOp (Zhou et al. 2022), DATASETS.md and datasets/imagenet.py: every line of classnames.txt
is a folder name (WordNet id), a space and the class name; classes are numbered by the sorted
folder names, and the validation pictures are used for testing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dspt.data.class_folders import pictures_below
from dspt.data.dataset import ImageDataset
from dspt.data.paths import is_clean
from dspt.data.stores import FileImages
from dspt.data.text_lines import read_lines
from dspt.errors import UserError

CLASS_FILE = "classnames.txt"
SPLIT_FOLDERS = {"train": "images/train", "test": "images/val"}

# CLIP's list calls two pairs of classes the same; these are the WordNet names of the other ones.
_SECOND_NAMES = {"n04008634": "projectile", "n04355933": "sunglass"}


def is_imagenet(folder: Path) -> bool:
    """Whether the folder looks like this layout."""
    return (folder / CLASS_FILE).is_file() and (folder / SPLIT_FOLDERS["train"]).is_dir()


def read_imagenet(folder: Path, source: str) -> ImageDataset:
    """List the pictures of every class of classnames.txt.

    Two classes of one name are told apart: by the WordNet name for the two pairs in CLIP's list
    ("missile", "sunglasses"), by the folder's name in brackets otherwise.

    Raises:
        UserError: a class without folder or pictures, a folder that is no class, a bad line.
    """
    names = _class_names(folder / CLASS_FILE)
    paths: list[str] = []
    labels: list[int] = []
    splits: dict[str, np.ndarray] = {}
    for split, place in SPLIT_FOLDERS.items():
        root = folder / place
        if not root.is_dir():
            raise UserError(f"{source}: {place}/ is missing; put its class folders there")
        _check_folders(root, names)
        start = len(paths)
        for label, wnid in enumerate(names):
            files = sorted(
                path.relative_to(folder).as_posix() for path in pictures_below(root / wnid)
            )
            if not files:
                raise UserError(f"{root / wnid}: no picture in this class folder; unpack it again")
            odd = next((file for file in files if not is_clean(file)), None)
            if odd is not None:
                raise UserError(f"{folder}: file name {odd!a} holds odd characters; rename it")
            paths.extend(files)
            labels.extend([label] * len(files))
        splits[split] = np.arange(start, len(paths), dtype=np.int64)
    return ImageDataset(
        name=folder.resolve().name,
        source=source,
        class_names=_told_apart(names),
        images=FileImages(folder, paths, contained=False),
        labels=np.array(labels, dtype=np.int64),
        splits=splits,
    )


def _class_names(path: Path) -> dict[str, str]:
    """Class name by folder, sorted by folder."""
    names: dict[str, str] = {}
    for number, line in read_lines(path):
        wnid, _, name = line.partition(" ")
        if not name.strip() or not is_clean(line) or "/" in wnid or wnid.startswith("."):
            raise UserError(f'{path}, line {number}: must be "FOLDER CLASS NAME"')
        if wnid in names:
            raise UserError(f"{path}, line {number}: {wnid} occurs twice; keep one line")
        names[wnid] = name.strip().replace("_", " ")
    return dict(sorted(names.items()))


def _told_apart(names: dict[str, str]) -> tuple[str, ...]:
    found = list(names.values())
    double = (
        {name for name in found if found.count(name) > 1} if len(set(found)) < len(found) else ()
    )
    out: list[str] = []
    for wnid, name in names.items():
        if name in double and wnid in _SECOND_NAMES:
            name = _SECOND_NAMES[wnid]
        out.append(f"{name} ({wnid})" if name in out else name)
    return tuple(out)


def _check_folders(root: Path, names: dict[str, str]) -> None:
    found = {p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")}
    missing = [wnid for wnid in names if wnid not in found]
    extra = sorted(found - set(names))
    if missing:
        raise UserError(
            f"{root}: {len(missing)} of {len(names)} class folders are missing: {_some(missing)}; "
            "unpack them"
        )
    if extra:
        raise UserError(
            f"{root}: {len(extra)} folders are not in {CLASS_FILE}: {_some(extra)}; add their "
            "names there or move them away"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(name if is_clean(name) else ascii(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
