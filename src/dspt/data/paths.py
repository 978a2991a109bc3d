"""Picture paths that a split file or a manifest names, checked before they are opened."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

from dspt.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

_URL = re.compile(r"([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)


def relative_path(text: str, where: str) -> str:
    """The path in POSIX form, relative and without a step upwards.

    Args:
        text: as it stands in the file; backslashes count as separators.
        where: file and row, for messages.

    Raises:
        UserError: when it is empty, a URL, absolute, leads upwards, or cannot be a file name.
    """
    if _URL.match(text):
        raise UserError(
            f"{where}: {_short(text)} is a URL; download the pictures and name them by paths "
            "relative to this file"
        )
    path = PurePosixPath(text.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(text).drive:
        raise UserError(
            f"{where}: {_short(text)} is an absolute path; pictures must lie in the data folder "
            "and be named relative to it"
        )
    if ".." in path.parts:
        raise UserError(
            f"{where}: {_short(text)} leads out of the data folder; pictures must lie inside it"
        )
    if not path.parts:
        raise UserError(f"{where}: the path of the picture is empty; name a file")
    if not is_clean(text):
        raise UserError(f"{where}: {_short(text)} cannot be a file name; mend its characters")
    return str(path)


def is_clean(text: str) -> bool:
    """Whether a name fits on one line of UTF-8: no control characters, no stray bytes."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(text: str) -> str:
    """The text as one printable line of bounded length."""
    quoted = repr(text) if is_clean(text) else ascii(text)
    return quoted if len(quoted) <= 200 else quoted[:197] + "..."
