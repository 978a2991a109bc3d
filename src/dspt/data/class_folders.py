"""One folder a class, with or without train/, val/ and test/ above."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dspt.data.dataset import ImageDataset
from dspt.data.paths import IMAGE_SUFFIXES, printable
from dspt.data.stores import FileImages
from dspt.errors import UserError

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_SPLIT_NAMES = {name for names in SPLIT_FOLDERS.values() for name in names}


def holds_class_folders(folder: Path) -> bool:
    """Whether some picture lies in a subfolder."""
    return any(next(pictures_below(sub), None) is not None for sub in _subfolders(folder))


def read_class_folders(folder: Path, source: str) -> ImageDataset:
    """List the pictures; class names are the folders' names with "_" as a space.

    Hidden files and folders are ignored, and so are files that are no pictures. Classes and
    pictures are sorted by name, so the order does not depend on the file system. In keys,
    control characters and stray bytes of file names are escaped.

    Raises:
        UserError: a class folder without pictures, classes that differ between the splits, two
            folders for the same split.
    """
    roots = _split_roots(folder)
    found = {split: _list_classes(root) for split, root in roots.items()}
    classes = list(found["train"])
    for split, by_class in found.items():
        _check_same_classes(folder, roots, split, classes, list(by_class))

    paths: list[str] = []
    labels: list[int] = []
    splits: dict[str, np.ndarray] = {}
    for split, by_class in found.items():
        start = len(paths)
        for label, files in enumerate(by_class.values()):
            for file in files:
                paths.append(file.relative_to(folder).as_posix())
                labels.append(label)
        splits[split] = np.arange(start, len(paths), dtype=np.int64)
    keys = [printable(path) for path in paths]
    if len(set(keys)) < len(keys):  # a name that looks like another's escaped form
        twice = next(key for key, n in Counter(keys).items() if n > 1)
        raise UserError(f"{folder}: two file names are written {twice!r}; rename one")
    return ImageDataset(
        name=printable(folder.resolve().name),
        source=source,
        class_names=tuple(name.replace("_", " ") for name in classes),
        images=FileImages(folder, paths, contained=False, keys=keys),
        labels=np.array(labels, dtype=np.int64),
        splits=splits,
    )


def _split_roots(folder: Path) -> dict[str, Path]:
    """The folder of each split; the folder itself is "train" when it holds the classes directly.

    A class may be called "train" too: only a folder with subfolders and no picture of its own is
    taken for a split.
    """
    roots: dict[str, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        present = [folder / name for name in names if _is_split(folder / name)]
        if len(present) > 1:
            raise UserError(
                f"{folder}: both {present[0].name}/ and {present[1].name}/; keep one of them"
            )
        if present:
            roots[split] = present[0]
    if not roots:
        classes = [sub.name for sub in _subfolders(folder)]
        if set(classes) <= _SPLIT_NAMES:
            raise UserError(
                f"{folder}: {', '.join(classes)} must hold one folder a class, not pictures"
            )
        return {"train": folder}
    if "train" not in roots:
        names_found = ", ".join(f"{root.name}/" for root in roots.values())
        raise UserError(f"{folder}: has {names_found} but no train/ with class folders; add it")
    for sub in _subfolders(folder):
        if sub not in roots.values() and next(pictures_below(sub), None) is not None:
            raise UserError(
                f"{folder}: has train/ with class folders and also pictures in {sub.name}/; move "
                f"{sub.name}/ away, or put all class folders side by side"
            )
    return roots


def _is_split(folder: Path) -> bool:
    if not folder.is_dir() or not _subfolders(folder):
        return False
    return not any(is_picture_name(path.name) and path.is_file() for path in folder.iterdir())


def _list_classes(root: Path) -> dict[str, list[Path]]:
    """Pictures of every class folder below a split's root."""
    by_class = {
        sub.name: sorted(pictures_below(sub), key=Path.as_posix) for sub in _subfolders(root)
    }
    empty = [name for name, files in by_class.items() if not files]
    if empty:
        raise UserError(
            f"{root}: no picture in {_names(empty)}; add some or remove the folder (pictures end "
            f"in {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return by_class


def _check_same_classes(
    folder: Path, roots: dict[str, Path], split: str, train: list[str], other: list[str]
) -> None:
    extra = sorted(set(other) - set(train))
    missing = sorted(set(train) - set(other))
    if extra or missing:
        here = f"{roots[split].name}/"
        parts = [f"only in {here}: {_names(extra)}"] if extra else []
        parts += [f"only in {roots['train'].name}/: {_names(missing)}"] if missing else []
        raise UserError(
            f"{folder}: the class folders differ; {'; '.join(parts)}; every split needs the same"
        )


def _names(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _subfolders(folder: Path) -> list[Path]:
    """Visible folders, sorted by name; other tools' litter is left out, and so are links to here
    or above: every picture would count twice."""
    here = folder.resolve()
    return sorted(
        (
            path
            for path in folder.iterdir()
            if path.is_dir()
            and not path.name.startswith(".")
            and path.name != "__MACOSX"
            and not (path.is_symlink() and here.is_relative_to(path.resolve()))
        ),
        key=lambda path: path.name,
    )


def pictures_below(folder: Path) -> Iterator[Path]:
    """Visible pictures in the folder and below; links to folders are not followed (loops)."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if is_picture_name(name):
                yield Path(parent) / name


def is_picture_name(name: str) -> bool:
    """Whether a visible file of this name is taken for a picture."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
