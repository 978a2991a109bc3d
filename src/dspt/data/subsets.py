"""Part of the classes of a data set: the protocol "base to new" and smaller trials.

Source: CoOp and CoCoOp (Zhou et al. 2022), ``subsample_classes`` in datasets/oxford_pets.py:
classes in the order of their labels, the first ceil(C / 2) are base, the rest new, labels
renumbered from 0.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from dspt.data.dataset import ImageDataset
from dspt.data.stores import ChosenImages
from dspt.errors import UserError

GRAMMAR = '"all", "base", "new" or "first:N"'

_FIRST = re.compile(r"first:([0-9]{1,9})", re.ASCII)


def choose_classes(dataset: ImageDataset, which: str) -> ImageDataset:
    """Only the pictures of some classes, with labels from 0 again.

    A picture stays when its true label is among the chosen classes, in whatever split it is. Where
    a further label column gives it a class that was not chosen, that column has no label for it
    (-1): there is no class in the new numbering that could stand for it.

    The ids of the pictures stay, so the few-shot draw of a class is the same as without choosing.

    Args:
        dataset: C classes.
        which: "all" (the data set itself), "base" (the first ceil(C / 2) classes), "new" (the
            others) or "first:N".

    Returns:
        A data set called "NAME[which]".

    Raises:
        UserError: another word; N below 2 or above C; fewer than two classes left.
    """
    if which == "all":
        return dataset
    chosen = _chosen(which, len(dataset.class_names), dataset.source)
    kept = np.flatnonzero((dataset.labels >= chosen.start) & (dataset.labels < chosen.stop))
    number = np.full(len(dataset.labels), -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    splits = {}
    for split, indices in dataset.splits.items():
        moved = number[indices]
        moved = moved[moved >= 0]
        if len(moved) or split == "train":
            splits[split] = moved
    columns = {}
    for name, values in dataset.columns.items():
        moved = values[kept] - chosen.start
        columns[name] = np.where((moved >= 0) & (moved < len(chosen)), moved, -1)
    return replace(
        dataset,
        name=f"{dataset.name}[{which}]",
        class_names=dataset.class_names[chosen.start : chosen.stop],
        images=ChosenImages(dataset.images, kept),
        labels=dataset.labels[kept] - chosen.start,
        splits=splits,
        columns=columns,
        test_source=dataset.test_source if "test" in splits else "none",
    )


def _chosen(which: str, num_classes: int, source: str) -> range:
    half = -(-num_classes // 2)
    if which == "base":
        chosen = range(half)
    elif which == "new":
        chosen = range(half, num_classes)
    else:
        first = _FIRST.fullmatch(which)
        if first is None:
            raise UserError(f"classes: {which!r} must be {GRAMMAR}")
        count = int(first[1])
        if count > num_classes:
            raise UserError(
                f"classes: {which!r}, but {source} has only {num_classes} classes; name fewer"
            )
        chosen = range(count)
    if len(chosen) < 2:
        raise UserError(
            f"classes: {which!r} leaves {len(chosen)} of the {num_classes} classes of {source}; "
            "at least two are needed"
        )
    return chosen
