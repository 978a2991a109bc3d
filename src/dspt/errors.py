"""The one exception that stands for a mistake the user can mend, and a hint for slips."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

LONGEST = 1500
"""Characters of a message; what is quoted in it may come from a file of any size."""


class UserError(ValueError):
    """Bad input: one clear line that says what is wrong, where, and how to mend it.

    The command line prints the line and exits with code 2; from Python it is an ordinary
    ``ValueError``. Everything else that escapes is a bug of ours and keeps its traceback.

    The line stays one whatever it quotes: line breaks and control characters, with which a name
    could drive a terminal, are written as escapes, and a very long line is cut in the middle.
    """

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            half = LONGEST // 2
            message = f"{message[:half]} ... {message[-half:]}"
        super().__init__("".join(map(_printable, message)))


def did_you_mean(given: str, known: Iterable[str], n: int = 1, cutoff: float = 0.6) -> str:
    """The end of a message about an unknown name: "; did you mean 'x'?", or "" if none is near.

    Args:
        given: what the user wrote; upper and lower case are the same.
        known: the names there are.
        n: how many to offer.
        cutoff: how near a name must be, as in :func:`difflib.get_close_matches`.
    """
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), by_lower, n=n, cutoff=cutoff)
    return f"; did you mean {' or '.join(repr(by_lower[name]) for name in near)}?" if near else ""


def _printable(character: str) -> str:
    controls = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return ascii(character)[1:-1] if controls else character
