"""Writing files so that a reader never sees half of one, and locks that end with their process."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dspt.errors import UserError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from torch import Tensor

_TEMPORARY = re.compile(r"\.(?P<target>.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)


class WriteError(UserError):
    """A file cannot be written: the disk is full, the folder read-only or not there."""


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it onto ``target`` when the block succeeds.

    The temporary file is private (mode 0600 until renamed, then as the umask says), lies in the
    same folder, so that the rename is atomic, and is removed when the block fails. What a killed
    process left of an earlier attempt at ``target`` is removed first.

    The block must write into the file and not put another one in its place: the file is locked, by
    which others see that its writer lives.

    Raises:
        WriteError: when the folder cannot be created or written, or the disk is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, target.name)
        handle, temporary = _locked_temporary(target)
    except OSError as error:
        raise WriteError(f"cannot write {target}: {_reason(error)}") from error
    try:
        yield temporary
        os.fsync(handle)
        umask = os.umask(0o077)  # strict, for files that other threads make at this moment
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise WriteError(f"cannot write {target}: {_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        os.close(handle)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(target: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_tensors(target: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically.

    Not by the library's ``save_file``: that writes a temporary file of its own, which a kill leaves
    behind, and tells of a full disk by an exception of its own.
    """
    from safetensors.torch import save

    write_bytes(target, save(dict(tensors), dict(metadata)))


def remove_abandoned(folder: Path, target: str | None = None) -> None:
    """Remove the temporary files of writers that were killed; those of living ones stay.

    Safe at any time: a living writer holds a lock on its file, which the system takes away when the
    process ends, however it ends. Where the file system knows no locks, nothing is removed.

    Args:
        folder: where to look; it need not exist.
        target: name of the file that was to be written; None for any.
    """
    if sys.platform == "win32":
        return
    try:
        found = list(folder.iterdir())
    except OSError:
        return
    for path in found:
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or target not in (None, match["target"]):
            continue
        with contextlib.suppress(OSError):  # alive, gone meanwhile, or a folder that is read-only
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def _locked_temporary(target: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        if sys.platform == "win32":
            return handle, Path(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return handle, Path(name)
        except BlockingIOError:
            pass
        except OSError:  # a file system without locks
            return handle, Path(name)
        os.close(handle)  # somebody took it for abandoned between its making and our lock


@contextlib.contextmanager
def locked(path: Path, *, blocking: bool = True) -> Iterator[bool]:
    """Hold a lock among processes; yields whether it is held, always so if ``blocking``.

    The system releases it when the process ends, however it ends; only then the file stays behind,
    for the next holder.

    Raises:
        WriteError: when the lock's folder cannot be written.
    """
    from filelock import FileLock, Timeout

    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path).acquire(blocking=blocking))
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            raise WriteError(f"cannot lock {path}: {_reason(error)}") from error
        try:
            yield True
        finally:
            # While it is still ours: whoever waits notices and makes a file of its own.
            path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """What is wrong and how to mend it."""
    reason = getattr(error, "strerror", None) or str(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}; make room, then the same command goes on"
    return f"{reason}; choose a folder that is writable"
