from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.made import ids, named_labels, put, refusal

from dspt.data import load_dataset

# In another order than the folders, as nothing promises one.
NAMES = "n02 red fox\nn01 tench\nn04008634 missile\nn03773504 missile\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(
        tmp_path,
        *(f"images/train/{w}/{w}_{i}.JPEG" for w in WNIDS for i in range(2)),
        *(f"images/val/{w}/ILSVRC2012_val_{i}.JPEG" for i, w in enumerate(WNIDS)),
        "images/train/n01/._hidden.JPEG",
    )
    (tmp_path / "classnames.txt").write_text(NAMES)
    return tmp_path


WNIDS = ("n01", "n02", "n03773504", "n04008634")


def test_classes_are_numbered_by_folder_and_validation_is_for_testing(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.class_names == ("tench", "red fox", "missile", "projectile")
    assert set(dataset.splits) == {"train", "test"}
    assert dataset.test_source == "split"
    assert ids(dataset, "train")[:2] == [
        "images/train/n01/n01_0.JPEG",
        "images/train/n01/n01_1.JPEG",
    ]
    assert named_labels(dataset, "test") == {
        "images/val/n01/ILSVRC2012_val_0.JPEG": "tench",
        "images/val/n02/ILSVRC2012_val_1.JPEG": "red fox",
        "images/val/n03773504/ILSVRC2012_val_2.JPEG": "missile",
        "images/val/n04008634/ILSVRC2012_val_3.JPEG": "projectile",
    }
    key = ids(dataset, "test")[1]
    assert dataset.images.read(9) == (folder / key).read_bytes()


def test_other_classes_of_one_name_get_the_folder_in_brackets(folder: Path) -> None:
    (folder / "classnames.txt").write_text(NAMES.replace("red fox", "tench"))
    names = load_dataset(folder).class_names
    assert names == ("tench", "tench (n02)", "missile", "projectile")


def test_a_name_that_needs_no_telling_apart_is_kept(folder: Path) -> None:
    (folder / "classnames.txt").write_text(NAMES.replace("n04008634 missile", "n04008634 rocket"))
    assert load_dataset(folder).class_names[3] == "rocket"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("n01 tench\n", "3 folders are not in classnames.txt: n02, "),
        (NAMES + "n05 robin\n", "1 of 5 class folders are missing: n05; unpack them"),
        (NAMES + "n01 robin\n", "line 5: n01 occurs twice"),
        (NAMES + "n05\n", 'line 5: must be "FOLDER CLASS NAME"'),
        (NAMES + "../up name\n", "must be"),
        ("", "is empty"),
        ("\n \n", "is empty"),
    ],
)
def test_a_list_that_does_not_fit_the_folders_is_refused(
    folder: Path, text: str, reason: str
) -> None:
    (folder / "classnames.txt").write_text(text)
    assert reason in refusal(folder)


def test_missing_pictures_are_named_by_folder(folder: Path) -> None:
    (folder / "images/val/n02/ILSVRC2012_val_1.JPEG").unlink()
    assert f"{folder / 'images/val/n02'}: no picture in this class folder" in refusal(folder)
    (folder / "images" / "val").rename(folder / "images" / "test")
    assert "images/val/ is missing" in refusal(folder)


def test_column_options_are_refused(folder: Path) -> None:
    assert "this is ImageNet's layout" in refusal(folder, label_column="x")
