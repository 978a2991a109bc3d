"""``dspt export`` and the files of ``dspt predict``."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from tests.acceptance.calling import Caller
from tests.tiny import files_of

from dspt.cli import predict as predict_module


@pytest.fixture
def run(dspt: Caller, ground: Path) -> Path:
    """A finished run, made once."""
    folder = ground / "exported-run"
    if not (folder / "result.json").is_file():
        dspt.ok(
            *("fit", ground / "pictures", "--out", folder, "-q", "--epochs", "2"),
            *("--backbone", ground / "model"),
        )
    return folder


def test_export_writes_beside_the_run_or_where_it_is_told(
    dspt: Caller, run: Path, tmp_path: Path
) -> None:
    answer = dspt.ok("export", run)
    beside = run / "export"
    assert answer.out.splitlines() == [
        str(beside / "classifier.safetensors"),
        str(beside / "classifier.json"),
    ]
    about = json.loads((beside / "classifier.json").read_text(encoding="utf-8"))
    assert about["class_names"] == ["blue", "green", "red"]
    assert load_file(beside / "classifier.safetensors")["weight"].shape == (3, 16)
    told = dspt.ok("export", run / "prompt.safetensors", "--out", tmp_path / "out", "-q")
    assert told.err == ""
    assert files_of(tmp_path / "out") == files_of(beside)


def test_export_onnx(dspt: Caller, run: Path, tmp_path: Path) -> None:
    answer = dspt.ok("export", run, "--onnx", "--out", tmp_path / "out")
    assert answer.out.splitlines()[-1] == str(tmp_path / "out" / "classifier.onnx")
    assert "onnxruntime's outputs agree with ours to" in answer.err
    assert set(files_of(tmp_path / "out")) == {
        "classifier.json",
        "classifier.onnx",
        "classifier.safetensors",
    }


def test_export_refuses(
    dspt: Caller, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "dspt fit" in dspt.refused("export", tmp_path / "nothing", "-q")
    (tmp_path / "file").write_text("")
    assert "cannot write" in dspt.refused("export", run, "--out", tmp_path / "file", "-q")
    monkeypatch.setitem(sys.modules, "onnx", None)
    line = dspt.refused("export", run, "--onnx", "--out", tmp_path / "out", "-q")
    assert "pip install 'dspt[onnx]'" in line
    assert not (tmp_path / "out").exists()


def test_predictions_in_files_are_those_on_standard_output(
    dspt: Caller, run: Path, ground: Path, tmp_path: Path
) -> None:
    call = ("predict", run, ground / "pictures", "-q", "--top", "2")
    for format in ("text", "csv", "jsonl"):
        shown = dspt.ok(*call, "--format", format)
        written = dspt.ok(*call, "--format", format, "--out", tmp_path / format)
        assert written.out == written.err == ""
        assert (tmp_path / format).read_text(encoding="utf-8") == shown.out
    assert dspt.ok(*call, "--format", "parquet", "--out", tmp_path / "p").out == ""
    rows = pq.read_table(tmp_path / "p").to_pylist()
    told = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))
    assert len(rows) == len(told) == 36
    for row, expected in zip(rows, told, strict=True):
        assert list(row) == ["image", "rank", "label", "probability"]
        assert (row["image"], row["label"]) == (expected["image"], expected["label"])
        assert row["rank"] == int(expected["rank"])
        assert row["probability"] == pytest.approx(float(expected["probability"]), abs=1e-6)


def test_parquet_is_written_bit_by_bit(
    dspt: Caller, run: Path, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows leave the memory in groups, so a million pictures need no more than a few."""
    monkeypatch.setattr(predict_module, "ROWS_AT_ONCE", 5)
    target = tmp_path / "p.parquet"
    dspt.ok("predict", run, ground / "pictures", "-q", "--format", "parquet", "--out", target)
    file = pq.ParquetFile(target)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [5, 5, 5, 3]


def test_a_file_appears_only_when_it_is_complete(
    dspt: Caller, run: Path, ground: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    one = ground / "pictures" / "red" / "000.png"
    for format in ("csv", "parquet"):
        target = tmp_path / f"out.{format}"
        options = ("-q", "--format", format, "--out", target)
        line = dspt.refused("predict", run, one, tmp_path / "broken.png", "--strict", *options)
        assert "broken.png" in line
        assert dspt("predict", run, tmp_path / "broken.png", *options).code == 2
        assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


def test_names_that_are_no_text_are_written_escaped(
    dspt: Caller, run: Path, ground: Path, tmp_path: Path
) -> None:
    import os

    try:
        odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
        odd.write_bytes((ground / "pictures" / "red" / "000.png").read_bytes())
    except OSError:
        pytest.skip("this file system holds only names that are text")
    target = tmp_path / "p"
    dspt.ok("predict", run, odd, "-q", "--format", "parquet", "--out", target)
    assert pq.read_table(target)["image"].to_pylist() == [f"{tmp_path}/\\xff.png"]
    dspt.ok("predict", run, odd, "-q", "--format", "jsonl", "--out", target)
    assert "\\udcff.png" in target.read_text(encoding="utf-8")


def test_formats_are_checked_first(dspt: Caller, run: Path, ground: Path) -> None:
    pictures = ground / "pictures"
    assert "text, csv, jsonl, parquet, not 'xml'" in dspt.refused(
        "predict", run, pictures, "--format", "xml"
    )
    assert "--out" in dspt.refused("predict", run, pictures, "--format", "parquet")
