"""Pictures without labels: files and folders as a person names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dspt.data.class_folders import pictures_below
from dspt.errors import UserError


def picture_files(places: Sequence[str | Path]) -> list[Path]:
    """The named files, and the pictures in the named folders and below, sorted.

    A file is taken whatever its name is; in a folder only files with a picture's ending count.

    Raises:
        UserError: when a place does not exist, or nothing is found.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found = sorted(pictures_below(place))
            if not found:
                raise UserError(f"{place} holds no pictures (.jpg, .png, .webp, ...)")
            files.extend(found)
        elif place.exists():
            files.append(place)
        else:
            raise UserError(f"no such picture or folder: {place}")
    return files
