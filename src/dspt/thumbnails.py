"""Small pictures for reports."""

from __future__ import annotations

import io
from collections.abc import Callable

from dspt.data import ImageDataset
from dspt.data.images import open_image
from dspt.errors import UserError

SIDE = 112  # pixels; a gallery of 60 stays well below a megabyte


def thumbnailer(dataset: ImageDataset) -> Callable[[str], bytes | None]:
    """A function from a picture's id to a small WebP, None when it cannot be read."""
    numbers = {dataset.images.key(i): i for i in range(len(dataset.images))}

    def thumbnail(key: str) -> bytes | None:
        number = numbers.get(key)
        if number is None:
            return None
        try:
            picture = open_image(dataset.images.read(number), key)
        except UserError:
            return None
        picture.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=80)
        return buffer.getvalue()

    return thumbnail
