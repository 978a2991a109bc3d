"""``dspt audit``: what it prints, what it refuses, and that it finds what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.acceptance.calling import Answer, Caller
from tests.audit.ground import CLASSES, WRONG, N, rows_of, write_planted
from tests.tiny import files_of, write_model

from dspt.audit import EVIDENCE
from dspt.audit.prompts import EPOCHS
from dspt.data import load_dataset
from dspt.fitting import fit


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit-cli")
    model = write_model(folder / "model")
    data = write_planted(folder / "colours", WRONG)
    fit(data, model, device="cpu", out=folder / "run", shots=4, recipe={"epochs": 1})
    return folder


@pytest.fixture(autouse=True)
def _one_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dspt.audit.prompts.EPOCHS", 1)
    monkeypatch.chdir(tmp_path)


def audited(dspt: Caller, ground: Path, *options: str | Path) -> Answer:
    return dspt.ok("audit", ground / "colours", "--backbone", ground / "model", "-q", *options)


def test_a_summary_a_folder_and_a_corrected_manifest(
    dspt: Caller, ground: Path, tmp_path: Path
) -> None:
    original = files_of(ground / "colours")
    shutil.copytree(ground / "colours", tmp_path / "colours")
    call = ("audit", "colours", "--backbone", ground / "model", "-q")
    answer = dspt.ok(*call, "--apply", "new.csv", "--top", "2")
    assert answer.err == ""
    lines = answer.out.splitlines()
    assert lines[0] == "colours: 3 classes, 24 labels audited"
    assert lines[1].startswith("probably wrong: ")
    assert lines[1].endswith("for 3 another class is more probable")
    assert lines[2].startswith("labels most affected: ")
    assert all(f"{name} (1 of 8)" in lines[2] for name in CLASSES)
    suspects = [line for line in lines if line.startswith("  ")]
    assert len(suspects) == 2
    for line in suspects:
        image, change = line.strip().split(": ")
        assert change.startswith(f"{image.split('/')[0]} -> {WRONG[image]}, ")
    assert "look: audit-colours/audit.html; every label: audit-colours/audit.csv" in lines
    assert lines[-1] == (
        "corrected: new.csv, 3 of 24 labels replaced where the proposal's confidence is at least "
        "0.7"
    )
    assert any("follow the model's own confusions are not seen" in line for line in lines)
    assert "Do not trust" not in answer.out
    assert {path.name for path in tmp_path.iterdir()} == {"colours", "audit-colours", "new.csv"}
    assert set(files_of(tmp_path / "audit-colours")) == {"audit.csv", "audit.html", "audit.json"}
    assert files_of(tmp_path / "colours") == original
    mended = load_dataset("new.csv", holdout=0)
    for i, key in enumerate(mended.keys(range(3 * N))):
        name = key.removeprefix("colours/")
        assert mended.class_names[mended.labels[i]] == WRONG.get(name, name.split("/")[0])
    # Again: shown as it is, and the manifest is never written over.
    assert dspt.ok(*call).out.splitlines()[:2] == lines[:2]
    assert "new.csv exists" in dspt.refused(*call, "--apply", "new.csv")
    bold = dspt.ok(*call, "--apply", "bold.csv", "--confidence", "1").out
    assert "bold.csv, 0 of 24" in bold


def test_json_is_the_record(dspt: Caller, ground: Path, tmp_path: Path) -> None:
    answer = audited(dspt, ground, "--json", "--out", "o", "--apply", ground / "json.csv")
    (ground / "json.csv").unlink()
    record = json.loads(answer.out)
    assert record == json.loads((tmp_path / "o" / "audit.json").read_text())
    assert (record["n"], record["quality"]) == (3 * N, None)


def test_wrong_labels_made_on_purpose_are_counted(dspt: Caller, ground: Path) -> None:
    out = audited(dspt, ground, "--noise", "symmetric:0.25", "--shots", "6", "--seed", "2").out
    assert "colours: 3 classes, 18 labels audited" in out
    rows = rows_of(Path("audit-colours/audit.csv"))
    wrong = sum(row["given_label"] != row["true_label"] for row in rows)
    assert f"really wrong: {100 * wrong / 18:.1f} %, {wrong} labels" in out
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("evidence "))
    table = [line.split() for line in lines[head + 1 : head + 8]]
    measured = {words[0]: [float(word) for word in words[-3:]] for words in table}
    quality = json.loads(Path("audit-colours/audit.json").read_text())["quality"]["evidence"]
    assert measured["Doubt"] == pytest.approx(list(quality["doubt"].values()), abs=5e-4)
    assert measured["Suspicion"] == pytest.approx(list(quality["suspicion"].values()), abs=5e-4)
    assert [name.lower().replace("-", "_") for name in measured] == list(EVIDENCE)


def test_a_run_is_audited_in_its_folder(dspt: Caller, ground: Path) -> None:
    out = dspt.ok("audit", ground / "run", "-q").out
    assert "colours: 3 classes, 12 labels audited" in out
    saw = {r["image"] for r in rows_of(ground / "run" / "labels.csv") if r["split"] == "train"}
    assert {row["image"] for row in rows_of(ground / "run" / "audit" / "audit.csv")} == saw
    line = dspt.refused("audit", ground / "run", "-q", "--label-column", "x")
    assert line.startswith("dspt: error: label-column: chooses from DATA")
    for option in (["--noise", "none"], ["--backbone", "default"], ["--split", "train"]):
        assert "is a run, audited as it was" in dspt.refused("audit", ground / "run", *option)


def test_a_model_that_knows_nothing_of_the_labels_is_told(
    dspt: Caller, ground: Path, tmp_path: Path
) -> None:
    """Class names without meaning: then no ranking can be trusted, and the page says so too."""
    for number, name in enumerate(CLASSES):
        other = CLASSES[(number + 1) % 3]
        for place in range(2):
            shutil.copytree(
                ground / "colours" / (name, other)[place], tmp_path / f"d{place}" / name
            )
        for picture in (tmp_path / "d1" / name).iterdir():
            shutil.move(picture, tmp_path / "d0" / name / f"1{picture.name}")
    call = ("audit", "d0", "--backbone", ground / "model", "-q", "--noise", "symmetric:0.9")
    out = dspt.ok(*call).out
    assert out.splitlines()[1].startswith("warning: Do not trust this ranking")
    assert "Do not trust this ranking" in Path("audit-d0/audit.html").read_text(encoding="utf-8")
    assert json.loads(Path("audit-d0/audit.json").read_text())["informed"] is False


def test_unreadable_pictures_are_named(dspt: Caller, ground: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(ground / "colours", tmp_path / "colours"))
    for number in range(12):
        (data / "red" / f"x{number}.png").write_bytes(b"no")
    answer = dspt.ok("audit", data, "--backbone", ground / "model", "-q")
    assert "24 labels audited" in answer.out
    assert answer.err.count("left out: ") == 11
    assert "left out: 2 more" in answer.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "no such file or folder"),
        (["demo", "--confidence", "0.9"], "confidence: is asked of proposals by --apply"),
        (["demo", "--apply", "x.txt"], "apply: x.txt must end in"),
        (["demo", "--apply", "x.csv"], "name a .parquet file"),
        (["demo", "--apply", "x.parquet", "--noise", "pair:0.2"], "nothing to correct"),
        (["demo", "--split", "everything"], "split: must be train, val, test, all"),
        (["demo", "--split", "val"], "has no 'val'"),
        (["demo", "--shots", "0"], "--shots"),
        (["demo", "--noise", "column:nobody", "--classes", "first:2", "--shots", "4"], "nobody"),
        (["demo", "--out", "file"], "out: file is a file"),
        (["demo", "--template", "no place"], "template: must hold"),
    ],
)
def test_mistakes_are_one_line(
    dspt: Caller, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("")
    assert message in dspt.refused("audit", *options, "-q")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_wrong_labels_of_real_photographs_rank_first(
    dspt: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packaged pictures and model, every prompt trained as long as it takes."""
    monkeypatch.setattr("dspt.audit.prompts.EPOCHS", EPOCHS)
    call = ["--classes", "first:6", "--shots", "8", "--noise", "symmetric:0.25"]
    dspt.ok("audit", "demo", *call, "-q", "--out", "out")
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert record["quality"]["evidence"]["doubt"]["auroc"] > 0.85
    low, high = record["noise_interval"]
    assert low <= record["quality"]["noise_rate"] <= high
