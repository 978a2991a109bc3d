"""A data set in numbers: classes, splits, label columns, broken and repeated pictures."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from dspt.data.dataset import ImageDataset
from dspt.data.images import open_image
from dspt.errors import UserError
from dspt.progress import Progress, Silent


@dataclass(frozen=True)
class DataSummary:
    """What :func:`summarise` found.

    Args:
        name: of the data set.
        class_names: C names.
        counts: for every split, pictures of every class, C numbers each.
        imbalance: largest over smallest class of the training split; None if a class is empty.
        columns: for every further label column, share of the training labels in it that differ
            from the main labels, and how many training pictures have a label in it.
        test_source: "split", "holdout" or "none".
        unreadable: messages that name pictures which cannot be read; None when not looked at.
        duplicates: groups of ids with the same bytes; None when not looked at.
        across_splits: how many of these groups lie in more than one split.
        disagreeing: how many of these groups have more than one label.
    """

    name: str
    class_names: tuple[str, ...]
    counts: dict[str, list[int]]
    imbalance: float | None
    columns: dict[str, tuple[float, int]]
    test_source: str
    unreadable: list[str] | None = None
    duplicates: list[list[str]] | None = None
    across_splits: int = 0
    disagreeing: int = 0


def summarise(
    dataset: ImageDataset, *, pictures: bool = False, progress: Progress | None = None
) -> DataSummary:
    """Count; with ``pictures`` also decode every picture and compare their bytes (SHA-256).

    Only pictures that are in some split are looked at.
    """
    num_classes = len(dataset.class_names)
    counts = {
        split: np.bincount(dataset.labels[indices], minlength=num_classes)
        for split, indices in dataset.splits.items()
    }
    train = dataset.splits["train"]
    columns = {}
    for name, values in dataset.columns.items():
        given, true = values[train], dataset.labels[train]
        there = given >= 0
        if there.any():
            columns[name] = (float((given != true)[there].mean()), int(there.sum()))
    unreadable: list[str] | None = None
    groups: list[list[int]] | None = None
    split_of = np.zeros(len(dataset.labels), dtype=np.int64)
    for code, indices in enumerate(dataset.splits.values()):
        split_of[indices] = code
    if pictures:
        used = np.concatenate(list(dataset.splits.values()))
        unreadable, groups = _look(dataset, np.sort(used), progress or Silent())
    smallest = int(counts["train"].min())
    return DataSummary(
        name=dataset.name,
        class_names=dataset.class_names,
        counts={split: values.tolist() for split, values in counts.items()},
        imbalance=float(counts["train"].max()) / smallest if smallest else None,
        columns=columns,
        test_source=dataset.test_source,
        unreadable=unreadable,
        duplicates=None if groups is None else [dataset.keys(group) for group in groups],
        across_splits=sum(len(set(split_of[group])) > 1 for group in groups or ()),
        disagreeing=sum(len(set(dataset.labels[group])) > 1 for group in groups or ()),
    )


def _look(
    dataset: ImageDataset, numbers: np.ndarray, progress: Progress
) -> tuple[list[str], list[list[int]]]:
    """Messages about unreadable pictures, and numbers of pictures with the same bytes."""
    unreadable = []
    same: dict[bytes, list[int]] = {}
    with progress.task("reading pictures") as advance:
        for done, number in enumerate(numbers, 1):
            key = dataset.images.key(int(number))
            try:
                data = dataset.images.read(int(number))
                same.setdefault(sha256(data).digest(), []).append(int(number))
                open_image(data, key)
            except UserError as error:
                unreadable.append(str(error))
            advance(done, len(numbers))
    return unreadable, [group for group in same.values() if len(group) > 1]
