"""Folders of the Hugging Face `datasets` library, found without the library.

`Dataset.save_to_disk` writes `state.json`, which lists Arrow stream files; `DatasetDict` writes
`dataset_dict.json`, which lists splits, each a folder like that. The hub stores the shards of a
split as `data/train-00000-of-00003.parquet`.

Source: the library's documentation and the files that version 5.2 writes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from dspt.data.manifest import SPLIT_WORDS
from dspt.data.paths import relative_path
from dspt.data.tables import read_json_object
from dspt.errors import UserError

SPLITS_FILE = "dataset_dict.json"
STATE_FILE = "state.json"

_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(-[0-9a-f]+)?")


def find_saved_datasets(folder: Path) -> dict[str, list[Path]]:
    """The Arrow files of each split of a saved data set; empty when the folder is none.

    Splits other than train, validation and test are left out.

    Raises:
        UserError: a description that is damaged or names what is not there.
    """
    if not os.path.lexists(folder / SPLITS_FILE):
        is_saved = os.path.lexists(folder / STATE_FILE)
        return {"train": _arrow_files(folder / STATE_FILE)} if is_saved else {}
    where = folder / SPLITS_FILE
    names = read_json_object(where).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f'{where}: "splits" must be a list of names; save the data again')
    by_split = _one_a_split(names, where)
    return {split: _arrow_files(folder / name / STATE_FILE) for split, name in by_split.items()}


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """The Parquet shards of each split in `data/` or in the folder itself; else empty.

    Splits other than train, validation and test are left out.

    Raises:
        UserError: a shard that is missing, or two sets of shards for a split.
    """
    for place in (folder / "data", folder):
        found: dict[str, list[tuple[re.Match[str], Path]]] = {}
        for path in sorted(place.glob("*.parquet")):
            shard = _SHARD.fullmatch(path.stem)
            if shard is not None:
                found.setdefault(shard["split"], []).append((shard, path))
        by_split = _one_a_split(list(found), place) if found else {}
        for name in by_split.values():
            _check_complete(place, name, [shard for shard, _ in found[name]])
        if by_split:
            return {split: [path for _, path in found[name]] for split, name in by_split.items()}
    return {}


def _one_a_split(names: list[str], where: Path) -> dict[str, str]:
    """Names by split: train first, then val and test where they are there."""
    found: dict[str, str] = {}
    for name in names:
        split = SPLIT_WORDS.get(name.lower())
        if split in found:
            raise UserError(f"{where}: both {found[split]!a} and {name!a}; remove one of them")
        if split is not None:
            found[split] = name
    others = [name for name in names if name not in found.values()]
    if "train" not in found or ("test" not in found and others):
        raise UserError(
            f"{where}: splits {', '.join(f'{name:.40}' for name in names[:5]) or 'none'}; those to "
            "be used must be called train, validation and test"
        )
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _arrow_files(state: Path) -> list[Path]:
    """The files that a state.json lists, in its order."""
    content = read_json_object(state)
    if content.get("_indices_data_files"):
        raise UserError(
            f"{state}: rows are chosen by a table of indices; call flatten_indices() on the data "
            "set and save it again"
        )
    entries: Any = content.get("_data_files")
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{state}: "_data_files" must list Arrow files; save the data again')
    files = []
    for number, entry in enumerate(entries):
        name = entry.get("filename") if isinstance(entry, dict) else None
        where = f'{state}, "_data_files" entry {number}'
        if not isinstance(name, str) or not name.endswith(".arrow"):
            raise UserError(f"{where}: must name an .arrow file; save the data again")
        path = state.parent / relative_path(name, where)
        if path in files:
            raise UserError(f"{where}: {name} is listed twice; save the data again")
        files.append(path)
    return files


def _check_complete(place: Path, split: str, shards: list[re.Match[str]]) -> None:
    counts = {int(shard["count"]) for shard in shards}
    numbers = [int(shard["number"]) for shard in shards]
    if len(counts) > 1 or len(set(numbers)) < len(numbers):
        raise UserError(f"{place}: two sets of shards for split {split!a}; remove the old one")
    missing = sorted(set(range(counts.pop())) - set(numbers))
    if missing:
        raise UserError(
            f"{place}: shard {missing[0]} of split {split!a} is missing (counted from 0); complete "
            "the download"
        )
