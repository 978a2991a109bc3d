"""Food-101N: web pictures with noisy labels for training, Food-101's test pictures for testing.

Source: Lee et al. 2018 (CleanNet), https://kuanghuei.github.io/Food-101N/: `meta/classes.txt` and
`meta/imagelist.tsv` (a heading, then "class/file" a line), `meta/verified_*.tsv` ("class/file",
tab, 1 when a person found the label right), pictures below `images/`. Its test set is the test
split of Food-101 (Bossard et al. 2014): `meta/test.txt` ("class/number" a line) and `images/`.

Both sets have the same classes and the same folders, so one is easily taken for the other. Here
the training pictures are those that imagelist.tsv names, from a folder that is not Food-101's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dspt.data.dataset import ImageDataset
from dspt.data.paths import relative_path
from dspt.data.split_file import TEMPLATES
from dspt.data.stores import FileImages, JoinedImages
from dspt.data.text_lines import read_lines
from dspt.errors import UserError

IMAGE_LIST = "meta/imagelist.tsv"
VERIFIED = ("meta/verified_train.tsv", "meta/verified_val.tsv")
FOOD101_FOLDER = "food-101"

_HEADING = "class_name"
# Files that only Food-101 has; their presence means that the wrong archive was unpacked here.
_FOOD101_FILES = ("meta/train.txt", "meta/train.json", "split_zhou_Food101.json")


def is_food101n(folder: Path) -> bool:
    """Whether the folder looks like this layout."""
    return (folder / IMAGE_LIST).is_file()


def read_food101n(folder: Path, source: str) -> ImageDataset:
    """Read the lists of Food-101N and, from `food-101/` beside it, the test split of Food-101.

    The labels of the training pictures are the noisy ones; which are wrong is not known. Column
    "verified" holds the label where a person found it right, -1 where not, or nobody looked.
    (A few verified rows name a picture under another class than imagelist.tsv; these are left out.)

    Raises:
        UserError: a list that is missing or malformed; Food-101's own pictures or lists where
            Food-101N's should be; no Food-101 beside it.
    """
    clean = folder.resolve().parent / FOOD101_FOLDER
    if not (clean / "meta/test.txt").is_file() and (folder.parent / FOOD101_FOLDER).is_dir():
        clean = folder.parent / FOOD101_FOLDER  # the folder itself may be a link
    _refuse_food101(folder, clean)
    names = [n for _, n in read_lines(folder / "meta/classes.txt") if not n.startswith(_HEADING)]
    codes = {name: label for label, name in enumerate(names)}
    train, train_labels = _read_list(folder / IMAGE_LIST, codes, "")
    if not (clean / "meta/test.txt").is_file():
        raise UserError(
            f"{source}: Food-101N is tested on the test split of Food-101; put Food-101 into "
            f"{clean} (meta/test.txt and images/)"
        )
    test, test_labels = _read_list(clean / "meta/test.txt", codes, ".jpg")
    known = set(test)
    if (clean / "meta/train.txt").is_file():
        known.update(_read_list(clean / "meta/train.txt", codes, ".jpg")[0])
    shared = next((path for path in train if path in known), None)
    if shared is not None:
        raise UserError(
            f"{folder / IMAGE_LIST}: {shared} is a picture of Food-101; this is not Food-101N's "
            "list, download it again"
        )
    n = len(train)
    labels = np.concatenate([train_labels, test_labels])
    verified = np.full(len(labels), -1, dtype=np.int64)
    right = _verified(folder)
    for i, path in enumerate(train):
        if path in right:
            verified[i] = labels[i]
    return ImageDataset(
        name=folder.resolve().name,
        source=source,
        class_names=tuple(name.replace("_", " ") for name in names),
        images=JoinedImages(
            [
                FileImages(folder / "images", train, contained=True),
                FileImages(clean / "images", test, contained=True),
            ]
        ),
        labels=labels,
        splits={
            "train": np.arange(n, dtype=np.int64),
            "test": np.arange(n, len(labels), dtype=np.int64),
        },
        columns={"verified": verified} if right else {},
        template=TEMPLATES["Food101"],
    )


def _refuse_food101(folder: Path, clean: Path) -> None:
    for name in _FOOD101_FILES:
        if (folder / name).exists():
            raise UserError(
                f"{folder}: holds {name}, which is a file of Food-101 (clean labels); Food-101N "
                "must lie in a folder of its own"
            )
    same_folder = folder.resolve() == clean.resolve()
    if same_folder or (folder / "images").resolve() == (clean / "images").resolve():
        raise UserError(
            f"{folder}: its pictures are those of Food-101 in {clean}; unpack Food-101N's own"
        )


def _read_list(path: Path, codes: dict[str, int], suffix: str) -> tuple[list[str], np.ndarray]:
    """Relative paths and labels, int64 [rows]."""
    paths: dict[str, int] = {}
    for number, line in read_lines(path):
        if number == 1 and line.startswith(_HEADING):
            continue
        where = f"{path}, line {number}"
        relative = relative_path(line + suffix, where)
        name = relative.split("/")[0]
        if name not in codes or "/" not in relative:
            raise UserError(f'{where}: {line!r} is not "CLASS/PICTURE"; download the file again')
        if relative in paths:
            raise UserError(f"{where}: {relative} is listed twice; download the file again")
        paths[relative] = codes[name]
    return list(paths), np.array(list(paths.values()), dtype=np.int64)


def _verified(folder: Path) -> set[str]:
    """Pictures whose label a person found right."""
    right = set()
    for name in VERIFIED:
        if not (folder / name).is_file():
            continue
        for number, line in read_lines(folder / name):
            if number == 1 and line.startswith(_HEADING):
                continue
            path, _, answer = line.partition("\t")
            if answer not in ("0", "1"):
                raise UserError(
                    f'{folder / name}, line {number}: must be "CLASS/PICTURE", a tab, 0 or 1'
                )
            if answer == "1":
                right.add(path)
    return right
