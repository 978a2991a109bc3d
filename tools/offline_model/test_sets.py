"""Pictures for evaluation only: Caltech-101, CIFAR-10 and the held-out emoji vendor.

Nothing of these sets is read by any module that fits or trains something.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from image_tower import Loader
from PIL import Image

CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


@dataclass(frozen=True)
class TestSet:
    """Pictures (as loaders), their labels, and the class names."""

    name: str
    loaders: list[Loader]
    labels: list[int]
    classes: list[str]


def _open_file(path: Path) -> Image.Image:
    return Image.open(path)


def _open_bytes(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def caltech(folder: Path, split: str = "test") -> TestSet:
    """Caltech-101 in CoOp's layout and split (100 classes)."""
    splits = json.loads((folder / "split_zhou_Caltech101.json").read_text())
    names = {
        int(label): name.replace("_", " ") for rows in splits.values() for _, label, name in rows
    }
    classes = [names[label] for label in range(len(names))]
    images = folder / "101_ObjectCategories"
    rows = splits[split]
    return TestSet(
        "Caltech-101",
        [partial(_open_file, images / path) for path, _, _ in rows],
        [int(label) for _, label, _ in rows],
        classes,
    )


def cifar10(folder: Path) -> TestSet:
    """The 10,000 test pictures of CIFAR-10, from a Parquet file of image bytes and labels."""
    table = pd.read_parquet(folder / "test.parquet")
    return TestSet(
        "CIFAR-10",
        [partial(_open_bytes, _bytes(value)) for value in table["image"]],
        [int(label) for label in table["label"]],
        list(CIFAR_CLASSES),
    )


def demo_emoji(parquet: Path, split: str = "test") -> TestSet:
    """The bundled demo pictures: an emoji vendor that was never trained on."""
    table = pd.read_parquet(parquet)
    classes = sorted(table["label"].unique())
    table = table[table["split"] == split]
    return TestSet(
        "Fluent 3D emoji",
        [partial(_open_bytes, _bytes(value)) for value in table["image"]],
        [classes.index(label) for label in table["label"]],
        classes,
    )


def _bytes(value: bytes | dict[str, bytes]) -> bytes:
    return value["bytes"] if isinstance(value, dict) else value
