"""Real photographs and real human labels, cut down to what a test can afford."""

from __future__ import annotations

import json
import shutil
from itertools import groupby
from pathlib import Path

import pytest
from tests.acceptance.calling import Caller
from tests.shared_data import shared_data

SPLIT_FILE = "split_zhou_Caltech101.json"


def some_of_each_class(rows: list[list[object]], n: int) -> list[list[object]]:
    by_class = groupby(sorted(rows, key=lambda row: (row[1], row[0])), key=lambda row: row[1])
    return [row for _, group in by_class for row in list(group)[:n]]


def test_caltech_101_in_the_fields_own_layout(dspt: Caller, tmp_path: Path) -> None:
    source = shared_data("caltech-101")
    split = json.loads((source / SPLIT_FILE).read_text())
    cut = {name: some_of_each_class(split[name], n) for name, n in (("train", 2), ("test", 1))}
    cut["val"] = []
    for row in cut["train"] + cut["test"]:
        target = tmp_path / "data" / "101_ObjectCategories" / str(row[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / "101_ObjectCategories" / str(row[0]), target)
    (tmp_path / "data" / SPLIT_FILE).write_text(json.dumps(cut))

    run = tmp_path / "run"
    dspt.ok(
        *("fit", tmp_path / "data", "--out", run, "-q", "--epochs", "1", "--shots", "2"),
        *("--noise", "symmetric:0.5", "--init", "a photo of a"),
    )
    result = json.loads((run / "result.json").read_text())
    assert (result["data"]["n_train"], result["data"]["n_test"]) == (200, 100)
    assert result["noise"]["n_wrong"] == 100
    assert result["zero_shot"]["template"] == "a photo of a {}."
    # A model that knows photographs at all; one warm-up epoch must not cost it that.
    assert result["zero_shot"]["test"]["accuracy"] > 0.05
    assert result["final"]["accuracy"] > 0.05
    assert result["epochs"][0]["accuracy_test"] == result["zero_shot"]["test"]["accuracy"]


def test_cifar_10n_with_human_labels(dspt: Caller, ground: Path, tmp_path: Path) -> None:
    source = shared_data("cifar-10n")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "data").mkdir()
    shutil.copyfile(source / "classes.txt", tmp_path / "data" / "classes.txt")
    for name, n in (("train", 200), ("test", 50)):
        with parquet.ParquetFile(source / f"{name}.parquet") as file:
            table = file.read_row_group(0).slice(0, n)
        parquet.write_table(table, tmp_path / "data" / f"{name}.parquet")

    run = tmp_path / "run"
    dspt.ok(
        *("fit", tmp_path / "data", "--out", run, "-q", "--epochs", "1", "--shots", "1"),
        *("--noise", "column:worse_label", "--backbone", ground / "model"),
    )
    result = json.loads((run / "result.json").read_text())
    assert result["data"]["class_names"][:3] == ["airplane", "automobile", "bird"]
    assert (result["data"]["n_train"], result["data"]["n_test"]) == (10, 50)
    assert result["noise"]["true_labels_known"]
    assert sum(map(sum, result["noise"]["transition"])) == 10
    wrong = [line for line in (run / "labels.csv").read_text().splitlines() if ",train," in line]
    differing = [line for line in wrong if len(set(line.split(",")[2:])) == 2]
    assert len(differing) == result["noise"]["n_wrong"]
    everything = tmp_path / "everything"
    dspt.ok(
        *("fit", tmp_path / "data", "--out", everything, "-q", "--epochs", "1", "--shots", "all"),
        *("--noise", "column:worse_label", "--backbone", ground / "model"),
    )
    realised = json.loads((everything / "result.json").read_text())["noise"]["realised_rate"]
    assert realised == pytest.approx(0.4, abs=0.12)  # CIFAR-10N's worst labels: 40 %
