"""What of a registered data set is on this disk, and exactly what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dspt.data.dataset import SPLITS
from dspt.data.door import read_card
from dspt.data.registry import DatasetCard, data_root, dataset_card, find_root
from dspt.data.stores import missing_pictures
from dspt.errors import UserError

NAMED = 5


@dataclass(frozen=True)
class DiskCheck:
    """What a look at the disk found.

    Args:
        card: the data set.
        root: data root that was looked in.
        folder: folder of the data set, None when there is none.
        problems: one line each; empty when everything is there.
        pictures: pictures that the index files list, 0 when they cannot be read.
        missing: ids of the listed pictures that are not there.
    """

    card: DatasetCard
    root: Path
    folder: Path | None
    problems: tuple[str, ...]
    pictures: int = 0
    missing: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.problems


def is_on_disk(card: DatasetCard, root: Path) -> str:
    """ "yes", "in part" or "no", by folders and index files alone; pictures are not looked for."""
    folder = find_root(card.name, root)
    if folder is None:
        return "no"
    return "in part" if _absent(card, folder) else "yes"


def check_dataset(name: str, root: str | Path) -> DiskCheck:
    """Look for every file of a data set; no picture is opened.

    Raises:
        UserError: an unknown name, or a root that is no folder.
    """
    card = dataset_card(name)
    place = data_root(root)
    if place is None:
        raise UserError("data root is empty; name the folder that holds the data sets")
    folder = find_root(card.name, place)
    if folder is None:
        wanted = " or ".join(f"{name}/" for name in card.folders)
        return DiskCheck(card, place, None, (f"no folder {wanted} in {place}",))
    problems = _absent(card, folder)
    if any(not (folder / name).is_file() for name in card.index):
        return DiskCheck(card, place, folder, tuple(problems))
    try:
        dataset = read_card(card, folder, card.name)
    except UserError as error:
        return DiskCheck(card, place, folder, (*problems, str(error)))
    missing = missing_pictures(dataset.images)
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        problems.append(
            f"{len(missing)} of {len(dataset.images)} listed pictures are missing: "
            f"{', '.join(missing[:NAMED])}{more}"
        )
    for split, wanted_size in zip(SPLITS, card.sizes, strict=True):
        found = len(dataset.splits.get(split, ()))
        if found != wanted_size:
            problems.append(f"{split}: {found} pictures are listed, {card.title} has {wanted_size}")
    return DiskCheck(card, place, folder, tuple(problems), len(dataset.images), tuple(missing))


def _absent(card: DatasetCard, folder: Path) -> list[str]:
    """Index files and picture folders that are not there, as lines."""
    lines = []
    for name in card.index:
        if not (folder / name).is_file():
            lines.append(f"missing file {name} in {folder}; it comes from {_index_source(card)}")
    for name in card.pictures:
        if not (folder / name).is_dir():
            lines.append(f"missing folder {name}/ in {folder}")
    return lines


def _index_source(card: DatasetCard) -> str:
    if card.reader == "table":
        return f"`dspt data get {card.name}`"
    return card.index_source or card.source
