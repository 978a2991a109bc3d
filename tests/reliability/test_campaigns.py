"""The campaigns of tools/reliability, so small that they take seconds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tools.reliability import bounded, full_disk, kills, together
from tools.reliability.jobs import litter, outcome

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and fork of POSIX")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reliability")


def small(work: Path, *options: str) -> list[str]:
    return ["--work", str(work), "--tiny", "--out", str(work / "json"), *options]


def test_killed_and_started_again_it_ends_as_if_undisturbed(work: Path) -> None:
    jobs = ("--job", "fit", "--job", "features", "--kills", "3")
    tallies = kills.main(small(work / "kills", *jobs))
    assert [tally.job for tally in tallies] == ["fit", "features"]
    for tally in tallies:
        assert tally.wrong == []
        assert tally.kills == sum(tally.found.values()) == 3
        assert tally.identical == tally.trials > 0
        assert tally.epochs_again == tally.pictures_again == tally.results_again == 0
        assert tally.temporary_at_end == 0
    told = json.loads((work / "kills" / "json" / "kills.json").read_text())
    assert told["numbers"]["fit"]["kills"] == 3


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(work: Path) -> None:
    options = ("--job", "fit", "--kills", "1", "--signal", "INT", "--name", "interruptions")
    (tally,) = kills.main(small(work / "kills", *options))
    assert tally.wrong == []
    assert tally.identical == tally.trials > 0


def test_several_at_once_damage_nothing_and_repeat_nothing(work: Path) -> None:
    options = ("--job", "fit", "--job", "features", "--processes", "2", "--rounds", "2")
    for tally in together.main(small(work / "together", *options)):
        assert tally.wrong == []
        assert tally.ended_well + tally.kills == 4 + tally.started_again
        assert tally.trained_twice == 0
        assert tally.kills or tally.encoded_twice == 0


@pytest.mark.skipif(not full_disk.can_mount(), reason="needs root on Linux, to mount small disks")
def test_a_full_disk_and_a_read_only_folder_lose_nothing(work: Path) -> None:
    tallies = full_disk.main(small(work / "disk", "--job", "fit", "--sizes", "16"))
    assert [(t.where, t.what) for t in tallies] == [
        (where, what) for where in ("out", "cache") for what in ("full", "read-only")
    ]
    assert [tally.wrong for tally in tallies] == [[]] * 4
    assert all(tally.identical == 1 for tally in tallies)
    refused = {(t.where, t.what): t.refused for t in tallies}
    assert refused["out", "full"] == refused["out", "read-only"] == 1
    assert refused["cache", "read-only"] == 1


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads memory from /proc")
def test_memory_and_time_are_measured(work: Path) -> None:
    options = ("--rows", "300", "--files", "--cells")
    answers = bounded.main(["--work", str(work / "b"), "--out", str(work / "json"), *options])
    (row,) = answers["extraction"]
    assert row["rows"] == 300
    assert row["result_mib"] == pytest.approx(300 * 512 * 4 / 2**20)
    for what in ("first", "again"):
        assert 0 <= row[f"{what}_anonymous_mib"] <= row[f"{what}_resident_mib"] < 200


def test_what_counts_as_the_same_outcome(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"a": 1, "time": {"total": 2}}')
    (tmp_path / ".a.abcdefgh.tmp").write_text("half")
    before = outcome(tmp_path)
    assert litter(tmp_path) == [".a.abcdefgh.tmp"]
    (tmp_path / "result.json").write_text('{"a": 1, "time": {"total": 3}}')
    assert outcome(tmp_path) == before
    (tmp_path / "result.json").write_text('{"a": 2, "time": {"total": 3}}')
    assert outcome(tmp_path) != before
