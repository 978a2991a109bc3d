"""Whether the class names mean anything to the text tower: zero-shot recall of every class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dspt.backbones import Backbone
from dspt.data.dataset import ImageDataset
from dspt.data.shots import draw_up_to
from dspt.errors import UserError
from dspt.features import extract_features
from dspt.progress import Progress, Silent

PICTURES_A_CLASS = 32
NEAR_ZERO = 0.05
ENOUGH = 8  # pictures, to call a recall near zero


@dataclass(frozen=True)
class Recognition:
    """What the untrained model makes of the class names.

    Args:
        backbone: name of the model.
        template: the prompt, with "{}" for the class name.
        pictures: how many of every class were looked at, C numbers.
        recall: share of them that the prompt of their class recognises; None without pictures.
        taken_for: number of the class that most of the others are taken for; None if all are right.
        unknown: numbers of the classes that are never or hardly ever recognised.
        alike: pairs of classes whose names are one to the text tower, as "Cat" and "cat" may be.
    """

    backbone: str
    template: str
    pictures: list[int]
    recall: list[float | None]
    taken_for: list[int | None]
    unknown: list[int]
    alike: list[tuple[int, int]]


def recognise(
    dataset: ImageDataset,
    backbone: Backbone,
    *,
    readable: np.ndarray,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Recognition:
    """Zero-shot recall on at most 32 training pictures of every class, always the same ones.

    Wrong labels lower it, but not to nothing: a class counts as unknown when at most 5 % of eight
    or more pictures are recognised.

    Args:
        dataset: C classes.
        backbone: the model.
        readable: numbers of the pictures that can be read.
        cache: folder for image features.
        progress: where to report to.

    Raises:
        UserError: when no training picture can be read.
    """
    num_classes = len(dataset.class_names)
    pool = np.intersect1d(dataset.splits["train"], readable)
    if not len(pool):
        raise UserError(f"{dataset.source}: none of the training pictures could be read")
    keys = dataset.keys(pool)
    drawn = draw_up_to(dataset.labels, pool, PICTURES_A_CLASS, 0, keys, "recognition")
    with (progress or Silent()).task("what the class names mean to the model") as advance:
        found = extract_features(backbone, dataset.images, drawn, cache=cache, on_progress=advance)
    drawn = drawn[found.readable]
    texts = backbone.zero_shot_features(dataset.class_names, dataset.template)
    answers = (found.values[:, 0] @ texts.t()).argmax(dim=1).cpu().numpy()[found.readable]
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (dataset.labels[drawn], answers), 1)
    pictures, hits = confusion.sum(axis=1), confusion.diagonal().copy()
    np.fill_diagonal(confusion, 0)
    recall = [int(h) / int(n) if n else None for h, n in zip(hits, pictures, strict=True)]
    return Recognition(
        backbone=backbone.name,
        template=dataset.template,
        pictures=pictures.tolist(),
        recall=recall,
        taken_for=[int(row.argmax()) if row.any() else None for row in confusion],
        unknown=[
            label
            for label, (share, n) in enumerate(zip(recall, pictures, strict=True))
            if share is not None and n >= ENOUGH and share <= NEAR_ZERO
        ],
        alike=_alike(texts.float().cpu().numpy()),
    )


def _alike(texts: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows of [C, D] that are equal; the first of equal rows is in every pair."""
    first: dict[bytes, int] = {}
    pairs = []
    for label, row in enumerate(texts):
        one = first.setdefault(row.round(5).tobytes(), label)
        if one != label:
            pairs.append((one, label))
    return pairs
