"""Lines of the small text files that come with data sets."""

from __future__ import annotations

from pathlib import Path

from dspt.errors import UserError


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, line without outer spaces) of every line that is not blank.

    Raises:
        UserError: when the file is missing, empty or no UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; it comes with the data set") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; download it again") from error
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: is empty; download it again")
    return lines
