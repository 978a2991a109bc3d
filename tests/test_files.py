from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dspt.errors import UserError
from dspt.files import atomic_path, write_bytes, write_text


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
