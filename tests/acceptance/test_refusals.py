from __future__ import annotations

from pathlib import Path

import pytest
from tests.acceptance.calling import Caller, in_a_process
from tests.tiny import draw, encoded, files_of, write_pictures

COMMANDS = ("demo", "fit", "eval", "predict", "zeroshot", "models")

# What is wrong, the call, and what the line must say. {g}: the ground; {t}: a fresh folder.
BAD_CALLS: dict[str, tuple[list[str], str]] = {
    "unknown command": (["fti"], "fti"),
    "unknown option": (["fit", "{g}/pictures", "--out", "{t}/r", "--los", "ce"], "--los"),
    "unknown root option": (["--verbose"], "--verbose"),
    "no data": (["fit", "--out", "{t}/r"], "DATA"),
    "no out": (["fit", "{g}/pictures"], "--out"),
    "a word where a number belongs": (["fit", "d", "--out", "{t}/r", "--seed", "x"], "--seed"),
    "missing folder": (["fit", "{t}/nothing", "--out", "{t}/r"], "{t}/nothing"),
    "empty name": (["fit", "", "--out", "{t}/r"], "no such file"),
    "no data set in the folder": (["fit", "{g}/model", "--out", "{t}/r"], "{g}/model"),
    "unknown loss": (["fit", "{g}/pictures", "--out", "{t}/r", "--loss", "dsp"], "'dspt'"),
    "loss option": (
        ["fit", "{g}/pictures", "--out", "{t}/r", "--loss-option", "q"],
        "q=0.5",
    ),
    "loss option of another loss": (
        ["fit", "{g}/pictures", "--out", "{t}/r", "--loss-option", "q=0.5"],
        "'q'",
    ),
    "unknown noise": (
        ["fit", "{g}/pictures", "--out", "{t}/r", "--noise", "sym:0.5"],
        'did you mean "symmetric:0.5"',
    ),
    "noise above one": (
        ["fit", "{g}/pictures", "--out", "{t}/r", "--noise", "symmetric:2"],
        "0 to 1",
    ),
    "shots": (["fit", "{g}/pictures", "--out", "{t}/r", "--shots", "0"], "shots"),
    "shots in words": (["fit", "{g}/pictures", "--out", "{t}/r", "--shots", "few"], "'few'"),
    "lr": (["fit", "{g}/pictures", "--out", "{t}/r", "--lr", "-1"], "recipe.lr"),
    "lr nan": (["fit", "{g}/pictures", "--out", "{t}/r", "--lr", "nan"], "recipe.lr"),
    "epochs": (["fit", "{g}/pictures", "--out", "{t}/r", "--epochs", "0"], "recipe.epochs"),
    "schedule": (["fit", "{g}/pictures", "--out", "{t}/r", "--schedule", "x"], "recipe.schedule"),
    "position": (["fit", "{g}/pictures", "--out", "{t}/r", "--position", "x"], "prompt.position"),
    "holdout": (["fit", "{g}/pictures", "--out", "{t}/r", "--holdout", "1"], "holdout"),
    "template": (["fit", "{g}/pictures", "--out", "{t}/r", "--template", "x"], "template"),
    "label column": (
        ["fit", "{g}/pictures", "--out", "{t}/r", "--label-column", "x"],
        "label_column",
    ),
    "noise column": (
        [
            "fit",
            "{g}/pictures",
            "--out",
            "{t}/r",
            "--noise",
            "column:x",
            "-q",
            "--backbone",
            "{g}/model",
        ],
        '"x"',
    ),
    "backbone": (
        ["fit", "{g}/pictures", "--out", "{t}/r", "-q", "--backbone", "ViT-B-61"],
        "ViT-B-61",
    ),
    "weights needed": (
        ["fit", "{g}/pictures", "--out", "{t}/r", "-q", "--backbone", "ViT-B-16"],
        "pretrained",
    ),
    "weights": (
        [
            "fit",
            "{g}/pictures",
            "--out",
            "{t}/r",
            "-q",
            "--backbone",
            "ViT-B-16",
            "--pretrained",
            "nope",
        ],
        "'nope'",
    ),
    "precision": (["fit", "{g}/pictures", "--out", "{t}/r", "--precision", "fp8"], "precision"),
    "device": (
        [
            "fit",
            "{g}/pictures",
            "--out",
            "{t}/r",
            "-q",
            "--backbone",
            "{g}/model",
            "--device",
            "warp",
        ],
        "device",
    ),
    "out is a file": (
        ["fit", "{g}/pictures", "--out", "{g}/model/open_clip_config.json"],
        "out",
    ),
    "prompt too long": (
        ["fit", "{g}/pictures", "--out", "{t}/r", "-q", "--backbone", "{g}/model", "--n-ctx", "99"],
        "77",
    ),
    "diverging": (
        [
            "fit",
            "{g}/pictures",
            "--out",
            "{t}/r",
            "-q",
            "--backbone",
            "{g}/model",
            "--lr",
            "1e38",
            "--epochs",
            "9",
            "--batch-size",
            "4",
        ],
        "diverged",
    ),
    "run missing": (["eval", "{t}/nothing"], "{t}/nothing"),
    "run unfinished": (["eval", "{g}/pictures"], "result.json"),
    "run missing for predict": (["predict", "{t}/nothing", "{g}/pictures"], "{t}/nothing"),
    "no pictures": (["predict", "{t}/nothing"], "IMAGES"),
    "picture missing": (["predict", "{t}/nothing", "{t}/cat.jpg"], "{t}/cat.jpg"),
    "format": (["predict", "{t}", "{g}/pictures", "--format", "xml"], "'xml'"),
    "top": (["predict", "{t}", "{g}/pictures", "--top", "0"], "--top"),
    "zeroshot split": (
        ["zeroshot", "{g}/pictures", "-q", "--backbone", "{g}/model", "--split", "val"],
        "val",
    ),
    "zeroshot template": (["zeroshot", "{g}/pictures", "-q", "--template", "x"], "template"),
    "demo seeds": (["demo", "--out", "{t}/r", "--seeds", "0"], "--seeds"),
    "no such backbone": (["models", "nonsense-model"], "nonsense-model"),
    "markup in a name": (["fit", "{t}/[bold]x[/] :cat:", "--out", "{t}/r"], "[bold]x[/] :cat:"),
    "two lines in a name": (["fit", "{t}/a\nb", "--out", "{t}/r"], "{t}/a"),
}


@pytest.mark.parametrize("what", BAD_CALLS)
def test_a_bad_call_is_one_line_and_writes_nothing(
    dspt: Caller, ground: Path, tmp_path: Path, what: str
) -> None:
    arguments, expected = BAD_CALLS[what]
    line = dspt.refused(*(a.format(g=ground, t=tmp_path) for a in arguments))
    assert expected.format(g=ground, t=tmp_path) in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(dspt: Caller, command: str) -> None:
    answer = dspt.ok(command, "--help")
    assert "Examples" in answer.out
    assert f"dspt {command}" in answer.out
    assert answer.err == ""
    assert dspt.ok(command, "-h").out == answer.out


@pytest.mark.parametrize("arguments", [[], ["--help"]], ids=["nothing", "--help"])
def test_the_command_itself_lists_its_commands(dspt: Caller, arguments: list[str]) -> None:
    answer = dspt.ok(*arguments)
    assert all(command in answer.out for command in COMMANDS)
    assert answer.err == ""


def test_version(dspt: Caller) -> None:
    from dspt import __version__

    assert dspt.ok("--version").out == f"dspt {__version__}\n"


def test_as_a_process_the_same(ground: Path, tmp_path: Path) -> None:
    answer = in_a_process("fit", tmp_path / "nothing", "--out", tmp_path / "r")
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("dspt: error: no such file or folder")
    assert len(answer.err.splitlines()) == 1


def test_pictures_that_cannot_be_read(dspt: Caller, ground: Path, tmp_path: Path) -> None:
    options = ("-q", "--backbone", str(ground / "model"), "--device", "cpu")
    dspt.ok("fit", ground / "pictures", "--out", tmp_path / "run", *options, "--epochs", "1")
    (tmp_path / "bad.png").write_bytes(b"bad")
    (tmp_path / "good.png").write_bytes(encoded(draw("red", 1)))
    line = dspt.refused("predict", tmp_path / "run", tmp_path / "bad.png", "--strict", "-q")
    assert "bad.png" in line
    skipped = dspt("predict", tmp_path / "run", tmp_path / "bad.png", "-q")
    assert skipped.code == 2
    first, last = skipped.err.splitlines()
    assert first.startswith("skipped: ")
    assert "bad.png" in first
    assert last == "dspt: error: none of the 1 pictures could be read"
    mixed = dspt.ok("predict", tmp_path / "run", tmp_path / "bad.png", tmp_path / "good.png", "-q")
    assert len(mixed.out.splitlines()) == 1
    assert mixed.out.startswith(str(tmp_path / "good.png"))
    assert "bad.png" in mixed.err


def test_a_run_with_other_settings_or_classes(dspt: Caller, ground: Path, tmp_path: Path) -> None:
    options = ("-q", "--backbone", str(ground / "model"), "--device", "cpu", "--epochs", "1")
    run = tmp_path / "run"
    dspt.ok("fit", ground / "pictures", "--out", run, *options)
    before = files_of(run)
    line = dspt.refused("fit", ground / "pictures", "--out", run, *options, "--seed", "5")
    assert "seed: 1 there, 5 here" in line
    assert "--overwrite" in line
    write_pictures(tmp_path / "other", ("red", "pink"), 3)
    assert "pink" in dspt.refused("eval", run, tmp_path / "other", "-q")
    (run / "prompt.safetensors").write_bytes(b"damaged")
    assert "damaged" in dspt.refused("predict", run, ground / "pictures", "-q")
    assert set(files_of(run)) == set(before)
