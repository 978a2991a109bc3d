"""The measurements of limits, on settings so small that they take seconds."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from dspt.data import load_dataset
from dspt.errors import UserError
from dspt.losses import per_sample_loss

ROOT = Path(__file__).resolve().parents[2]
Load = Callable[[str], ModuleType]

SMALL = {
    "from_scratch": ["--rates", "0.4", "--epochs", "2", "--learning-rates", "0.1", "0.3"],
    "weakened_prior": [
        *("--rates", "0.5", "--epochs", "2", "--classes", "first:3"),
        *("--priors", "random", "swapped-100", "scale-10"),
    ],
    "number_of_classes": [
        *("--rates", "0.25", "0.5", "--epochs", "2", "--demo-classes", "2", "3"),
        *("--data", "demo"),
    ],
}
CELLS = {"from_scratch": 8, "weakened_prior": 9, "number_of_classes": 16}
ROWS = {"from_scratch": 4, "weakened_prior": 3, "number_of_classes": 4}
TRAINER = {
    "from_scratch": ("train_side_by_side", 2),
    "weakened_prior": ("fit_many", 0),
    "number_of_classes": ("fit_many", 0),
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """A module of tools/limits by name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"tools.limits.{name}")


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", SMALL)
def test_a_measurement_runs_resumes_and_agrees_with_itself(
    name: str,
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = load(name)
    trained: list[int] = []
    function, position = TRAINER[name]
    original = getattr(module, function)

    def counting(*args: Any, **more: Any) -> Any:
        trained.append(len(args[position]))
        return original(*args, **more)

    monkeypatch.setattr(module, function, counting)

    def run(*seeds: str) -> str:
        trained.clear()
        module.main(["--out", str(tmp_path), *SMALL[name], "--seeds", *seeds])
        return capsys.readouterr().out

    printed = run("1")
    assert sum(trained) == CELLS[name] == len(kept(tmp_path))
    stem = name.replace("_", "-")
    rows = json.loads((tmp_path / f"{stem}.json").read_text())["rows"]
    table = (tmp_path / f"{stem}.md").read_text()
    assert table in printed
    lines = table.splitlines()[2:]
    assert len(rows) == len(lines) == ROWS[name]
    for row, line in zip(rows, lines, strict=True):
        value = row["dspt"] if "dspt" in row else row["test"]
        assert value[1] is None  # one seed has no interval
        assert f" {100 * value[0]:.1f} |" in line
    assert (tmp_path / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / f"{stem}.svg").read_text().startswith("<svg")

    # What is lost is done again, to the same values; what is there is left alone.
    before = kept(tmp_path)
    lines_before = (tmp_path / "cells.jsonl").read_text().splitlines()
    (tmp_path / "cells.jsonl").write_text("\n".join(lines_before[1:]) + "\n")
    assert run("1").startswith(table)
    assert sum(trained) == 1
    after = kept(tmp_path)
    assert after[:-1] == before[1:]
    assert after[-1]["cell"] == before[0]["cell"]
    for key, value in before[0]["values"].items():
        assert after[-1]["values"][key] == pytest.approx(value, rel=1e-5), key

    if name == "from_scratch":  # the fastest of them: an interval needs two seeds
        run("1", "2")
        assert sum(trained) == CELLS[name]
        origin = json.loads((tmp_path / f"{stem}.json").read_text())
        assert origin["seeds"] == [1, 2]
        row = origin["rows"][-1]
        values = [
            line["values"]["test"][-1]
            for line in kept(tmp_path)
            if line["cell"]["loss"] == "dspt" and line["cell"]["lr"] == row["lr"]
        ]
        low, high = stats.t.interval(0.95, 1, np.mean(values), stats.sem(values))
        assert row["test"] == pytest.approx([np.mean(values), (high - low) / 2], rel=1e-3)


def test_a_line_that_is_no_cell_is_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "cells.jsonl").write_text('{"cell": {}, "values": {}, "commit": "x"}\n{"cel\n')
    with pytest.raises(UserError, match=r"line 2: no finished cell"):
        load("common").Ledger(tmp_path)


def test_cells_of_other_settings_are_not_taken(load: Load, tmp_path: Path) -> None:
    ledger = load("common").Ledger(tmp_path)
    ledger.add([({"seed": 1, "layers": (2, 3)}, {"final": 0.5})])
    again = load("common").Ledger(tmp_path)
    assert {"layers": [2, 3], "seed": 1} in again
    assert {"layers": [2, 4], "seed": 1} not in again
    assert {"seed": 1} not in again


def test_networks_side_by_side_are_those_that_torch_trains_alone(load: Load) -> None:
    module = load("from_scratch")
    jobs = [(1, 0.1), (2, 0.03)]
    found = module.train_side_by_side("gce", 0.4, jobs, 3)
    for (seed, lr), curves in zip(jobs, found, strict=True):
        data = module.draw_digits(0.4, seed)
        network = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for layer, (weight, bias) in zip(linear, module.initial_weights(seed), strict=True):
                layer.weight.copy_(weight.t())
                layer.bias.copy_(bias[0])
        optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
        for epoch in range(3):
            order = module.keyed_order(seed, f"limits/digits-order/{epoch}", range(1000))
            for rows in torch.from_numpy(order).split(100):
                logits = network(data.pixels["train"][rows])
                optimizer.zero_grad()
                per_sample_loss("gce")(logits, data.given["train"][rows]).mean().backward()
                optimizer.step()
            right = network(data.pixels["test"]).argmax(1) == data.true["test"]
            # A rounding error may turn a picture or two.
            assert curves["test"][epoch] == pytest.approx(right.float().mean().item(), abs=0.005)
        assert not curves["diverged"]


def test_training_and_validation_labels_are_equally_wrong_and_splits_apart(load: Load) -> None:
    module = load("from_scratch")
    data = module.draw_digits(0.6, 3)
    for split, size in (("train", 1000), ("val", 300)):
        wrong = (data.given[split] != data.true[split]).sum().item()
        assert wrong == round(0.6 * size)
    assert {k: len(v) for k, v in data.true.items()} == module.SIZES
    assert sum(module.SIZES.values()) == 1797


def test_epochs_to_a_share_of_the_last_value(load: Load) -> None:
    module = load("from_scratch")
    assert module.epochs_to([0.1, 0.5, 0.91, 0.8, 1.0]) == 3
    assert module.epochs_to([0.9, 0.2]) == 1
    values = {"test": [0.1, 0.7, 0.6], "val_given": [0.2, 0.5, 0.5]}
    assert module.best_epoch(values) == 0.7


@pytest.mark.parametrize(("share", "wrong"), [(0.0, 0), (0.25, 6), (0.5, 13), (1.0, 26)])
def test_a_share_of_the_names_is_wrong_and_no_name_is_lost(
    share: float, wrong: int, load: Load
) -> None:
    module = load("weakened_prior")
    names = [f"name {i}" for i in range(26)]
    for seed in range(5):
        changed = module.class_names(module.Prior("x", "x", swapped=share), names, seed)
        assert sum(a != b for a, b in zip(names, changed, strict=True)) == wrong
        assert sorted(changed) == sorted(names)
    assert module.class_names(module.Prior("x", "x", numbered=True), names, 1)[25] == "class 26"


def test_the_scale_changes_the_logits_and_nothing_else(load: Load) -> None:
    module = load("weakened_prior")
    own, weak = module.with_scale(None), module.with_scale(10)
    assert own.logit_scale == pytest.approx(100, rel=1e-5)
    assert weak.logit_scale == pytest.approx(10, rel=1e-5)
    assert own.image_fingerprint == weak.image_fingerprint
    assert torch.equal(own.encode_text(["a dog"]), weak.encode_text(["a dog"]))


def test_chosen_classes_keep_their_pictures_names_and_splits(load: Load) -> None:
    module = load("number_of_classes")
    whole = load_dataset("demo")
    for count, seed in itertools.product((2, 5), (1, 2)):
        part = module.some_classes(whole, count, seed)
        assert len(part.class_names) == count
        for split, rows in part.splits.items():
            keys = {
                key: whole.class_names[label]
                for key, label in zip(
                    whole.keys(whole.splits[split]), whole.labels[whole.splits[split]], strict=True
                )
                if whole.class_names[label] in part.class_names
            }
            found = dict(
                zip(part.keys(rows), (part.class_names[c] for c in part.labels[rows]), strict=True)
            )
            assert found == keys
    assert module.some_classes(whole, 26, 1).class_names == whole.class_names
    assert (
        module.some_classes(whole, 5, 1).class_names != module.some_classes(whole, 5, 2).class_names
    )


def test_a_missing_data_set_is_skipped_visibly(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DSPT_DATA", raising=False)
    assert load("number_of_classes").available(["demo", "cifar-10n"]) == ["demo"]
    assert "SKIPPED: cifar-10n" in capsys.readouterr().err
