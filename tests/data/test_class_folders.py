from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.data.made import ids, named_labels, picture, put, refusal

from dspt.data import load_dataset


def test_class_folders_alone(tmp_path: Path) -> None:
    put(tmp_path, "tabby_cat/b.jpg", "tabby_cat/a.PNG", "Zebra/deep/er/1.TIFF", "Zebra/2.webp")
    dataset = load_dataset(tmp_path, holdout=0)
    assert dataset.name == tmp_path.name
    assert dataset.class_names == ("Zebra", "tabby cat")
    assert dataset.test_source == "none"
    assert set(dataset.splits) == {"train"}
    assert named_labels(dataset, "train") == {
        "Zebra/2.webp": "Zebra",
        "Zebra/deep/er/1.TIFF": "Zebra",
        "tabby_cat/a.PNG": "tabby cat",
        "tabby_cat/b.jpg": "tabby cat",
    }
    assert dataset.images.read(3) == (tmp_path / "tabby_cat/b.jpg").read_bytes()
    assert ids(dataset, "train") == sorted(ids(dataset, "train"))


def test_only_visible_pictures_count(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg", "a/.2.jpg", "a/._1.jpg", "a/.cache/3.jpg", ".git/4.jpg")
    put(tmp_path, "__MACOSX/a/1.jpg", "loose.jpg")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    dataset = load_dataset(tmp_path, holdout=0)
    assert ids(dataset, "train") == ["a/1.jpg", "b/1.jpg"]


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_splits(tmp_path: Path, val: str) -> None:
    for split in ("train", val, "test"):
        put(tmp_path, f"{split}/b/1.jpg", f"{split}/a/1.jpg")
    dataset = load_dataset(tmp_path)
    assert dataset.test_source == "split"
    assert dataset.class_names == ("a", "b")
    assert ids(dataset, "train") == ["train/a/1.jpg", "train/b/1.jpg"]
    assert ids(dataset, "val") == [f"{val}/a/1.jpg", f"{val}/b/1.jpg"]
    assert named_labels(dataset, "test") == {"test/a/1.jpg": "a", "test/b/1.jpg": "b"}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path, "train/1.jpg", "train/2.jpg", "bus/1.jpg")
    assert load_dataset(tmp_path).class_names == ("bus", "train")


def test_links_to_the_users_own_pictures_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "1.jpg", "cats/2.jpg")
    put(tmp_path / "set", "a/0.jpg", "b/0.jpg")
    (tmp_path / "set" / "a" / "1.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "set" / "c").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "set" / "b" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "here").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "above").symlink_to(tmp_path)
    dataset = load_dataset(tmp_path / "set", holdout=0)
    assert ids(dataset, "train") == ["a/0.jpg", "a/1.jpg", "b/0.jpg", "c/2.jpg"]
    assert all(dataset.images.read(i) for i in range(4))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a/1.jpg", "b/x.txt"], "no picture in b; add some or remove the folder"),
        (["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg"], "only in train/: b"),
        (["train/a/1.jpg", "test/a/1.jpg", "test/b/1.jpg"], "only in test/: b"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"], "only in val/: c; only in train/: a"),
        (["train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], "both val/ and valid/"),
        (["test/a/1.jpg", "test/b/1.jpg"], "has test/ but no train/"),
        (["train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"], "also pictures in test/"),
        (["train/a/1.jpg", "train/b/1.jpg", "bus/1.jpg"], "also pictures in bus/"),
        (["train/1.jpg", "test/1.jpg"], "must hold one folder a class"),
        (["a/1.jpg"], "at least two classes, found 1 (a)"),
        (["a_b/1.jpg", "a b/1.jpg"], 'two classes are called "a b"'),
        (["1.jpg", "2.jpg"], "no data set in this folder"),
        (["a/b\n.jpg", "a/b\\n.jpg", "c/1.jpg"], r"two file names are written 'a/b\\n.jpg'"),
        (["a\n/b.jpg", "c/1.jpg"], r"'a\n' cannot name a class"),
    ],
)
def test_refusals(tmp_path: Path, names: list[str], reason: str) -> None:
    put(tmp_path, *names)
    assert reason in refusal(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such file names")
def test_any_file_name_is_read_and_its_key_is_one_line_of_text(tmp_path: Path) -> None:
    longest = "\N{KATAKANA LETTER PI}" * 83 + "ab.jpg"
    assert len(longest.encode()) == 255
    names = [
        "a\nb.jpg",
        " a b .jpg",
        "ä.jpg",
        "a\N{COMBINING DIAERESIS}.jpg",
        longest,
        "\u202eb.jpg",
    ]
    put(tmp_path, *(f"a/{name}" for name in names), "b/1.jpg")
    stray = os.fsencode(tmp_path / "a") + b"/\xff.jpg"
    Path(os.fsdecode(stray)).write_bytes(b"stray")
    dataset = load_dataset(tmp_path, holdout=0)
    keys = ids(dataset, "train")
    escaped = [f"a/{name}" for name in [*names[1:], "a\\nb.jpg", "\\xff.jpg"]]
    assert sorted(keys) == sorted([*escaped, "b/1.jpg"])
    for key in keys:
        assert key.encode().decode() == key
    assert dataset.images.read(keys.index("a/\\xff.jpg")) == b"stray"
    assert dataset.images.read(keys.index("a/a\\nb.jpg")) == picture(0)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such file names")
def test_the_folder_itself_must_have_a_name_that_can_be_written_down(tmp_path: Path) -> None:
    for name in (b"\xff", b"a\nb"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        put(folder, "a/1.jpg", "b/1.jpg")
        assert "is not one line of UTF-8; rename or link it" in refusal(folder)
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(folder)
        assert load_dataset(tmp_path / "link").name in ("\\xff", "a\\nb")


def test_column_options_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    assert "split_column 'fold' is for tables" in refusal(tmp_path, split_column="fold")
