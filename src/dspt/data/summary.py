"""A data set in numbers: classes, splits, label columns, broken and repeated pictures."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from dspt.data.dataset import ImageDataset
from dspt.data.images import open_image
from dspt.errors import UserError
from dspt.progress import Progress, Silent

_AT_ONCE = 64  # pictures in memory


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
        readable: numbers of the pictures that could be read; None when not looked at.
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
    readable: np.ndarray | None = None


def summarise(
    dataset: ImageDataset,
    *,
    pictures: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> DataSummary:
    """Count; with ``pictures`` also decode every picture and compare their bytes (SHA-256).

    Only pictures that are in some split are looked at.

    Raises:
        UserError: if ``strict``, for the first picture that cannot be read.
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
    readable = None
    split_of = np.zeros(len(dataset.labels), dtype=np.int64)
    for code, indices in enumerate(dataset.splits.values()):
        split_of[indices] = code
    if pictures:
        used = np.concatenate(list(dataset.splits.values()))
        broken, groups = _look(dataset, np.sort(used), strict, progress or Silent())
        unreadable = list(broken.values())
        readable = np.setdiff1d(used, list(broken))
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
        readable=readable,
    )


def _look(
    dataset: ImageDataset, numbers: np.ndarray, strict: bool, progress: Progress
) -> tuple[dict[int, str], list[list[int]]]:
    """Why pictures cannot be read, by number, and numbers of pictures with the same bytes."""
    broken: dict[int, str] = {}
    same: dict[bytes, list[int]] = {}

    def problem(number: int, data: bytes | UserError) -> UserError | None:
        if isinstance(data, UserError):
            return data
        try:
            open_image(data, dataset.images.key(number))
        except UserError as error:
            return error
        return None

    with progress.task("reading pictures") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(numbers), _AT_ONCE):
            some = [int(number) for number in numbers[start : start + _AT_ONCE]]
            read = [_read(dataset, number) for number in some]  # in order, as tables like it
            for number, data, error in zip(some, read, pool.map(problem, some, read), strict=True):
                if isinstance(data, bytes):
                    same.setdefault(sha256(data).digest(), []).append(number)
                if error is not None:
                    if strict:
                        raise error
                    broken[number] = str(error)
            advance(start + len(some), len(numbers))
    return broken, [group for group in same.values() if len(group) > 1]


def _read(dataset: ImageDataset, number: int) -> bytes | UserError:
    try:
        return dataset.images.read(number)
    except UserError as error:
        return error
