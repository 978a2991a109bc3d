from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.acceptance.calling import Caller, in_a_process
from tests.tiny import FINISHED_RUN, draw, encoded, files_of, write_pictures

from dspt.cli import main

FOREIGN = re.compile(
    r"""(?:src|href|url|action|data)\s*[=(]\s*["']?\s*(?:https?:)?//""", re.IGNORECASE
)


def assert_self_contained(page: str) -> None:
    """Nothing is loaded from elsewhere, and no link leads to a file beside the page."""
    assert page.lstrip().lower().startswith("<!doctype html>")
    loads = re.findall(r"<(?:script|img|link|iframe|source|video)\b[^>]*", page)
    assert not [tag for tag in loads if FOREIGN.search(tag)]
    assert "@import" not in page
    for address in re.findall(r"""\bsrc\s*=\s*["']([^"']*)""", page):
        assert address.startswith("data:"), address[:80]


def test_fit_eval_predict_zeroshot_with_the_packaged_model(dspt: Caller, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", ("red", "green", "blue"), 8)
    run = tmp_path / "run"
    answer = dspt.ok("fit", tmp_path / "pictures", "--out", run, "--epochs", "3", "--seed", "0")
    assert set(files_of(run)) == FINISHED_RUN
    assert "3 classes, 18 training labels" in answer.out
    assert "zero-shot" in answer.out
    assert f"report: {run / 'report.html'}" in answer.out
    assert "training" in answer.err  # the progress goes to standard error
    assert "training" not in answer.out.replace("training labels", "")
    assert_self_contained((run / "report.html").read_text(encoding="utf-8"))

    result = json.loads((run / "result.json").read_text())
    assert result["config"]["seed"] == 0
    measured = json.loads(dspt.ok("eval", run, "--json", "-q").out)
    assert measured["tuned"] == result["final"]
    assert measured["zero_shot"] == result["zero_shot"]["test"]
    told = dspt.ok("eval", run, tmp_path / "pictures", "--split", "train", "-q")
    assert "pictures (train): 3 classes, 18 pictures" in told.out
    assert re.search(r"^tuned +\d+\.\d %", told.out, re.MULTILINE)
    assert "worst classes: " in told.out
    assert told.err == ""

    plain = dspt.ok("predict", run, tmp_path / "pictures" / "red", "-q")
    assert plain.err == ""
    lines = plain.out.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith(f"{tmp_path / 'pictures' / 'red' / '000.png'}\t")
    as_json = dspt.ok(
        *("predict", run, tmp_path / "pictures", "-q", "--format", "jsonl", "--top", "2")
    ).out
    records = [json.loads(line) for line in as_json.splitlines()]
    assert len(records) == 24
    as_csv = dspt.ok(
        *("predict", run, tmp_path / "pictures", "-q", "--format", "csv", "--top", "2")
    ).out
    table = list(csv.DictReader(io.StringIO(as_csv)))
    assert len(table) == 48
    for number, row in enumerate(table):
        record = records[number // 2]
        best = record["predictions"][number % 2]
        assert (row["image"], int(row["rank"])) == (record["image"], number % 2 + 1)
        assert row["label"] == best["label"]
        assert float(row["probability"]) == pytest.approx(best["probability"], abs=2e-6)
    assert len(dspt.ok("predict", run, tmp_path / "pictures", "-q", "--top", "99").out) > 0

    zero = json.loads(dspt.ok("zeroshot", tmp_path / "pictures", "--json", "-q").out)
    assert zero["zero_shot"] == result["zero_shot"]["test"]
    assert zero["tuned"] is None


def test_a_finished_run_is_shown_again(dspt: Caller, ground: Path, tmp_path: Path) -> None:
    call = [
        *("fit", ground / "pictures", "--out", tmp_path / "run", "-q", "--epochs", "2"),
        *("--backbone", ground / "model"),
    ]
    first = dspt.ok(*call)
    before = files_of(tmp_path / "run")
    again = dspt.ok(*call)
    assert again.out == first.out
    assert files_of(tmp_path / "run") == before


def test_every_option_of_fit_arrives(dspt: Caller, ground: Path, tmp_path: Path) -> None:
    dspt.ok(
        *("fit", ground / "pictures", "--out", tmp_path / "run", "-q"),
        *("--backbone", ground / "model", "--device", "cpu", "--precision", "fp32"),
        *("--method", "gce", "--method-option", "q=0.5", "--shots", "all"),
        *("--noise", "asymmetric:0.5", "--feature-precision", "fp16", "--evidence"),
        *("--root", ground),
        *("--seed", "7", "--draw-seed", "8", "--noise-seed", "9", "--n-ctx", "8"),
        *("--init", "a photo of a", "--class-specific", "--position", "middle"),
        *("--epochs", "2", "--batch-size", "5", "--lr", "0.01", "--momentum", "0.5"),
        *("--weight-decay", "0.1", "--schedule", "constant", "--warmup-epochs", "0"),
        *("--warmup-lr", "0.002", "--views", "1", "--template", "{}!", "--holdout", "0.5"),
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config == {
        "data": str(ground / "pictures"),
        "backbone": str(ground / "model"),
        "pretrained": None,
        "precision": "fp32",
        "method": "gce",
        "method_options": {"q": 0.5},
        "data_root": str(ground),
        "classes": "all",
        "transfer": [],
        "evidence": True,
        "feature_precision": "fp16",
        "shots": None,
        "noise": {
            "kind": "asymmetric",
            "rate": 0.5,
            "column": None,
            "matrix": None,
            "matrix_sha256": None,
        },
        "seed": 7,
        "draw_seed": 8,
        "noise_seed": 9,
        "prompt": {
            "n_ctx": 8,
            "init": "a photo of a",
            "class_specific": True,
            "position": "middle",
        },
        "recipe": {
            "epochs": 2,
            "batch_size": 5,
            "lr": 0.01,
            "momentum": 0.5,
            "weight_decay": 0.1,
            "schedule": "constant",
            "warmup_epochs": 0,
            "warmup_lr": 0.002,
        },
        "views": 1,
        "template": "{}!",
        "label_column": None,
        "image_column": None,
        "split_column": None,
        "holdout": 0.5,
    }


def test_fresh_processes_give_identical_prompts(ground: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        answer = in_a_process(
            *("fit", ground / "pictures", "--out", tmp_path / name, "-q", "--epochs", "2"),
            *("--backbone", ground / "model", "--noise", "symmetric:0.5", "--views", "1"),
            *("--device", "cpu", "--cache", tmp_path / f"cache {name}"),
            PYTHONHASHSEED=str(len(name)),
        )
        assert answer.code == 0, answer.err
        assert answer.err.count("\n") == answer.err.count("warning: ")
    for file in ("prompt.safetensors", "metrics.jsonl", "labels.csv", "suspects.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


NASTY = '<script>alert(1)</script> & "ö" [red]x[/red] :cat:'


def test_class_names_are_text_wherever_they_appear(
    dspt: Caller, ground: Path, tmp_path: Path
) -> None:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["image", "label"])
    for number in range(6):
        for name in ("red", "blue"):
            file = f"<img src=x onerror=alert(1)> {name}{number}.png"
            (tmp_path / file).write_bytes(encoded(draw(name, number)))
            writer.writerow([file, NASTY if name == "red" else "blue"])
    (tmp_path / "labels.csv").write_text(table.getvalue(), encoding="utf-8")
    run = tmp_path / "run"
    dspt.ok(
        *("fit", tmp_path / "labels.csv", "--out", run, "-q", "--epochs", "2"),
        *("--backbone", ground / "model", "--noise", "symmetric:0.5"),
    )
    page = (run / "report.html").read_text(encoding="utf-8")
    assert_self_contained(page)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert html.escape("<script>alert(1)</script>") in page
    measured = json.loads(dspt.ok("eval", run, "--json", "-q").out)
    assert measured["class_names"] == sorted(["blue", NASTY])
    assert NASTY in dspt.ok("eval", run, "-q").out
    lines = dspt.ok("predict", run, tmp_path, "-q", "--top", "2").out.splitlines()
    assert all(NASTY in line for line in lines)
    records = dspt.ok("predict", run, tmp_path, "-q", "--top", "2", "--format", "jsonl").out
    for line in records.splitlines():
        assert NASTY in [guess["label"] for guess in json.loads(line)["predictions"]]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_results_reach_a_file_while_progress_is_on_a_terminal(
    dspt: Caller, ground: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    dspt.ok(
        *("fit", ground / "pictures", "--out", run, "-q", "--epochs", "1"),
        *("--backbone", ground / "model"),
    )
    terminal, end = os.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "dspt", "predict", str(run), str(ground / "pictures")],
            stdout=subprocess.PIPE,
            stderr=end,
            env={**os.environ, "TERM": "xterm"},
        ) as process:
            assert process.stdout is not None
            lines = process.stdout.read().decode().splitlines()
    finally:
        os.close(end)
        os.close(terminal)
    assert process.returncode == 0
    assert len(lines) == 18
    assert all(line.startswith(str(ground / "pictures")) for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="file names need not be text on Linux only")
def test_a_file_name_that_is_no_text(
    dspt: Caller, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    dspt.ok(
        *("fit", ground / "pictures", "--out", run, "-q", "--epochs", "1"),
        *("--backbone", ground / "model"),
    )
    (tmp_path / "p").mkdir()
    odd = os.fsencode(tmp_path / "p") + b"/\xff\xfe.png"
    try:
        Path(os.fsdecode(odd)).write_bytes(encoded(draw("red", 1)))
    except OSError:
        pytest.skip("this file system wants text")
    for style in ("text", "csv", "jsonl"):
        strict = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
        monkeypatch.setattr(sys, "stdout", strict)
        with pytest.raises(SystemExit) as exit_:
            main(["predict", str(run), str(tmp_path / "p"), "-q", "--format", style])
        assert exit_.value.code == 0
        strict.flush()
        assert b".png" in strict.buffer.getvalue()  # type: ignore[attr-defined]


def test_models_are_listed(dspt: Caller) -> None:
    listed = json.loads(dspt.ok("models", "--json").out)
    assert listed["default"] == []
    assert "openai" in listed["ViT-B-16"]
    some = dspt.ok("models", "vit-b-16").out.splitlines()
    assert any(line.startswith("ViT-B-16 ") and "openai" in line for line in some)
    assert len(dspt.ok("models", "default").out.splitlines()) == 1


def test_the_demo(dspt: Caller, tmp_path: Path) -> None:
    answer = dspt.ok("demo", "--epochs", "2", "--out", tmp_path / "demo")
    rows = {line[:14].strip(): line[14:] for line in answer.out.splitlines()}
    assert re.findall(r"\d+%", rows["wrong labels"]) == ["0%", "25%", "50%", "75%"]
    assert len(re.findall(r"\d+\.\d", rows["zero-shot"])) == 4
    for loss in ("ce", "dspt"):
        assert len(re.findall(r"\d+\.\d \( *[+-]\d+\.\d\)", rows[loss])) == 4
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert f"report: {tmp_path / 'demo' / 'report.html'}" in answer.out
    assert_self_contained(page)
    runs = sorted(path.name for path in (tmp_path / "demo" / "runs").iterdir())
    assert len(runs) == 8
    for name in runs:
        assert set(files_of(tmp_path / "demo" / "runs" / name)) == FINISHED_RUN
    shown = dspt.ok("eval", tmp_path / "demo" / "runs" / runs[0], "-q").out
    assert shown.startswith("demo (test): ")

    half = tmp_path / "demo" / "runs" / "dspt-symmetric0.5-seed1"
    result = json.loads((half / "result.json").read_text())
    chance = 1 / len(result["data"]["class_names"])
    assert result["noise"]["realised_rate"] == 0.5
    assert result["zero_shot"]["test"]["accuracy"] > 3 * chance
    with (half / "suspects.csv").open(encoding="utf-8") as file:
        wrong = [row["given_label"] != row["true_label"] for row in csv.DictReader(file)]
    middle = len(wrong) // 2
    assert sum(wrong[:middle]) > sum(wrong[middle:])


@pytest.mark.slow
def test_a_real_architecture_with_random_weights_and_a_checkpoint_file(
    dspt: Caller, tmp_path: Path
) -> None:
    import open_clip

    write_pictures(tmp_path / "pictures", ("red", "blue"), 2)
    call = [
        *("fit", tmp_path / "pictures", "-q", "--epochs", "1", "--n-ctx", "2", "--holdout", "0"),
        *("--device", "cpu", "--backbone"),
    ]
    dspt.ok(*call, "ViT-B-16", "--pretrained", "none", "--out", tmp_path / "large")
    result = json.loads((tmp_path / "large" / "result.json").read_text())
    assert result["backbone"]["text_path"] == "shared-prefix"
    assert (result["backbone"]["embed_dim"], result["final"]) == (512, None)
    assert len(dspt.ok("predict", tmp_path / "large", tmp_path / "pictures", "-q").out) > 0

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = open_clip.create_model("ViT-S-32-alt", load_weights=False).state_dict()
    file = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, file)
    dspt.ok(*call, "ViT-S-32-alt", "--pretrained", file, "--out", tmp_path / "file")
    assert len(dspt.ok("predict", tmp_path / "file", tmp_path / "pictures", "-q").out) > 0
    file.unlink()
    assert str(file) in dspt.refused("predict", tmp_path / "file", tmp_path / "pictures", "-q")
