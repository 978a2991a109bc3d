"""``dspt data`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.acceptance.calling import Caller
from tests.data.made import put
from tests.data.test_registry import write_small_tables
from tests.shared_data import shared_data

from dspt.data.registry import CARDS, VARIABLE


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.usefixtures("no_variable")
def test_list(call: Caller, tmp_path: Path) -> None:
    out = call.ok("data", "list").out
    assert all(card.name in out for card in CARDS)
    assert "unknown without --root" in out
    write_small_tables(tmp_path / "cifar-10", 10)
    (tmp_path / "dtd").mkdir()
    rows = json.loads(call.ok("data", "list", "--root", tmp_path, "--json").out)
    state = {row["name"]: row["on_disk"] for row in rows}
    assert len(state) == len(CARDS)
    assert state.pop("cifar10") == "yes"
    assert state.pop("dtd") == "in part"
    assert set(state.values()) == {"no"}
    found = next(row for row in rows if row["name"] == "cifar10")
    assert found["folder"] == str(tmp_path / "cifar-10")
    for key in ("num_classes", "sizes", "template", "layout", "source", "licence", "citation"):
        assert found[key]


def test_check_says_what_is_missing_and_answers_2(call: Caller, tmp_path: Path) -> None:
    answer = call("data", "check", "oxford_pets", tmp_path)
    assert (answer.code, answer.err) == (2, "")
    assert answer.out.splitlines()[:3] == [
        "oxford_pets: incomplete",
        f"- no folder oxford_pets/ in {tmp_path}",
        "layout: oxford_pets/: split_zhou_OxfordPets.json, images/",
    ]
    assert f"dspt data get oxford_pets --root {tmp_path}" in answer.out
    (tmp_path / "ucf101").mkdir()
    answer = call("data", "check", "ucf101", tmp_path, "--json")
    assert answer.code == 2
    assert json.loads(answer.out)["problems"] == [
        f"missing file split_zhou_UCF101.json in {tmp_path / 'ucf101'}; it comes from "
        "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md",
        f"missing folder UCF-101-midframes/ in {tmp_path / 'ucf101'}",
    ]
    assert "did you mean 'oxford_pets'" in call.refused("data", "check", "oxford_pet", tmp_path)
    assert "is no folder" in call.refused("data", "check", "dtd", tmp_path / "nowhere")


def test_check_of_real_data_answers_0(call: Caller) -> None:
    folder = shared_data("caltech-101")
    answer = call.ok("data", "check", "caltech101", folder.parent)
    assert answer.out == f"caltech101: complete, 8242 pictures in {folder}\n"


@pytest.mark.usefixtures("no_variable")
def test_get_refuses_in_one_line(call: Caller, tmp_path: Path) -> None:
    assert "give --root or set DSPT_DATA" in call.refused("data", "get", "dtd")
    line = call.refused("data", "get", "ucf101", "--root", tmp_path)
    assert "torchvision cannot download it; get it from https://www.crcv.ucf.edu" in line
    line = call.refused("data", "get", "cifar100n", "--root", tmp_path, "--labels", "nowhere.pt")
    assert "no human labels at nowhere.pt; download CIFAR-100_human.pt from https://" in line


def test_get_of_what_is_there_only_checks(call: Caller, tmp_path: Path) -> None:
    write_small_tables(tmp_path / "cifar-10", 10)
    answer = call("data", "get", "cifar10", "--root", tmp_path)
    assert answer.code == 2
    assert "- train: 10 pictures are listed, CIFAR-10 has 50000" in answer.out


def test_show(call: Caller, tmp_path: Path) -> None:
    put(tmp_path, *(f"{c}/{i}.jpg" for c in ("red [fox]", "b", "c", "d") for i in range(5)))
    put(tmp_path, "b/copy.jpg")  # the same grey as the first of the list
    lines = call.ok("data", "show", tmp_path, "--pictures", "-q").out.splitlines()
    assert lines[0] == f"{tmp_path.name}: 4 classes"
    assert lines[1].split() == ["train", "17", "pictures,", "4", "to", "5", "a", "class"]
    assert "held out" in lines[2]
    assert any(line.startswith("red [fox] ") for line in lines)
    assert "unreadable pictures: 0" in lines
    assert lines[-2].startswith("groups of identical pictures: 1; ")
    assert lines[-2].endswith("1 with several labels")
    assert set(lines[-1].removeprefix("- ").split(", ")) == {"red [fox]/0.jpg", "b/copy.jpg"}
    answer = call.ok("data", "show", tmp_path, "--classes", "base", "--json")
    shown = json.loads(answer.out)
    assert shown["class_names"] == ["b", "c"]
    assert shown["duplicates"] is None
    assert "must be" in call.refused("data", "show", tmp_path, "--classes", "old")
    assert "DSPT_DATA" not in call.refused("data", "show", "dtd", "--root", tmp_path)


@pytest.mark.parametrize("command", ["list", "check", "get", "show"])
def test_every_help_has_examples(call: Caller, command: str) -> None:
    out = call.ok("data", command, "--help").out
    assert "Examples" in out
    assert f"dspt data {command}" in out
