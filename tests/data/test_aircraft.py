from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.made import ids, named_labels, put, refusal

from dspt.data import load_dataset

LISTS = {
    "train": "0000001 Boeing 707-320\n0000002 A300B4\n",
    "val": "0000003 A300B4\n",
    "test": "0000004 F/A-18\n0000005 Boeing 707-320\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, *(f"images/000000{i}.jpg" for i in range(1, 6)))
    (tmp_path / "variants.txt").write_text("Boeing 707-320\nA300B4\nF/A-18\n")
    for split, text in LISTS.items():
        (tmp_path / f"images_variant_{split}.txt").write_text(text)
    return tmp_path


def test_classes_and_splits_come_from_the_lists(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.class_names == ("Boeing 707-320", "A300B4", "F/A-18")
    assert dataset.template == "a photo of a {}, a type of aircraft."
    assert named_labels(dataset, "train") == {
        "0000001.jpg": "Boeing 707-320",
        "0000002.jpg": "A300B4",
    }
    assert ids(dataset, "val") == ["0000003.jpg"]
    assert named_labels(dataset, "test")["0000004.jpg"] == "F/A-18"
    assert dataset.images.read(4) == (folder / "images/0000005.jpg").read_bytes()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0000006 A310", "line 2: 'A310' is not in variants.txt"),
        ("0000006", "line 2: '' is not in variants.txt"),
        ("0000001 A300B4", "0000001.jpg is listed twice, first in"),
        ("../0000006 A300B4", "leads out of the data folder"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: str, reason: str) -> None:
    (folder / "images_variant_val.txt").write_text(f"0000003 A300B4\n{line}\n")
    message = refusal(folder)
    assert "images_variant_val.txt, line 2" in message
    assert reason in message


def test_a_missing_list_is_named(folder: Path) -> None:
    (folder / "images_variant_test.txt").unlink()
    assert "images_variant_test.txt is missing" in refusal(folder)
