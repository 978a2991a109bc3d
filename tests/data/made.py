"""Tiny data sets, written where a test wants them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from dspt.data import ImageDataset, load_dataset
from dspt.errors import UserError


def picture(shade: int = 0) -> bytes:
    """A PNG of 2 x 2 grey pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def put(folder: Path, *names: str) -> None:
    """Write pictures, each with bytes of its own: its index as the shade."""
    for shade, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(shade))


def ids(dataset: ImageDataset, split: str) -> list[str]:
    """Keys of a split."""
    return dataset.keys(dataset.splits[split])


def named_labels(dataset: ImageDataset, split: str) -> dict[str, str]:
    """Class name of every key of a split."""
    indices = dataset.splits[split]
    names = [dataset.class_names[label] for label in dataset.labels[indices]]
    return dict(zip(dataset.keys(indices), names, strict=True))


def refusal(source: Path | str, **options: object) -> str:
    """The message that loading fails with; it must be one line."""
    with pytest.raises(UserError) as caught:
        load_dataset(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message
