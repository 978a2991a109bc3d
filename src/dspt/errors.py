"""The one exception that stands for a mistake the user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input: one clear line that says what is wrong, where, and how to mend it.

    The command line prints the line and exits with code 2; from Python it is an ordinary
    ``ValueError``. Everything else that escapes is a bug of ours and keeps its traceback.
    """
