from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import files_of

import dspt.large_arrays
from dspt.large_arrays import LargeArray


def test_small_ones_are_in_memory_and_large_ones_in_a_file_without_a_name(tmp_path: Path) -> None:
    for size, mapped in ((1000, False), (1001, True)):
        made = LargeArray((size,), np.uint8, tmp_path / str(size), in_memory=1000)
        assert made.mapped == mapped
        assert not made.values.any()
        assert (tmp_path / str(size)).exists() == mapped
    assert files_of(tmp_path) == {}


def test_values_outlive_the_release_of_their_memory(tmp_path: Path) -> None:
    made = LargeArray((300, 7, 5), np.float32, tmp_path, in_memory=0)
    expected = np.random.default_rng(0).random((300, 7, 5), dtype=np.float32)
    for start in range(0, 300, 100):
        made.values[start : start + 100] = expected[start : start + 100]
        made.release()
    assert np.array_equal(made.values, expected)
    values = made.values
    del made
    assert np.array_equal(values, expected)


def test_memory_is_given_back(tmp_path: Path) -> None:
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("this system does not tell a process's memory")

    def resident() -> int:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["RssFile"].split()[0]) + int(lines["RssShmem"].split()[0])

    made = LargeArray((32, 1 << 20), np.uint8, tmp_path, in_memory=0)
    before = resident()
    made.values[:] = 1
    assert resident() - before > 30 * 1024
    made.release()
    assert resident() - before < 2 * 1024


@pytest.mark.parametrize("why", ["full", "no folder"])
def test_without_room_for_a_file_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def full(*given: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if why == "full":
        monkeypatch.setattr(dspt.large_arrays.os, "posix_fallocate", full, raising=False)
    else:
        (tmp_path / "a").write_text("")
    made = LargeArray((5, 2), np.float32, tmp_path / "a", in_memory=0)
    assert not made.mapped
    assert made.values.shape == (5, 2)
    assert set(files_of(tmp_path)) <= {"a"}
    made.release()


def test_where_no_room_can_be_reserved_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(dspt.large_arrays.os, "posix_fallocate", raising=False)
    monkeypatch.setattr(dspt.large_arrays, "_BLOCK", 64)
    made = LargeArray((100, 3), np.float32, tmp_path, in_memory=0)
    assert made.mapped
    assert not made.values.any()
    made.values[99] = 7
    assert made.values.sum() == 21
