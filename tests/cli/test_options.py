"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.acceptance.calling import Caller
from tests.tiny import files_of, write_model, write_pictures


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    write_model(folder / "model")
    write_pictures(folder / "pictures", n=4)
    return folder


def test_fit_writes_event_files_and_says_nothing_of_it(
    dspt: Caller, ground: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    call = ["fit", ground / "pictures", "--backbone", ground / "model", "-q", "--epochs", "1"]
    plain = dspt.ok(*call, "--out", tmp_path / "a" / "run")
    tracked = dspt.ok(*call, "--out", tmp_path / "b" / "run", "--tensorboard")
    assert tracked.out.replace("/b/", "/a/") == plain.out
    assert tracked.err == plain.err
    more = set(files_of(tmp_path / "b" / "run")) - set(files_of(tmp_path / "a" / "run"))
    (events,) = more
    assert events.startswith("tensorboard/events.out.tfevents.")


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("tensorboard", ["--tensorboard"]),
        ("wandb", ["--wandb", "project"]),
        ("mlflow", ["--mlflow", "experiment"]),
    ],
)
def test_a_tracker_that_is_not_installed_is_named_before_any_work(
    dspt: Caller,
    ground: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    words: list[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = dspt.refused("fit", ground / "pictures", "--out", tmp_path / "run", *words)
    assert f"pip install 'dspt[{package}]'" in line
    assert list(tmp_path.iterdir()) == []


def test_how_to_read_data_belongs_to_data(dspt: Caller, ground: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--backbone", ground / "model", "-q", "--epochs", "1"]
    dspt.ok("fit", ground / "pictures", "--out", run, *options)
    assert "label-column: " in dspt.refused("eval", run, "--label-column", "x", "-q")
    assert "root: " in dspt.refused("eval", run, "--root", ground, "-q")
    told = dspt.ok("eval", run, ground / "pictures", "--root", ground, "-q")
    assert told.out == dspt.ok("eval", run, "-q").out


def test_a_named_data_set_is_looked_for_below_root(
    dspt: Caller, ground: Path, tmp_path: Path
) -> None:
    line = dspt.refused(
        "zeroshot", "caltech101", "--root", tmp_path, "--backbone", ground / "model", "-q"
    )
    assert str(tmp_path) in line
    assert "caltech101" in line
