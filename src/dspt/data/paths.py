"""Picture paths that a split file or a manifest names, checked before they are opened."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from dspt.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

LONGEST = 255
"""Bytes of a file's name in every usual file system, characters of any other name."""

# Controls, what ends a line, and what cannot be written as UTF-8.
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

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
    if not is_clean(text) or any(len(part.encode()) > LONGEST for part in path.parts):
        raise UserError(f"{where}: {_short(text)} cannot be a file name; mend its characters")
    return str(path)


def is_clean(text: str) -> bool:
    """Whether a name fits on one line of UTF-8: no control characters, no stray bytes."""
    return _ODD.search(text) is None


def check_ordinary(path: Path) -> None:
    """Refuse to open what is no file: a pipe would be waited for.

    Raises:
        UserError: for a broken link, a folder, a pipe, ...
    """
    if not path.is_file():
        raise UserError(f"{path} is missing or no ordinary file; put the file there")


def printable(text: str) -> str:
    """A name as one line of UTF-8: control characters and stray bytes escaped, as in a\\nb."""
    return _ODD.sub(_escaped, text)


def _escaped(odd: re.Match[str]) -> str:
    code = ord(odd[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return odd[0].encode("unicode_escape").decode("ascii")


def _short(text: str) -> str:
    """The text as one printable line of bounded length."""
    quoted = repr(text) if is_clean(text) else ascii(text)
    return quoted if len(quoted) <= 200 else quoted[:197] + "..."
