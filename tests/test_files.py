from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dspt.errors import UserError
from dspt.files import (
    WriteError,
    atomic_path,
    locked,
    remove_abandoned,
    write_bytes,
    write_tensors,
    write_text,
)

posix = pytest.mark.skipif(os.name != "posix", reason="locks and signals of POSIX")


def test_text_and_bytes_arrive_as_given(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "deep" / "a.txt", "größe\nb\r\n")
    assert (tmp_path / "new" / "deep" / "a.txt").read_bytes() == "größe\nb\r\n".encode()
    write_bytes(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        assert target.read_text() == "old"
        raise RuntimeError
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


def test_an_interrupt_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


def test_the_temporary_file_lies_in_the_same_folder(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        temporary.write_text("x")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_what_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write") as caught:
        write_text(tmp_path / "file" / "a", "x")
    assert len(str(caught.value).splitlines()) == 1


def test_a_target_that_is_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "a", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="choose a folder that is writable"):
            write_text(tmp_path / "a", "x")
    finally:
        tmp_path.chmod(0o700)


HOLDING = """
import sys, time
from pathlib import Path
from dspt.files import atomic_path, locked
holder = atomic_path(Path(sys.argv[2])) if sys.argv[1] == "file" else locked(Path(sys.argv[2]))
with holder as held:
    print(held, flush=True)
    time.sleep(60)
"""


def holding(what: str, path: Path) -> subprocess.Popen[str]:
    """A process in the middle of writing ``path``, or holding it as a lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, what, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@posix
def test_what_a_killed_writer_left_goes_with_the_next_start_and_not_before(tmp_path: Path) -> None:
    writer = holding("file", tmp_path / "a")
    (temporary,) = tmp_path.iterdir()
    remove_abandoned(tmp_path)
    write_text(tmp_path / "a", "by another")
    assert temporary.exists(), "its writer lives"
    killed(writer)
    assert temporary.exists()
    write_text(tmp_path / "b", "another file")
    assert temporary.exists()
    write_text(tmp_path / "a", "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@posix
def test_only_temporary_files_of_ours_are_removed(tmp_path: Path) -> None:
    ours = [".a.abcdefgh.tmp", ".name with.dots\n.01234567.tmp"]
    others = ["a.tmp", ".tmp", ".a.tmp", ".a.ABCDEFGH.tmp", ".a.abc.tmp", ".a.abcdefgh.tmp.png"]
    for name in (*ours, *others):
        (tmp_path / name).write_text("x")
    outside = tmp_path / "outside"
    outside.write_text("x")
    (tmp_path / ".link.abcdefgh.tmp").symlink_to(outside)
    remove_abandoned(tmp_path, "a")
    assert not (tmp_path / ours[0]).exists()
    assert (tmp_path / ours[1]).exists()
    remove_abandoned(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, "outside", ".link.abcdefgh.tmp"}
    remove_abandoned(tmp_path / "nowhere")


@posix
def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    holder = holding("lock", path)
    with locked(path, blocking=False) as held:
        assert not held
    killed(holder)
    with locked(path) as held:
        assert held
    assert list(path.parent.iterdir()) == []


def test_tensors_are_written_as_the_library_writes_them(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.uint8)}
    write_tensors(tmp_path / "ours", tensors, {"format": "x"})
    save_file(tensors, tmp_path / "theirs", metadata={"format": "x"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert torch.equal(load_file(tmp_path / "ours")["a"], tensors["a"])


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="make room") as caught, atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
