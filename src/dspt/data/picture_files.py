"""Pictures without labels: files and folders as a person names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dspt.data.class_folders import pictures_below
from dspt.data.paths import printable
from dspt.errors import UserError


def picture_files(places: Sequence[str | Path]) -> list[Path]:
    """The named files, and the pictures in the named folders and below, sorted.

    A file is taken whatever its name is, and a broken link too: reading it says what is wrong. In
    a folder only files with a picture's ending count.

    Raises:
        UserError: when a place does not exist, or nothing is found.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if os.path.isdir(place):  # unlike Path.is_dir, False for a name that is too long
            found = sorted(pictures_below(place))
            if not found:
                raise UserError(f"{place} holds no pictures (.jpg, .png, .webp, ...)")
            files.extend(found)
        elif os.path.lexists(place):
            files.append(place)
        else:
            raise UserError(f"no such picture or folder: {printable(str(place))}")
    return files
