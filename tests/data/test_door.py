from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.data.made import ids, named_labels, put, refusal

from dspt.data import ImageDataset, load_dataset, open_image
from dspt.data.stores import FileImages
from dspt.errors import UserError


def test_the_demo_is_packaged() -> None:
    dataset = load_dataset("demo")
    assert dataset.name == dataset.source == "demo"
    assert dataset.template == "a photo of a {}."
    assert dataset.test_source == "split"
    assert len(dataset.class_names) >= 2
    assert not any("_" in name for name in dataset.class_names)
    for split in ("train", "test"):
        assert len(set(dataset.labels[dataset.splits[split]])) == len(dataset.class_names)
    last = len(dataset.images) - 1
    assert open_image(dataset.images.read(last), dataset.images.key(last)).mode == "RGB"


def test_the_demo_takes_the_options_of_a_table() -> None:
    assert "no column 'human'" in refusal("demo", label_column="human")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "no such file or folder: ''; data can be"),
        ("demoo", "no such file or folder: 'demoo'; data can be"),
        ("https://a.example/set.zip", "no such file or folder"),
        ("a\0b", "no such file or folder"),
        ("a\nb", "no such file or folder"),
        ("x" * 300, "cannot be read"),
        ("~no_such_user_here/x", "cannot be read"),
    ],
)
def test_an_unknown_source_lists_what_is_accepted(source: str, reason: str) -> None:
    assert reason in refusal(source)


def test_a_folder_called_demo_needs_a_path(tmp_path: Path, monkeypatch) -> None:
    put(tmp_path, "demo/a/1.jpg", "demo/b/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("./demo").class_names == ("a", "b")
    assert load_dataset(Path("demo")).class_names == ("a", "b")
    assert load_dataset(Path("demo")).name == "demo"


def test_other_files_and_empty_folders_list_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert "no data set in a .zip file; data can be" in refusal(tmp_path / "a.zip")
    assert "no data set in a suffixless file" in refusal(tmp_path / "b")
    assert "no data set in this folder; data can be" in refusal(tmp_path / "empty")


def test_a_split_file_comes_before_a_table_and_a_table_before_folders(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    assert load_dataset(tmp_path).class_names == ("a", "b")
    (tmp_path / "train.csv").write_text("image,label\na/1.jpg,c\nb/1.jpg,d\n")
    assert load_dataset(tmp_path).class_names == ("c", "d")
    (tmp_path / "split_zhou_X.json").write_text('{"train": [["1", 0, "e"], ["2", 1, "f"]]}')
    assert load_dataset(tmp_path).class_names == ("e", "f")


def test_the_holdout_is_the_same_for_every_listing_and_takes_its_share(tmp_path: Path) -> None:
    put(tmp_path, *(f"{c}/{i}.jpg" for c in "ab" for i in range(10)), "c/only.jpg")
    dataset = load_dataset(tmp_path, holdout=0.3)
    assert dataset.test_source == "holdout"
    test = named_labels(dataset, "test")
    assert sorted(test.values()) == ["a"] * 3 + ["b"] * 3
    assert set(test) | set(ids(dataset, "train")) == set(dataset.keys(range(21)))
    put(tmp_path, "aa/0.jpg", "aa/1.jpg")  # shifts every number after it
    more = named_labels(load_dataset(tmp_path, holdout=0.3), "test")
    assert set(test) <= set(more)


def test_no_holdout(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    assert load_dataset(tmp_path, holdout=0).test_source == "none"
    (tmp_path / "a" / "2.jpg").unlink()
    assert load_dataset(tmp_path, holdout=0.5).test_source == "none"


@pytest.mark.parametrize("holdout", [-0.1, 1, 1.5, float("nan")])
def test_holdout_must_leave_something(tmp_path: Path, holdout: float) -> None:
    assert "holdout must be at least 0 and below 1" in refusal(tmp_path, holdout=holdout)


def test_neither_torch_nor_pillow_nor_pandas_is_needed_to_load(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    code = (
        "import sys; from dspt.data import load_dataset; import dspt.noise;"
        "load_dataset(sys.argv[1]);"
        "print(sorted({'torch', 'PIL', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"]
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- the data set itself ---


def made(**changes: object) -> ImageDataset:
    fields: dict = {
        "name": "toy",
        "source": "toy",
        "class_names": ("a", "b"),
        "images": FileImages(Path(), ["1", "2", "3"], contained=True),
        "labels": np.array([0, 1, 1]),
        "splits": {"train": np.array([0, 1]), "test": np.array([2])},
    }
    return ImageDataset(**{**fields, **changes})


def test_a_data_set_knows_where_its_test_pictures_come_from() -> None:
    assert made().test_source == "split"
    assert made(splits={"train": np.array([0, 1])}).test_source == "none"
    assert made().keys(np.array([2, 0])) == ["3", "1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ("a",)},
        {"class_names": ("a", "a")},
        {"class_names": ("a", "")},
        {"class_names": ("a", "b\n")},
        {"splits": {"train": np.array([], dtype=np.int64)}},
    ],
)
def test_what_a_user_can_mend_is_a_user_error(changes: dict) -> None:
    with pytest.raises(UserError):
        made(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.array([0, 1])},
        {"labels": np.array([0, 1, 2])},
        {"labels": np.array([0, 1, -1])},
        {"labels": np.array([0.0, 1.0, 1.0])},
        {"columns": {"human": np.array([0, 1])}},
        {"columns": {"human": np.array([0, 1, -2])}},
        {"columns": {"human": np.array([0, 1, 2])}},
        {"splits": {"test": np.array([0])}},
        {"splits": {"train": np.array([0]), "dev": np.array([1])}},
        {"splits": {"train": np.array([0, 3])}},
        {"splits": {"train": np.array([0, -1])}},
        {"splits": {"train": np.array([0, 0])}},
        {"splits": {"train": np.array([0, 1]), "test": np.array([1])}},
        {"test_source": "none"},
    ],
)
def test_what_only_a_reader_can_get_wrong_is_not(changes: dict) -> None:
    with pytest.raises(ValueError) as caught:
        made(**changes)
    assert not isinstance(caught.value, UserError)
