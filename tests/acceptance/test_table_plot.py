"""``dspt table`` and ``dspt plot`` on folders of results."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from tests.acceptance.calling import Caller, in_a_process
from tests.report import made


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for place, result in enumerate(made.sweep(("symmetric", "asymmetric"), seeds=2)):
        run = folder / "cells" / f"run-{place}"
        run.mkdir(parents=True)
        result.write(run / "result.json")
    return folder


def test_table_to_the_terminal_and_to_a_file(dspt: Caller, results: Path, tmp_path: Path) -> None:
    answer = dspt.ok("table", results)
    assert "## cifar10-small, dspt-mini-160, 10 classes, 16 shots" in answer.out
    assert "DSPT minus each other method" in answer.out
    assert answer.err == ""
    assert dspt.ok("table", results, "--out", tmp_path / "t.md").out == ""
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == answer.out


def test_every_format(dspt: Caller, results: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(dspt.ok("table", results, "--format", "csv").out)))
    assert len(rows) == 4 * 7
    assert {row["method"] for row in rows} == {"ce", "gce", "mae", "dspt"}
    assert r"\toprule" in dspt.ok("table", results, "--format", "latex").out
    assert "calibration error" in dspt.ok("table", results, "--metric", "calibration").out
    assert "GCE (q = 0.7) minus" in dspt.ok("table", results, "--against", "gce").out


def test_plot(dspt: Caller, results: Path, tmp_path: Path) -> None:
    answer = dspt.ok("plot", results, "--out", tmp_path / "figure")
    assert answer.out.split() == [str(tmp_path / "figure.png"), str(tmp_path / "figure.svg")]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    dspt.ok("plot", results, "--out", tmp_path / "dark.svg", "--dark")
    assert (tmp_path / "dark.svg").read_text() != (tmp_path / "figure.svg").read_text()


def test_refusals(dspt: Caller, results: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no result found below" in dspt.refused("table", empty)
    assert "no result found below" in dspt.refused("plot", empty, "--out", tmp_path / "x.png")
    assert "is no folder" in dspt.refused("table", tmp_path / "nowhere")
    assert "format: must be one of" in dspt.refused("table", results, "--format", "html")
    assert "metric: must be one of" in dspt.refused("table", results, "--metric", "speed")
    assert "no result is of the method 'elr'" in dspt.refused("table", results, "--against", "elr")
    assert "give .png, .svg" in dspt.refused("plot", results, "--out", tmp_path / "x.pdf")
    assert not (tmp_path / "x.png").exists()


def test_broken_results_are_named_and_left_out(dspt: Caller, results: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "result.json").write_text('{"schema_version": 2}')
    answer = dspt.ok("table", results, broken)
    assert answer.err.startswith("warning: left out: ")
    assert str(broken / "result.json") in answer.err.replace("\n", "")
    assert "1 file could not be read" in answer.out
    answer = dspt.ok("plot", results, broken, "--out", tmp_path / "p.svg")
    assert "warning: left out: " in answer.err


def test_in_a_process_of_its_own(results: Path) -> None:
    answer = in_a_process("table", results)
    assert answer.code == 0, answer.err
    assert "±" in answer.out
