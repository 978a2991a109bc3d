"""``dspt bench`` as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.acceptance.calling import Caller

from dspt.bench.grid import preset_names
from dspt.result import RunResult


@pytest.fixture
def grid(ground: Path, tmp_path: Path) -> Path:
    """A grid file on the tiny model."""
    fields = {
        "data": [str(ground / "pictures")],
        "backbones": [str(ground / "model")],
        "methods": ["zero-shot", "ce", "dspt"],
        "kinds": ["symmetric"],
        "rates": [0, 0.5],
        "shots": 4,
        "seeds": [1, 2],
        "recipe": {"epochs": 2, "batch_size": 4},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(fields))
    return tmp_path / "grid.yaml"


def results(out: Path) -> list[RunResult]:
    return [RunResult.read(path) for path in sorted(out.glob("cells/*/result.json"))]


def test_a_grid_file_becomes_a_folder_and_a_table(dspt: Caller, grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = dspt.ok("bench", grid, "--out", out)
    assert len(results(out)) == 12
    for words in ("cells", "estimated", "Zero-shot", "DSPT", "50", "12 of 12 finished"):
        assert words in answer.out
    assert f"dspt table {out}" in answer.out
    assert "12 of 12 cells" in answer.err
    again = dspt.ok("bench", grid, "--out", out, "--quiet")
    assert "nothing left to do" in again.out
    assert "0 cells computed, 12 of 12 finished" in again.out
    assert again.err == ""


def test_a_bench_is_tracked(dspt: Caller, grid: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "out"
    dspt.ok("bench", grid, "--out", out, "--quiet", "--tensorboard", "--seed", "1")
    tracked = {path.parent.parent.name for path in out.glob("cells/*/tensorboard/events*")}
    trained = {path.parent.name for path in out.glob("cells/*/metrics.jsonl")}
    assert tracked == trained
    assert len(tracked) == 4  # zero-shot has no epochs


def test_a_dry_run_shows_the_plan_and_leaves_nothing(
    dspt: Caller, grid: Path, tmp_path: Path
) -> None:
    answer = dspt.ok("bench", grid, "--dry-run", "--out", tmp_path / "out")
    assert "estimated" in answer.out
    assert "finished" in answer.out
    assert not (tmp_path / "out").exists()


def test_options_are_enough_and_stand_above_a_file(
    dspt: Caller, grid: Path, ground: Path, tmp_path: Path
) -> None:
    given = ["--method", "mae", "--noise", "none", "--seed", "5", "--epochs", "1"]
    dspt.ok("bench", grid, *given, "--out", tmp_path / "over")
    (result,) = results(tmp_path / "over")
    assert (result.config.method, result.config.seed) == ("mae", 5)
    assert (result.config.recipe.epochs, result.config.recipe.batch_size) == (1, 4)
    dspt.ok(
        *("bench", "--data", ground / "pictures", "--backbone", ground / "model", *given),
        *("--shots", "all", "--init", "a photo of a", "--out", tmp_path / "alone"),
    )
    (result,) = results(tmp_path / "alone")
    assert result.config.shots is None
    assert result.config.prompt.init == "a photo of a"


def test_what_is_wrong_is_said_in_one_line(dspt: Caller, grid: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "what to run" in dspt.refused("bench", *out)
    assert "unknown" in dspt.refused("bench", "--preset", "smok", *out)
    assert "not both" in dspt.refused("bench", grid, "--preset", "smoke", *out)
    assert "not both" in dspt.refused("bench", grid, "--seed", "1", "--seeds", "2", *out)
    assert "shots" in dspt.refused("bench", grid, "--shots", "few", *out)
    assert "cee" in dspt.refused("bench", grid, "--method", "cee", *out)
    assert "symmetric:0.5" in dspt.refused("bench", grid, "--rate", "50", *out)
    assert "nowhere" in dspt.refused("bench", grid, "--data", "nowhere", *out)
    grid.write_text("data: [demo]\nmethods: [ce]\nseed: [1]\n")
    line = dspt.refused("bench", grid, *out)
    assert "grid.yaml: seed: no such field" in line
    assert not (tmp_path / "out").exists()


def test_a_cell_without_a_result_is_listed(dspt: Caller, grid: Path, tmp_path: Path) -> None:
    given = ["--method", "ce", "--noise", "none", "--noise", "column:tag", "--seed", "1"]
    answer = dspt("bench", grid, *given, "--out", tmp_path / "out")
    assert answer.code == 2
    assert "1 of 2 finished" in answer.out
    assert "column-tag" in answer.err.splitlines()[-1]


def test_killed_by_the_system_the_same_command_goes_on(
    dspt: Caller, grid: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["bench", str(grid), "--epochs", "2000", "--method", "ce", "--out", str(out)]
    running = subprocess.Popen(
        [sys.executable, "-m", "dspt", *command], stderr=subprocess.PIPE, env=os.environ
    )
    try:
        while not list(out.glob("groups/*.safetensors")):
            assert running.poll() is None, running.stderr and running.stderr.read()
            time.sleep(0.05)
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
    (record,) = out.glob("groups/*.json")
    assert len(json.loads(record.read_text())["cells"]) == 4
    assert results(out) == []
    plan = dspt.ok(*command, "--dry-run").out
    assert "1 groups were begun by an earlier call" in plan


def test_an_interruption_ends_the_command_and_not_the_bench(
    dspt: Caller, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dspt.bench.run.fit_many", interrupted)
        answer = dspt("bench", grid, "--out", tmp_path / "out", "--quiet")
    assert answer.code == 130
    assert "Traceback" not in answer.err
    assert "12 of 12 finished" in dspt.ok("bench", grid, "--out", tmp_path / "out").out


def test_the_help_names_every_preset(dspt: Caller) -> None:
    text = " ".join(dspt.ok("bench", "--help").out.replace("│", " ").split())
    for name in preset_names():
        assert name in text


def test_the_smoke_preset_runs(dspt: Caller, tmp_path: Path) -> None:
    fewer = ("--classes", "first:3", "--seed", "3")
    answer = dspt.ok("bench", "--preset", "smoke", *fewer, "--out", tmp_path / "smoke")
    assert "10 of 10 finished" in answer.out
    assert {result.config.seed for result in results(tmp_path / "smoke")} == {3}
