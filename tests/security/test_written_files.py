"""What is written: private while it is unfinished, then as the umask says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspt.files import atomic_path, write_text


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_modes(tmp_path: Path, umask: int) -> None:
    with atomic_path(tmp_path / "file") as temporary:
        assert mode(temporary) == 0o600
    assert mode(tmp_path / "file") == 0o666 & ~umask
    assert os.umask(umask) == umask, "the process keeps its own"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (tmp_path / "link").symlink_to(outside)
    write_text(tmp_path / "link", "new")
    assert outside.read_text() == "untouched"
    assert not (tmp_path / "link").is_symlink()
