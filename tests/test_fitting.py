from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import (
    COLOURS,
    FINISHED_RUN,
    count_encoded,
    draw,
    encoded,
    files_of,
    write_model,
    write_pictures,
)

from dspt.backbones import Backbone, load_backbone
from dspt.configuration import build_config
from dspt.data import load_dataset
from dspt.errors import UserError
from dspt.fitting import FittedRun, fit, fit_many
from dspt.model import PromptModel, load_model
from dspt.progress import Advance
from dspt.prompts import initial_context
from dspt.result import RunResult

SHORT = {"epochs": 4, "lr": 0.002, "batch_size": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitting")
    write_model(folder / "model")
    write_pictures(folder / "pictures" / "train", list(COLOURS), 8)
    write_pictures(folder / "pictures" / "test", list(COLOURS), 4, first=50)
    return folder


@pytest.fixture(scope="module")
def backbone(place: Path) -> Backbone:
    return load_backbone(str(place / "model"), device="cpu")


@pytest.fixture
def fitted(place: Path, backbone: Backbone) -> Any:
    """``fit`` with what the tests have in common filled in."""

    def call(data: Any = None, **settings: Any) -> FittedRun:
        settings = {"recipe": SHORT, "cache": place / "cache", **settings}
        return fit(place / "pictures" if data is None else data, backbone, **settings)

    return call


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_and_the_result_are_complete(fitted: Any, place: Path, tmp_path: Path) -> None:
    run = fitted(out=tmp_path / "run", noise="symmetric:0.3", shots=5, loss="gce", seed=3)
    assert set(files_of(tmp_path / "run")) == FINISHED_RUN
    result = RunResult.read(tmp_path / "run" / "result.json")
    assert result == run.result
    assert set(json.loads((tmp_path / "run" / "result.json").read_text())) == set(
        RunResult.model_fields
    )
    assert result.data.class_names == sorted(COLOURS)
    assert (result.data.n_train, result.data.n_test, result.data.shots) == (30, 24, 5)
    assert result.data.train_per_class == [5] * 6
    assert result.data.test_source == "split"
    assert result.backbone.text_path == "shared-prefix"
    assert result.backbone.logit_scale == pytest.approx(100)
    assert (result.backbone.embed_dim, result.backbone.image_size) == (16, (32, 32))
    assert [m.epoch for m in result.epochs] == [0, 1, 2, 3, 4]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [m.model_dump() for m in result.epochs]
    assert result.final is not None
    assert result.final.n == 24
    assert result.final.accuracy == result.epochs[-1].accuracy_test
    assert result.zero_shot.test is not None
    assert result.zero_shot.test.accuracy > 0.9  # the tiny model knows its colours
    assert result.zero_shot.template == "a photo of a {}."
    assert result.time.total >= result.time.training >= 0
    saved = PromptModel.load(tmp_path / "run", backbone=run.model.backbone)
    assert result.context_fingerprint == saved.fingerprint
    assert torch.equal(saved.context, run.model.context)
    assert saved.prompt.n_ctx == 16


def test_noise_is_exact_and_written_down(fitted: Any, tmp_path: Path) -> None:
    run = fitted(out=tmp_path / "run", noise="symmetric:0.3", shots=5)
    noise = run.result.noise
    assert (noise.spec, noise.true_labels_known, noise.n_wrong) == ("symmetric:0.3", True, 9)
    assert noise.realised_rate == 9 / 30
    table = rows(tmp_path / "run" / "labels.csv")
    train = [row for row in table if row["split"] == "train"]
    assert (len(train), len(table)) == (30, 54)
    assert sum(row["given_label"] != row["true_label"] for row in train) == 9
    for row in table:
        split, name, _ = row["image"].split("/")  # relative, as the folders stand
        assert split == row["split"]
        assert name == (row["true_label"] if split == "train" else row["given_label"])
    names = run.result.data.class_names
    counts = np.zeros((6, 6), dtype=int)
    for row in train:
        counts[names.index(row["true_label"]), names.index(row["given_label"])] += 1
    assert noise.transition == counts.tolist()


def test_without_noise_the_truth_is_not_claimed(fitted: Any, tmp_path: Path) -> None:
    run = fitted(out=tmp_path / "run", shots=2)
    assert run.result.noise.model_dump() == {
        "spec": "none",
        "true_labels_known": False,
        "n_wrong": None,
        "realised_rate": None,
        "transition": None,
    }
    assert all(row["true_label"] == "" for row in rows(tmp_path / "run" / "labels.csv"))
    assert all(suspect.true is None for suspect in run.suspects)
    assert run.result.epochs[-1].gradient_norm_clean is None


def test_wrong_labels_are_ranked_first(fitted: Any, tmp_path: Path) -> None:
    run = fitted(
        out=tmp_path / "run",
        shots=None,
        noise="symmetric:0.34",
        prompt={"init": "a photo of a"},
        recipe={"epochs": 5, "lr": 0.0005, "batch_size": 8},
    )
    wrong = [suspect.true != suspect.given for suspect in run.suspects]
    assert (len(wrong), sum(wrong)) == (48, 16)
    pairs = sum(1 for i, a in enumerate(wrong) for b in wrong[i:] if a and not b)
    assert pairs / (16 * 32) > 0.9  # area under the ROC curve
    levels = [suspect.suppression for suspect in run.suspects]
    assert levels == sorted(levels, reverse=True)
    assert 0 <= levels[-1] <= levels[0] <= 1
    table = rows(tmp_path / "run" / "suspects.csv")
    assert [row["image"] for row in table] == [suspect.id for suspect in run.suspects]
    assert [int(row["rank"]) for row in table] == list(range(1, 49))
    assert float(table[0]["suppression"]) == levels[0]


def test_suspects_agree_with_the_models_own_predictions(fitted: Any, place: Path) -> None:
    run = fitted(shots=3, noise="asymmetric:0.5")
    root = place / "pictures"
    predicted = run.model.predict([root / suspect.id for suspect in run.suspects])
    for suspect, prediction in zip(run.suspects, predicted, strict=True):
        assert run.result.data.class_names[suspect.proposed] == prediction.label
        assert suspect.probability_proposed == pytest.approx(prediction.probabilities[0], rel=1e-3)


def test_same_settings_give_the_same_bytes_and_other_seeds_others(fitted: Any) -> None:
    first = fitted(noise="symmetric:0.5", shots=4, seed=0)
    assert fitted(noise="symmetric:0.5", shots=4, seed=0).result.context_fingerprint == (
        first.result.context_fingerprint
    )
    for other in ({"seed": 1}, {"seed": 0, "draw_seed": 1}, {"seed": 0, "noise_seed": 1}):
        run = fitted(noise="symmetric:0.5", shots=4, **other)
        assert run.result.context_fingerprint != first.result.context_fingerprint
    reseeded = fitted(noise="symmetric:0.5", shots=4, seed=0, noise_seed=1)
    assert {s.id for s in reseeded.suspects} == {s.id for s in first.suspects}


def test_a_finished_run_is_returned_without_work(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fitted(out=tmp_path / "run", shots=2, noise="symmetric:0.5")
    before = files_of(tmp_path / "run")
    # A process that is killed between the last two files leaves this one.
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"left")
    encoded_rows = count_encoded(monkeypatch)
    monkeypatch.setattr("dspt.fitting.train", lambda *a, **k: pytest.fail("trained again"))
    again = fitted(out=tmp_path / "run", shots=2, noise="symmetric:0.5")
    assert encoded_rows() == 0
    assert again.result == first.result
    assert again.suspects == first.suspects
    assert torch.equal(again.model.context, first.model.context)
    assert files_of(tmp_path / "run") == before


def test_a_finished_run_on_other_data_is_not_taken_for_this_one(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    data = write_pictures(tmp_path / "data")

    def run() -> FittedRun:
        return fit(data, model, out=tmp_path / "run", shots=2, recipe=SHORT)

    first = run()
    moved = next((data / "red").iterdir())
    moved.rename(data / "green" / f"moved{moved.suffix}")  # somebody mends a label
    with pytest.raises(UserError, match="the data has changed since the run"):
        run()
    (data / "green" / f"moved{moved.suffix}").rename(moved)
    assert run().result == first.result
    shutil.rmtree(model)
    write_model(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match="the backbone has changed since the run"):
        run()


def test_another_runs_folder_is_refused_by_naming_the_difference(
    fitted: Any, tmp_path: Path
) -> None:
    fitted(out=tmp_path / "run", shots=2)
    before = files_of(tmp_path / "run")
    with pytest.raises(UserError, match="shots: 2 there, 3 here") as caught:
        fitted(out=tmp_path / "run", shots=3)
    assert "seed" not in str(caught.value)
    with pytest.raises(UserError, match=r"noise: none there, symmetric:0\.5 here"):
        fitted(out=tmp_path / "run", shots=2, noise="symmetric:0.5")
    assert files_of(tmp_path / "run") == before


def test_overwrite_starts_anew(fitted: Any, tmp_path: Path) -> None:
    fitted(out=tmp_path / "run", shots=2)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    again = fitted(out=tmp_path / "run", shots=3, overwrite=True)
    assert again.result.data.n_train == 18
    assert RunResult.read(tmp_path / "run" / "result.json") == again.result
    assert set(files_of(tmp_path / "run")) == {*FINISHED_RUN, "notes.txt"}


def test_a_damaged_folder_is_refused_or_overwritten(fitted: Any, tmp_path: Path) -> None:
    fitted(out=tmp_path / "run", shots=2)
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        fitted(out=tmp_path / "run", shots=2)
    fitted(out=tmp_path / "run", shots=2, overwrite=True)
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(UserError, match="--overwrite"):
        fitted(out=tmp_path / "run", shots=2)


class Interrupting:
    """Progress that is interrupted at a step of training."""

    def __init__(self, task: str, at: int) -> None:
        self._task, self._at = task, at

    @contextmanager
    def task(self, description: str) -> Iterator[Advance]:
        def advance(done: int, total: int) -> None:
            if description == self._task and done == self._at:
                raise KeyboardInterrupt

        yield advance

    def note(self, text: str) -> None:
        pass


def assert_same_run(a: Path, b: Path) -> None:
    """All files are equal but for the times of the run and what depends on them."""
    left, right = files_of(a), files_of(b)
    assert set(left) == set(right) == FINISHED_RUN
    for name in FINISHED_RUN - {"result.json", "report.html"}:
        assert left[name] == right[name], name
    one, other = (json.loads(files["result.json"]) for files in (left, right))
    one.pop("time"), other.pop("time")
    assert one == other


@pytest.mark.parametrize(("step", "views"), [(1, 0), (6, 0), (7, 2), (12, 0)])
def test_an_interrupted_run_goes_on_to_the_identical_result(
    fitted: Any, tmp_path: Path, step: int, views: int
) -> None:
    settings = {"shots": 4, "noise": "symmetric:0.25", "views": views}  # 3 steps an epoch
    fitted(out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fitted(out=tmp_path / "cut", progress=Interrupting("training", step), **settings)
    cut = files_of(tmp_path / "cut")
    assert set(cut) == {"config.json", "labels.csv", "metrics.jsonl", "checkpoint.safetensors"}
    assert len(cut["metrics.jsonl"].splitlines()) == (step - 1) // 3 + 1
    fitted(out=tmp_path / "cut", **settings)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_going_on_does_not_repeat_finished_epochs(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fitted(out=tmp_path / "run", shots=4, progress=Interrupting("training", 10))
    steps = []
    original = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: (steps.append(1), original(self, *a))[1]
    )
    fitted(out=tmp_path / "run", shots=4)
    assert len(steps) == 3


def test_a_damaged_checkpoint_only_costs_time(fitted: Any, tmp_path: Path) -> None:
    fitted(out=tmp_path / "whole", shots=4)
    with pytest.raises(KeyboardInterrupt):
        fitted(out=tmp_path / "cut", shots=4, progress=Interrupting("training", 10))
    file = tmp_path / "cut" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    fitted(out=tmp_path / "cut", shots=4)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


KILLED = """
import os, signal, sys, torch
from dspt.cli import main

what, count = sys.argv.pop(1), int(sys.argv.pop(1))
owner = {"step": torch.optim.SGD, "replace": os}[what]
original = getattr(owner, what)

def counted(*arguments, **named):
    global count
    count -= 1
    if not count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)

setattr(owner, what, counted)
main()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize(
    ("what", "most"), [("step", 12), ("replace", 14)], ids=["while-training", "while-writing"]
)
def test_a_killed_command_goes_on_to_the_identical_result(
    fitted: Any, place: Path, tmp_path: Path, what: str, most: int
) -> None:
    fitted(out=tmp_path / "whole", shots=4)
    moment = random.SystemRandom().randint(1, most)
    options = [
        *("fit", str(place / "pictures"), "--out", str(tmp_path / "cut"), "--shots", "4"),
        *("--backbone", str(place / "model"), "--device", "cpu", "--cache", str(place / "cache")),
        *("--epochs", "4", "--lr", "0.002", "--batch-size", "8", "--quiet"),
    ]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, what, str(moment), *options],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "cut" / "result.json").exists(), f"{what} {moment}"
    fitted(out=tmp_path / "cut", shots=4)
    for litter in (tmp_path / "cut").glob(".*.tmp"):  # of the file that was being written
        assert what == "replace"
        litter.unlink()
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_interrupted_while_extracting_features(fitted: Any, tmp_path: Path) -> None:
    fitted(out=tmp_path / "whole", shots=4, cache=tmp_path / "cache1")
    task = "image features of the training pictures"
    with pytest.raises(KeyboardInterrupt):
        fitted(
            out=tmp_path / "cut",
            shots=4,
            cache=tmp_path / "cache2",
            progress=Interrupting(task, 20),
        )
    fitted(out=tmp_path / "cut", shots=4, cache=tmp_path / "cache2")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": "column:nope"},
        {"prompt": {"n_ctx": 75}},
        {"prompt": {"init": "a photo of a", "n_ctx": 3}},
        {"recipe": {"epochs": 9, "lr": 1e38, "batch_size": 8}},
        {"loss": "dsp"},
        {"loss": "gce", "loss_options": {"q": 2.0}},
        {"loss": "ce", "loss_options": {"q": 0.5}},
        {"method": "nlprompt", "method_options": {"reg": 0.0}},
        {"method": "linear-probe", "transfer": ("new",), "classes": "base"},
        {"transfer": ("new",)},
        {"shots": 0},
        {"template": "x"},
        {"label_column": "label"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_after_an_error_nothing_is_left_and_the_mended_call_works(
    fitted: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(UserError) as caught:
        fitted(out=tmp_path / "run", **{"shots": 2, **settings})
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()
    fitted(out=tmp_path / "run", shots=2, recipe={"epochs": 1})


def test_an_error_leaves_other_peoples_files_alone(fitted: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError):
        fitted(out=tmp_path, shots=2, noise="column:nope")
    assert files_of(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_out_that_is_no_folder_is_one_line(fitted: Any, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError) as caught:
            fitted(out=out, shots=2, overwrite=overwrite)
        assert str(tmp_path / "file") in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert files_of(tmp_path) == {"file": b"x"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_out_is_one_line(fitted: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="choose a folder that is writable"):
            fitted(out=tmp_path, shots=2)
    finally:
        tmp_path.chmod(0o700)


def test_without_test_pictures_nothing_is_claimed(fitted: Any, tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", ("red", "blue"), 4)
    run = fitted(tmp_path / "p", out=tmp_path / "run", holdout=0.0)
    assert run.result.final is run.result.zero_shot.test is None
    assert (run.result.data.n_test, run.result.data.test_source) == (0, "none")
    assert all(m.accuracy_test is None for m in run.result.epochs)
    assert set(files_of(tmp_path / "run")) == FINISHED_RUN


def test_test_pictures_are_held_out(fitted: Any, tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", ("red", "blue"), 5)
    run = fitted(tmp_path / "p", out=tmp_path / "run")
    assert (run.result.data.n_train, run.result.data.n_test) == (8, 2)
    assert run.result.data.test_source == "holdout"
    images = [row["image"] for row in rows(tmp_path / "run" / "labels.csv")]
    assert len(set(images)) == 10
    assert "fewer than 16 training pictures: blue (4), red (4)" in run.result.warnings


def test_labels_of_a_column(fitted: Any, tmp_path: Path) -> None:
    lines = ["image,label,human,split"]
    for number in range(8):
        for name in ("red", "blue"):
            path = tmp_path / f"{name}{number}.png"
            path.write_bytes(encoded(draw(name, number)))
            human = "blue" if number < 2 else name
            lines.append(f"{path.name},{name},{human},{'test' if number > 5 else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    run = fitted(tmp_path / "labels.csv", noise="column:human")
    noise = run.result.noise
    assert (noise.spec, noise.n_wrong, noise.realised_rate) == ("column:human", 2, 2 / 12)
    assert noise.transition == [[6, 0], [2, 4]]  # blue, red
    assert {s.id for s in run.suspects if s.true != s.given} == {"red0.png", "red1.png"}


@pytest.mark.parametrize(
    ("prompt", "shape"),
    [
        ({"n_ctx": 4}, (4, 32)),
        ({"n_ctx": 4, "class_specific": True}, (6, 4, 32)),
        ({"n_ctx": 4, "position": "middle"}, (4, 32)),
        ({"n_ctx": 4, "position": "front"}, (4, 32)),
        ({"init": "a photo of a"}, (4, 32)),
        ({"init": "a photo of a", "n_ctx": 8, "class_specific": True}, (6, 8, 32)),
    ],
    ids=str,
)
def test_every_kind_of_prompt_trains_and_loads(
    fitted: Any, tmp_path: Path, backbone: Backbone, prompt: dict[str, Any], shape: tuple[int, ...]
) -> None:
    run = fitted(out=tmp_path / "run", shots=2, prompt=prompt)
    assert run.model.context.shape == shape
    back = PromptModel.load(tmp_path / "run", backbone=backbone)
    assert torch.equal(back.class_features, run.model.class_features)
    start = initial_context(backbone, run.result.config.prompt, 6, 1)
    moved = (run.model.context - start).abs().amax(-1)
    assert (moved > 0).all(), "every context vector is trained"


def test_a_start_from_words_is_exactly_zero_shot(fitted: Any) -> None:
    run = fitted(shots=8, prompt={"init": "a photo of a"}, template="a photo of a {}.")
    assert run.result.epochs[0].accuracy_given == run.result.zero_shot.train_accuracy_given
    assert run.result.epochs[0].accuracy_test == run.result.zero_shot.test.accuracy


def test_unreadable_pictures_are_left_out_and_named(fitted: Any, tmp_path: Path) -> None:
    write_pictures(tmp_path / "p" / "train", ("red", "blue"), 4)
    write_pictures(tmp_path / "p" / "test", ("red", "blue"), 4, first=9)
    (tmp_path / "p" / "train" / "red" / "001.png").write_bytes(b"broken")
    (tmp_path / "p" / "test" / "blue" / "010.png").write_bytes(b"")
    run = fitted(tmp_path / "p", out=tmp_path / "run", shots=4, noise="symmetric:0.5")
    assert run.result.data.train_per_class == [4, 3]
    assert (run.result.data.n_train, run.result.data.n_test) == (7, 7)
    assert run.result.noise.n_wrong == 3
    text = "\n".join(run.result.warnings)
    assert "1 training pictures could not be read" in text
    assert "2 unreadable pictures" in text
    assert "fewer than 4 training pictures: red (3)" in text
    assert "train/red/001.png" in text or "test/blue/010.png" in text
    used = (tmp_path / "run" / "labels.csv").read_text()
    assert "red/000.png" in used
    assert "red/001.png" not in used
    assert "blue/010.png" not in used


def test_when_no_picture_can_be_read_it_is_an_error(fitted: Any, tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", ("red", "blue"), 4)
    for path in (tmp_path / "p").rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="none of the training pictures could be read"):
        fitted(tmp_path / "p", out=tmp_path / "run")


def test_collapse_and_harm_are_noticed(fitted: Any) -> None:
    run = fitted(shots=None, loss="ce", noise="symmetric:0.75", recipe={"epochs": 9, "lr": 0.1})
    text = "\n".join(run.result.warnings)
    assert "label collapse" in text
    assert "clearly worse than zero-shot" in text


def test_side_by_side_equals_one_by_one(
    fitted: Any, place: Path, backbone: Backbone, tmp_path: Path
) -> None:
    data = place / "pictures"
    varied: list[dict[str, Any]] = [
        {"loss": "ce", "noise": "symmetric:0.5"},
        {"loss": "dspt", "noise": "symmetric:0.5"},
        {"loss": "dspt", "noise": "none", "seed": 2},
        {"loss": "gce", "loss_options": {"q": 0.5}, "seed": 3, "noise_seed": 0},
    ]
    configs = [
        build_config(data=str(data), backbone=backbone.name, shots=4, recipe=SHORT, **fields)
        for fields in varied
    ]
    folders = [tmp_path / str(number) for number in range(4)]
    together = fit_many(
        configs, load_dataset(data), backbone, folders=folders, cache=place / "cache"
    )
    for fields, folder, run in zip(varied, folders, together, strict=True):
        alone = fitted(shots=4, **fields)
        torch.testing.assert_close(run.model.context, alone.model.context, rtol=1e-4, atol=1e-6)
        assert run.result.config == alone.result.config
        assert run.result.noise == alone.result.noise
        assert [s.id for s in run.suspects[:3]] == [s.id for s in alone.suspects[:3]]
        assert run.folder == folder
        assert set(files_of(folder)) == FINISHED_RUN - {"config.json"}


@pytest.mark.parametrize("method", ["elr", "nlprompt", "joapr", "label-smoothing", "nce+rce"])
def test_a_method_interrupted_goes_on_to_the_identical_result(
    fitted: Any, tmp_path: Path, method: str
) -> None:
    settings: dict[str, Any] = {"method": method, "shots": 4, "noise": "symmetric:0.5"}
    fitted(out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fitted(out=tmp_path / "cut", progress=Interrupting("training", 7), **settings)
    fitted(out=tmp_path / "cut", **settings)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("method", ["zero-shot", "zero-shot-ensemble", "linear-probe"])
def test_a_method_without_a_prompt_leaves_a_run_that_predicts(
    fitted: Any, place: Path, tmp_path: Path, method: str
) -> None:
    run = fitted(out=tmp_path / "run", method=method, shots=4, noise="symmetric:0.2")
    assert set(files_of(tmp_path / "run")) == FINISHED_RUN - {
        "prompt.safetensors",
        "metrics.jsonl",
    } | {"head.safetensors"}
    assert run.result.epochs == []
    assert run.result.final is not None
    assert run.result.final.accuracy > 0.6
    if method == "zero-shot":
        assert run.result.final == run.result.zero_shot.test
    back = load_model(tmp_path / "run", backbone=run.model.backbone)
    pictures = sorted((place / "pictures" / "test").rglob("*.png"))[:5]
    assert back.predict(pictures) == run.model.predict(pictures)
    assert fitted(out=tmp_path / "run", method=method, shots=4, noise="symmetric:0.2").result == (
        run.result
    )


def test_base_to_new_and_cross_dataset(fitted: Any, place: Path, backbone: Backbone) -> None:
    data = str(place / "pictures")
    settings: dict[str, Any] = {"classes": "base", "transfer": ("new", data), "shots": 4}
    for method in ("dspt", "zero-shot"):
        result = fitted(method=method, data=data, **settings).result
        assert len(result.data.class_names) == 3
        new, everything = result.transfers
        assert (new.target, new.n_classes, new.tuned.n) == ("new", 3, 12)
        assert (everything.target, everything.n_classes, everything.tuned.n) == (data, 6, 24)
        assert everything.zero_shot.accuracy > 0.9
        if method == "zero-shot":
            assert new.tuned == new.zero_shot


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": {"epochs": 9}},
        {"prompt": {"n_ctx": 3}},
        {"prompt": {"position": "front"}},
        {"prompt": {"class_specific": True}},
        {"views": 1},
        {"shots": 3},
    ],
    ids=str,
)
def test_runs_that_cannot_train_side_by_side_are_refused(
    place: Path, backbone: Backbone, other: dict[str, Any]
) -> None:
    data = place / "pictures"
    common = {"data": str(data), "shots": 2, "recipe": SHORT}
    configs = [build_config(**common), build_config(**{**common, **other})]
    with pytest.raises(UserError, match="side by side must agree"):
        fit_many(configs, load_dataset(data), backbone, cache=place / "cache")


def test_views_change_training_and_nothing_else(fitted: Any) -> None:
    plain = fitted(shots=4, noise="symmetric:0.5")
    views = fitted(shots=4, noise="symmetric:0.5", views=2)
    assert views.result.zero_shot == plain.result.zero_shot
    assert views.result.noise == plain.result.noise
    assert views.result.context_fingerprint != plain.result.context_fingerprint
