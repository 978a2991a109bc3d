"""Devices: which one is used, and what is said when its memory is too small."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from dspt.errors import UserError


class TooLittleMemoryError(UserError):
    """The memory of the device does not hold what was to be computed."""


def choose_device(device: str) -> torch.device:
    """``"auto"`` is CUDA if there is one, else the CPU; anything else is a torch device.

    Raises:
        UserError: when it cannot be used.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device: {device!r} cannot be used ({reason}); try cpu or auto") from None
    return place


@contextlib.contextmanager
def clear_memory_errors(what: str, mend: str) -> Iterator[None]:
    """Turn an exhausted memory, the GPU's or the machine's, into one line.

    Args:
        what: was being computed.
        mend: what the user can do about it.

    Raises:
        TooLittleMemoryError: in place of torch's exception for it; others pass unchanged.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TooLittleMemoryError(_line(what, "GPU memory", error, mend)) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch has no type of its own for the CPU
            raise
        raise TooLittleMemoryError(_line(what, "memory", error, mend)) from error


def _line(what: str, memory: str, error: BaseException, mend: str) -> str:
    wanted = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    size = f" ({wanted[1]} more were needed)" if wanted else ""
    return f"{what}: too little {memory}{size}; {mend}"
