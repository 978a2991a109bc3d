"""From encoded bytes to the picture that a viewer shows."""

from __future__ import annotations

import contextlib
import io
import threading
from typing import TYPE_CHECKING

import numpy as np

from dspt.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# Only these decoders see the bytes: Pillow knows formats that start other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 262
_TIFF_WHITE_IS_ZERO = 0
_WHITE_LEVEL = 65535

LARGE = 25_000_000
"""Pixels; a picture takes up to 15 bytes each while it is decoded."""

_one_large = threading.Lock()
_WHITE = (255, 255, 255, 255)


class UnreadableImage(UserError):
    """A picture that cannot be decoded; the message names it."""


def open_image(data: bytes, key: str) -> Image.Image:
    """Decode a picture the way a viewer shows it.

    The first frame; turned upright by its EXIF orientation; transparency on white; 16-bit grey
    levels scaled to 8 bits instead of clipped. Measured values without an agreed white (32-bit
    whole numbers beyond 16 bits, fractions) are refused: clipped, they would be black or white.

    Args:
        data: the encoded picture (JPEG, PNG, WebP, BMP, GIF or TIFF).
        key: its id, for messages.

    Returns:
        A loaded Pillow image of mode "RGB".

    Raises:
        UnreadableImage: bytes that are empty, truncated, of another format, without an agreed
            white, or that would unpack to more pixels than Pillow's limit against decompression
            bombs allows.
    """
    from PIL import Image

    if not data:
        raise UnreadableImage(f"picture {key} is an empty file; replace or remove it")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image, _turn(image.size):
            image.load()
            shown = _on_white(_eight_bits(_upright(image), _white_is_zero(image)))
            shown.info.clear()  # nobody must turn it a second time
            return shown
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        reason = _reason(error)
        raise UnreadableImage(
            f"picture {key} cannot be decoded: {reason}; replace or remove it"
        ) from error


def _turn(size: tuple[int, int]) -> contextlib.AbstractContextManager[object]:
    """Large pictures wait for each other, so that many threads do not unpack many of them."""
    return _one_large if size[0] * size[1] > LARGE else contextlib.nullcontext()


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"not one of {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels (Pillow's limit is {2 * (Image.MAX_IMAGE_PIXELS or 0)})"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _upright(image: Image.Image) -> Image.Image:
    """Undo the EXIF orientation. Broken EXIF is ignored, as viewers do."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # EXIF parsers raise whatever broken bytes lead them to
        return image
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _white_is_zero(image: Image.Image) -> bool:
    """Whether this is a TIFF with level 0 as white; Pillow minds that with 8 bits, not with 16."""
    return getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO


def _eight_bits(image: Image.Image, white_is_zero: bool) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip everything above 255."""
    from PIL import Image

    if image.mode != "I" and image.mode != "F" and not image.mode.startswith("I;16"):
        return image
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > _WHITE_LEVEL:
        raise ValueError("measured values without an agreed white; save it with 8 or 16 bits")
    scaled = (np.arange(_WHITE_LEVEL + 1) * 255 + _WHITE_LEVEL // 2) // _WHITE_LEVEL
    if white_is_zero:
        scaled = scaled[::-1]
    grey = Image.fromarray(scaled.astype(np.uint8)[levels])
    transparent = image.info.get("transparency")  # in a 16-bit PNG the one level that is clear
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey
