"""Pictures handed over in Python: paths, Pillow images and arrays as one store of encoded bytes.

Images and arrays are encoded without loss and read back like files, so one path leads from any
picture to its feature, and the cache serves them all.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dspt.data.stores import read_picture
from dspt.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


class GivenPictures:
    """A list of pictures as an :class:`dspt.data.ImageStore`.

    Args:
        items: paths, Pillow images and uint8 arrays [H, W], [H, W, 3] or [H, W, 4], in any mixture.

    Raises:
        UserError: for anything else among them, with its place.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        for i, item in enumerate(items):
            if not _is_picture(item):
                raise UserError(
                    f"X[{i}]: {type(item).__name__} is no picture; give paths, Pillow images or "
                    "uint8 arrays [height, width, 3]"
                )
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def key(self, i: int) -> str:
        """The path, or the place in the list."""
        item = self._items[i]
        return str(item) if isinstance(item, str | Path) else f"X[{i}]"

    def read(self, i: int) -> bytes:
        """The file, or the picture encoded as PNG.

        Raises:
            UserError: when a file cannot be read.
        """
        item = self._items[i]
        if not isinstance(item, str | Path):
            return _encoded(item)
        return read_picture(Path(item), f"X[{i}]: {item}")


def given_pictures(X: Any) -> GivenPictures | None:
    """The pictures in ``X``; None when it holds none, but perhaps numbers.

    Args:
        X: a uint8 array [n, H, W, 3], or a list, array or pandas Series of what
            :class:`GivenPictures` takes.

    Raises:
        UserError: for one picture in place of a list, a table of paths with several columns, a
            four-dimensional array that is no uint8 [n, H, W, 3], and as :class:`GivenPictures`.
    """
    if isinstance(X, str | Path):
        raise UserError(f"X: {X} is one picture; give a list of them, [{str(X)!r}]")
    if not isinstance(X, list | tuple):
        if len(getattr(X, "shape", ())) == 2 and _holds_paths(X):
            if X.shape[1] != 1:
                raise UserError(
                    f"X: a table with {X.shape[1]} columns of text; give the column of paths alone"
                )
            X = np.asarray(X)[:, 0]
        shape = getattr(X, "shape", ())
        if len(shape) not in (1, 4):
            return None
        X = np.asarray(X)
        if X.ndim == 4 and (X.dtype != np.uint8 or X.shape[3] != 3):
            raise UserError(
                f"X: pictures as one array must be uint8 [n, height, width, 3], not {X.dtype} "
                f"{list(X.shape)}"
            )
    items = list(X)
    return GivenPictures(items) if items and _is_picture(items[0]) else None


def _holds_paths(table: Any) -> bool:
    values = np.asarray(table)
    return values.dtype.kind in "OU" and values.size > 0 and isinstance(values.flat[0], str | Path)


def _is_picture(item: Any) -> bool:
    from PIL.Image import Image

    if isinstance(item, np.ndarray):
        channels = item.shape[2:]
        return item.dtype == np.uint8 and item.ndim in (2, 3) and channels in ((), (3,), (4,))
    return isinstance(item, str | Path | Image)


def _encoded(item: np.ndarray | Image) -> bytes:
    from PIL import Image

    image = Image.fromarray(item) if isinstance(item, np.ndarray) else item
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    buffer = io.BytesIO()
    # With its orientation, which counts as it does in a file; hardly compressed, for speed.
    image.save(buffer, "PNG", exif=image.getexif(), compress_level=1)
    return buffer.getvalue()
