"""``dspt data`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.acceptance.calling import Caller
from tests.data.made import put
from tests.data.test_registry import write_small_tables
from tests.shared_data import shared_data
from tests.tiny import write_model, write_pictures

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


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def test_show_warns_of_names_that_mean_nothing(
    call: Caller, tiny_model: str, tmp_path: Path
) -> None:
    write_pictures(tmp_path, ("red", "green", "blue"), n=15)
    (tmp_path / "red").rename(tmp_path / "IMG0042")
    put(tmp_path, *(f"Green/{i}.png" for i in range(9)))
    model = ("--backbone", tiny_model, "--cache", tmp_path / ".cache", "-q")
    lines = call.ok("data", "show", tmp_path, *model).out.splitlines()
    at = next(i for i, line in enumerate(lines) if "mean nothing to" in line)
    assert lines[at].startswith("warning: ")
    assert lines[at].endswith('("a photo of a {}."); say them in words that a caption would use')
    assert any(line.startswith("- IMG0042: 0 of 12 recognised, most are") for line in lines[at:])
    assert not any(line.startswith("- blue:") for line in lines[at:])
    at = next(i for i, line in enumerate(lines) if "are the same to" in line)
    assert lines[at].startswith("warning: 1 pairs of class names")
    assert lines[at + 1] == "- Green and green"
    shown = json.loads(call.ok("data", "show", tmp_path, *model, "--json").out)
    assert shown["zero_shot"]["recall"][shown["class_names"].index("IMG0042")] == 0
    assert shown["zero_shot"]["alike"] == [[0, 3]]


def test_show(call: Caller, tiny_model: str, tmp_path: Path) -> None:
    put(tmp_path, *(f"{c}/{i}.jpg" for c in ("red [fox]", "b", "c", "d") for i in range(5)))
    put(tmp_path, "b/copy.jpg")  # the same grey as the first of the list
    (tmp_path / "c" / "9.jpg").write_bytes(b"no picture")
    model = ("--backbone", tiny_model, "--cache", tmp_path / ".cache")
    lines = call.ok("data", "show", tmp_path, *model, "-q").out.splitlines()
    assert lines[0] == f"{tmp_path.name}: 4 classes"
    assert lines[1].split() == ["train", "18", "pictures,", "4", "to", "5", "a", "class"]
    assert "held out" in lines[2]
    assert any(line.startswith("red [fox] ") for line in lines)
    at = lines.index("unreadable pictures: 1")
    assert lines[at + 1].startswith("- picture c/9.jpg cannot be decoded: not one of ")
    assert lines[at + 2].startswith("groups of identical pictures: 1; ")
    assert lines[at + 2].endswith("1 with several labels")
    assert set(lines[at + 3].removeprefix("- ").split(", ")) == {"red [fox]/0.jpg", "b/copy.jpg"}
    assert "picture c/9.jpg" in call.refused("data", "show", tmp_path, *model, "--strict", "-q")
    answer = call.ok("data", "show", tmp_path, "--classes", "base", "--json", "--no-pictures")
    shown = json.loads(answer.out)
    assert shown["class_names"] == ["b", "c"]
    assert shown["duplicates"] is None
    assert shown["zero_shot"] is None
    line = call.refused("data", "show", tmp_path, "--no-pictures", "--strict")
    assert "leave out --no-pictures" in line
    assert "must be" in call.refused("data", "show", tmp_path, "--classes", "old")
    assert "DSPT_DATA" not in call.refused("data", "show", "dtd", "--root", tmp_path)


def test_show_of_pictures_that_are_not_there(call: Caller, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,label\n1.jpg,a\n2.jpg,b\n")
    lines = call.ok("data", "show", tmp_path, "-q").out.splitlines()
    at = lines.index("unreadable pictures: 2")
    assert lines[at + 1].startswith("- picture 1.jpg in ")


@pytest.mark.parametrize("command", ["list", "check", "get", "show"])
def test_every_help_has_examples(call: Caller, command: str) -> None:
    out = call.ok("data", command, "--help").out
    assert "Examples" in out
    assert f"dspt data {command}" in out
