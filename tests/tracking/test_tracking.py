"""Trackers get every epoch of a run once, with its step, whatever happens in between."""

from __future__ import annotations

import json
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import write_model, write_pictures

from dspt.backbones import Backbone, load_backbone
from dspt.configuration import build_config
from dspt.data import load_dataset
from dspt.errors import UserError
from dspt.fitting import fit, fit_many
from dspt.outcome import FittedRun
from dspt.progress import Advance
from dspt.result import EpochMetrics
from dspt.tracking import TrackedRun, scalars, to_mlflow, to_tensorboard, to_wandb, tracked

EPOCHS = 4
Fit = Callable[..., FittedRun]


class Told:
    """Progress that keeps its notes, and may be interrupted at a step of training."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.notes: list[str] = []
        self._at = interrupt_at

    @contextmanager
    def task(self, description: str) -> Iterator[Advance]:
        def advance(done: int, total: int) -> None:
            if description == "training" and done == self._at:
                raise KeyboardInterrupt

        yield advance

    def note(self, text: str) -> None:
        self.notes.append(text)


class Notebook:
    """A tracker in memory."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.runs: list[TrackedRun] = []
        self.lines: list[tuple[str, int, dict[str, float]]] = []
        self.ends: list[bool] = []
        self._fail_at = fail_at

    def __call__(self, run: TrackedRun) -> Page:
        self.runs.append(run)
        return Page(self, run)

    def epochs(self) -> list[int]:
        return [epoch for _, epoch, _ in self.lines]


class Page:
    def __init__(self, book: Notebook, run: TrackedRun) -> None:
        self._book, self._run = book, run

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        if epoch == self._book._fail_at:
            raise ConnectionError("the line\nis cut")
        self._book.lines.append((self._run.name, epoch, dict(values)))

    def close(self, finished: bool) -> None:
        self._book.ends.append(finished)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("model") / "m"), device="cpu")


@pytest.fixture(scope="module")
def fitted(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """A short run of 3 steps an epoch; half of the labels are wrong."""
    pictures = write_pictures(tmp_path_factory.mktemp("tracking") / "p", n=6)
    return partial(
        fit,
        pictures,
        backbone,
        shots=4,
        noise="symmetric:0.5",
        recipe={"epochs": EPOCHS, "batch_size": 4},
        cache=tmp_path_factory.mktemp("features"),
    )


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_numbers_are_named_by_their_path() -> None:
    fields = {"a": 1, "b": None, "c": {"d": 0.5, "e": {"f": 2}, "g": [1, 2]}, "h": "word"}
    assert scalars(fields) == {"a": 1.0, "c/d": 0.5, "c/e/f": 2.0}


def test_a_tracker_gets_what_metrics_jsonl_holds(fitted: Fit, tmp_path: Path) -> None:
    book = Notebook()
    fitted(out=tmp_path / "run", trackers=[book], evidence=True)
    (run,) = book.runs
    assert (run.name, run.folder, run.resumed) == ("run", tmp_path / "run", False)
    assert run.config.recipe.epochs == EPOCHS
    assert book.epochs() == list(range(EPOCHS + 1))
    assert book.ends == [True]
    for (_, _, values), record in zip(book.lines, records(tmp_path / "run"), strict=True):
        del record["epoch"]
        assert values == scalars(record)
        assert {"accuracy_given", "accuracy_test", "evidence/mislabelled/as_given"} <= set(values)


@pytest.mark.parametrize("step", [1, 4, 11, 12])
def test_after_an_interruption_a_log_is_told_all_epochs(
    fitted: Fit, tmp_path: Path, step: int
) -> None:
    first, second = Notebook(), Notebook()
    with pytest.raises(KeyboardInterrupt):
        fitted(out=tmp_path / "run", trackers=[first], progress=Told(interrupt_at=step))
    assert first.ends == [False]
    assert first.epochs() == list(range((step - 1) // 3 + 1))
    fitted(out=tmp_path / "run", trackers=[second])
    assert second.runs[0].resumed
    assert second.epochs() == list(range(EPOCHS + 1))
    assert second.lines[: len(first.lines)] == first.lines


def test_a_finished_run_can_be_tracked_afterwards(fitted: Fit, tmp_path: Path) -> None:
    fitted(out=tmp_path / "run")
    book = Notebook()
    fitted(out=tmp_path / "run", trackers=[book])
    assert book.epochs() == list(range(EPOCHS + 1))
    assert book.runs[0].resumed


def test_a_method_without_epochs_says_so(fitted: Fit, tmp_path: Path) -> None:
    book, progress = Notebook(), Told()
    fitted(out=tmp_path / "run", trackers=[book], method="zero-shot", progress=progress)
    assert book.runs == []
    assert "zero-shot has no epochs, so there is nothing to track" in progress.notes


def test_runs_side_by_side_have_logs_of_their_own(
    backbone: Backbone, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pictures = write_pictures(tmp_path / "p", n=6)
    configs = [
        build_config(data=str(pictures), method=m, shots=4, recipe={"epochs": 2, "batch_size": 4})
        for m in ("ce", "zero-shot", "dspt")
    ]
    folders = [tmp_path / config.method for config in configs]
    book = Notebook()
    fit_many(
        configs,
        load_dataset(pictures),
        backbone,
        folders=folders,
        cache=tmp_path / "cache",
        trackers=[book],
    )
    assert Counter(name for name, _, _ in book.lines) == {"ce": 3, "dspt": 3}  # no epochs, no log
    for name in ("ce", "dspt"):
        told = [values["accuracy_given"] for run, _, values in book.lines if run == name]
        assert told == [record["accuracy_given"] for record in records(tmp_path / name)]
    assert book.ends == [True, True]


def test_training_goes_on_when_a_tracker_fails(fitted: Fit, tmp_path: Path) -> None:
    bad, good, progress = Notebook(fail_at=2), Notebook(), Told()
    run = fitted(out=tmp_path / "run", trackers=[bad, good], progress=progress)
    assert run.result.final is not None
    assert bad.epochs() == [0, 1]
    assert good.epochs() == list(range(EPOCHS + 1))
    assert (bad.ends, good.ends) == ([], [True])
    (note,) = (note for note in progress.notes if "tracking" in note)
    assert "run" in note
    assert "ConnectionError: the line is cut" in note


def test_a_tracker_that_cannot_be_opened_is_an_error_before_training(
    fitted: Fit, tmp_path: Path
) -> None:
    def refusing(run: TrackedRun) -> Any:
        raise UserError("service: nobody is logged in")

    book = Notebook()
    with pytest.raises(UserError, match="nobody is logged in"):
        fitted(out=tmp_path / "run", trackers=[book, refusing])
    assert book.lines == []
    assert book.ends == [False]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_ids_are_kept_in_the_folder_of_the_run(tmp_path: Path) -> None:
    config = build_config(data="demo")
    new, resumed = (TrackedRun(config, tmp_path, resumed) for resumed in (False, True))
    assert resumed.known_id("service") is None
    new.remember_id("service", "17")
    new.remember_id("another", "4")
    assert (resumed.known_id("service"), resumed.known_id("another")) == ("17", "4")
    assert new.known_id("service") is None  # one that starts anew is another run
    for damaged in ("{", "[]", '{"service": 1}'):
        (tmp_path / "trackers.json").write_text(damaged)
        with pytest.raises(UserError, match=r"trackers\.json is damaged"):
            resumed.known_id("service")
    nowhere = TrackedRun(config, None, True)
    nowhere.remember_id("service", "17")
    assert nowhere.known_id("service") is None
    assert nowhere.name == "dspt none seed 1"


@pytest.mark.parametrize(
    ("module", "tracker"),
    [
        ("tensorboard", to_tensorboard),
        ("wandb", lambda: to_wandb("p")),
        ("mlflow", lambda: to_mlflow("e")),
    ],
)
def test_a_missing_package_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, module: str, tracker: Callable[[], Any]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as refusal:
        tracker()
    assert str(refusal.value) == (
        f"--{module} needs {module}, which is not installed: pip install 'dspt[{module}]'"
    )


def interrupted_and_finished(fitted: Fit, folder: Path, tracker: Any) -> list[dict[str, Any]]:
    """Track a run that is cut in its third epoch, finished, and asked for again; its records."""
    with pytest.raises(KeyboardInterrupt):
        fitted(out=folder, trackers=[tracker], progress=Told(interrupt_at=8))
    fitted(out=folder, trackers=[tracker])
    fitted(out=folder, trackers=[tracker])
    return records(folder)


def assert_told_once(
    points: list[tuple[int, float]], told: list[dict[str, Any]], name: str
) -> None:
    expected = [(r["epoch"], r[name]) for r in told if r[name] is not None]
    assert [step for step, _ in points] == [epoch for epoch, _ in expected]
    assert [value for _, value in points] == pytest.approx([value for _, value in expected])


def test_tensorboard_reads_every_epoch_once(fitted: Fit, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    told = interrupted_and_finished(fitted, tmp_path / "run", to_tensorboard())
    found: dict[str, list[tuple[int, float]]] = {}
    for file in (tmp_path / "run" / "tensorboard").iterdir():
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag != "config/text_summary":
                    found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    names = {"lr", "train_loss", "accuracy_given", "accuracy_true", "accuracy_test"}
    assert names <= set(found)
    for name in names:
        assert_told_once(found[name], told, name)


def test_tensorboard_needs_a_folder(fitted: Fit) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(UserError, match="out="):
        fitted(trackers=[to_tensorboard()])


def test_mlflow_has_every_epoch_once(
    fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")  # mlflow-skinny leaves it out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    told = interrupted_and_finished(fitted, tmp_path / "run", to_mlflow("an experiment"))
    client = package.MlflowClient()
    experiment = client.get_experiment_by_name("an experiment")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.epochs"] == str(EPOCHS)
    assert run.data.params["method"] == "dspt"
    for name in ("train_loss", "accuracy_given", "accuracy_true", "accuracy_test"):
        history = client.get_metric_history(run.info.run_id, name)
        points = sorted((point.step, point.value) for point in history)
        assert_told_once(points, told, name)
    fitted(out=tmp_path / "run", trackers=[to_mlflow("an experiment")], overwrite=True)
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_mlflow_without_a_store_is_one_line(
    fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(UserError, match=r"^mlflow: .*store: nonsense://nowhere"):
        fitted(out=tmp_path / "run", trackers=[to_mlflow("an experiment")])


def log_records(file: Path) -> Iterator[bytes]:
    """The records of a W&B file: a header of 7 bytes, then LevelDB's log format."""
    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:  # padding at the end of a block
            place += room
            continue
        length, kind = struct.unpack("<4xHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_offline_files_hold_every_epoch_once(
    fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fitted(out=folder, trackers=[to_wandb("project")], progress=Told(interrupt_at=8))
    fitted(out=folder, trackers=[to_wandb("project")])
    told = records(folder)
    first, second = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert first.name == second.name  # one run, in two sittings
    for file, epochs in ((first, 3), (second, EPOCHS + 1)):
        points: dict[str, list[tuple[int, float]]] = {}
        for data in log_records(file):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.HasField("run") and record.run.project:
                assert record.run.project == "project"
            for item in record.history.item:
                key = item.key or "/".join(item.nested_key)
                value = json.loads(item.value_json)
                points.setdefault(key, []).append((record.history.step.num, value))
        for name in ("accuracy_given", "accuracy_test"):
            assert_told_once(points[name], told[:epochs], name)


def test_nothing_is_opened_without_trackers() -> None:
    with tracked([], [TrackedRun(build_config(data="demo"), None, False)], Told()) as write:
        write([[EpochMetrics.model_construct(epoch=0)]])
