from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.data.made import ids, named_labels, put, refusal

from dspt.data import load_dataset

CLASSES = ("apple_pie", "baklava", "beignets")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Food-101N beside Food-101, as their archives lay them out."""
    noisy, clean = tmp_path / "food-101n", tmp_path / "food-101"
    listed = [f"{name}/{name[0]}{i}abcdef.jpg" for name in CLASSES for i in range(2)]
    put(noisy / "images", *listed)
    write(noisy / "meta/classes.txt", "class_name", *CLASSES)
    write(noisy / "meta/imagelist.tsv", "class_name/key", *listed)
    write(
        noisy / "meta/verified_train.tsv",
        "class_name/key\tverification_label",
        f"{listed[0]}\t1",
        f"{listed[1]}\t0",
        f"baklava/{listed[1].split('/')[1]}\t1",  # under another class than the list's
    )
    put(clean / "images", *(f"{name}/{n}.jpg" for name in CLASSES for n in (11, 22)))
    write(clean / "meta/train.txt", *(f"{name}/11" for name in CLASSES))
    write(clean / "meta/test.txt", *(f"{name}/22" for name in CLASSES))
    return noisy


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def test_noisy_pictures_for_training_and_food_101_for_testing(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.class_names == ("apple pie", "baklava", "beignets")
    assert dataset.template == "a photo of {}, a type of food."
    assert ids(dataset, "train")[:2] == ["apple_pie/a0abcdef.jpg", "apple_pie/a1abcdef.jpg"]
    assert named_labels(dataset, "test") == {
        "apple_pie/22.jpg": "apple pie",
        "baklava/22.jpg": "baklava",
        "beignets/22.jpg": "beignets",
    }
    assert dataset.columns["verified"].tolist() == [0] + [-1] * 8
    clean = folder.parent / "food-101"
    for i in range(9):
        key = dataset.images.key(i)
        where = folder if i < 6 else clean
        assert dataset.images.read(i) == (where / "images" / key).read_bytes()


def test_without_verified_lists_there_is_no_column(folder: Path) -> None:
    (folder / "meta/verified_train.tsv").unlink()
    assert load_dataset(folder).columns == {}


def test_a_link_to_the_folder_finds_food_101_beside_the_link_or_the_folder(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "food-101n").symlink_to(folder)
    assert len(load_dataset(tmp_path / "root" / "food-101n").images) == 9
    (tmp_path / "food-101").rename(tmp_path / "root" / "food-101")
    assert len(load_dataset(tmp_path / "root" / "food-101n").images) == 9


def test_food_101_is_never_taken_for_food_101n(folder: Path, tmp_path: Path) -> None:
    """Every way in which clean pictures could be trained on under this name."""
    clean = tmp_path / "food-101"
    (folder / "meta/train.txt").write_text("apple_pie/11\n")
    assert "holds meta/train.txt, which is a file of Food-101" in refusal(folder)
    (folder / "meta/train.txt").unlink()

    good = (folder / "meta/imagelist.tsv").read_text()
    (folder / "meta/imagelist.tsv").write_text(good + "baklava/11.jpg\n")
    assert "baklava/11.jpg is a picture of Food-101" in refusal(folder)
    (folder / "meta/imagelist.tsv").write_text(good + "baklava/22.jpg\n")
    assert "baklava/22.jpg is a picture of Food-101" in refusal(folder)
    (folder / "meta/imagelist.tsv").write_text(good)

    shutil.rmtree(folder / "images")
    (folder / "images").symlink_to(clean / "images")
    assert "its pictures are those of Food-101" in refusal(folder)
    shutil.rmtree(folder)
    folder.symlink_to(clean)
    assert "meta/imagelist.tsv missing" in refusal("food101n", root=tmp_path)


def test_a_copy_of_food_101_with_its_split_file_is_refused(folder: Path) -> None:
    (folder / "split_zhou_Food101.json").write_text("{}")
    assert "meta/imagelist.tsv" not in refusal("food101n", root=folder.parent)
    assert "which is a file of Food-101 (clean labels)" in refusal("food101n", root=folder.parent)


def test_food_101_must_be_there_for_testing(folder: Path) -> None:
    shutil.rmtree(folder.parent / "food-101")
    message = refusal(folder)
    assert "tested on the test split of Food-101; put Food-101 into" in message
    assert str(folder.parent / "food-101") in message


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("imagelist.tsv", "soup/1.jpg", 'is not "CLASS/PICTURE"'),
        ("imagelist.tsv", "apple_pie", 'is not "CLASS/PICTURE"'),
        ("imagelist.tsv", "apple_pie/../x.jpg", "leads out"),
        ("imagelist.tsv", "apple_pie/a0abcdef.jpg", "is listed twice"),
        ("verified_train.tsv", "apple_pie/a0abcdef.jpg", "a tab, 0 or 1"),
        ("verified_val.tsv", "apple_pie/a0abcdef.jpg\tyes", "a tab, 0 or 1"),
    ],
)
def test_a_bad_line_is_named(folder: Path, name: str, line: str, reason: str) -> None:
    path = folder / "meta" / name
    text = path.read_text() if path.exists() else "class_name/key\n"
    path.write_text(f"{text}{line}\n")
    message = refusal(folder)
    assert f"{name}, line " in message
    assert reason in message
