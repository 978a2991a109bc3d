from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.data.made import ids, named_labels, put, refusal
from tests.shared_data import shared_data

from dspt.data import load_dataset, open_image
from dspt.errors import UserError

TRAIN = [["cat/1.jpg", 0, "tabby_cat"], ["dog/1.jpg", 1, "dog"]]
TEST = [["cat/2.jpg", 0, "tabby_cat"], ["dog/2.jpg", 1, "dog"]]


def write_split(folder: Path, name: str = "Toy", **splits: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"split_zhou_{name}.json"
    path.write_text(json.dumps(splits), encoding="utf-8")
    return path


def test_labels_splits_and_names(tmp_path: Path) -> None:
    val = [["cat/3.jpg", 0, "tabby_cat"]]
    write_split(tmp_path, train=TRAIN, val=val, test=TEST)
    dataset = load_dataset(tmp_path)
    assert dataset.name == "Toy"
    assert dataset.class_names == ("tabby cat", "dog")
    assert named_labels(dataset, "train") == {"cat/1.jpg": "tabby cat", "dog/1.jpg": "dog"}
    assert ids(dataset, "val") == ["cat/3.jpg"]
    assert named_labels(dataset, "test") == {"cat/2.jpg": "tabby cat", "dog/2.jpg": "dog"}
    assert dataset.test_source == "split"
    assert dataset.columns == {}


def test_the_file_may_be_given_instead_of_its_folder(tmp_path: Path) -> None:
    path = write_split(tmp_path, "Toy", train=TRAIN, test=TEST)
    write_split(tmp_path, "Other", train=TRAIN, test=TEST)
    assert load_dataset(path).name == "Toy"
    assert "split_zhou_Other.json, split_zhou_Toy.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    "root", ["101_ObjectCategories", "images", "jpg", "2750", "SUN397", "UCF-101-midframes", "."]
)
def test_pictures_are_found_below_the_usual_roots(tmp_path: Path, root: str) -> None:
    write_split(tmp_path, train=TRAIN, test=TEST)
    put(tmp_path / root, "cat/1.jpg", "dog/1.jpg")
    images = load_dataset(tmp_path).images
    assert images.read(1) == (tmp_path / root / "dog/1.jpg").read_bytes()


def test_a_usual_root_without_the_pictures_is_passed_over(tmp_path: Path) -> None:
    write_split(tmp_path, train=TRAIN, test=TEST)
    put(tmp_path, "images/preview.jpg", "cat/1.jpg")
    assert load_dataset(tmp_path).images.read(0)


def test_a_missing_picture_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_split(tmp_path, train=TRAIN, test=TEST)
    images = load_dataset(tmp_path).images
    with pytest.raises(UserError, match=r"picture dog/1\.jpg in .* is missing"):
        images.read(1)


def test_the_image_root_may_be_a_link_but_no_picture_may_lead_out(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "cat/1.jpg")
    write_split(tmp_path / "set", train=TRAIN, test=TEST)
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    put(tmp_path, "secret.jpg")
    (tmp_path / "elsewhere" / "dog").mkdir()
    (tmp_path / "elsewhere" / "dog" / "1.jpg").symlink_to(tmp_path / "secret.jpg")
    images = load_dataset(tmp_path / "set").images
    assert images.read(0)
    with pytest.raises(UserError, match=r"picture dog/1\.jpg: a symbolic link leads out"):
        images.read(1)


@pytest.mark.parametrize("test", [None, []])
def test_without_test_rows_some_are_held_out(tmp_path: Path, test: list | None) -> None:
    train = [[f"{c}/{i}.jpg", c, f"class {c}"] for c in range(2) for i in range(10)]
    write_split(tmp_path, train=train, **({} if test is None else {"test": test}))
    dataset = load_dataset(tmp_path)
    assert dataset.test_source == "holdout"
    assert Counter(named_labels(dataset, "test").values()) == {"class 0": 2, "class 1": 2}


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("OxfordPets", "a photo of a {}, a type of pet."),
        ("OxfordFlowers", "a photo of a {}, a type of flower."),
        ("FGVCAircraft", "a photo of a {}, a type of aircraft."),
        ("DescribableTextures", "{} texture."),
        ("EuroSAT", "a centered satellite photo of {}."),
        ("Food101", "a photo of {}, a type of food."),
        ("UCF101", "a photo of a person doing {}."),
        ("StanfordCars", "a photo of a {}."),
        ("Toy", "a photo of a {}."),
    ],
)
def test_templates(tmp_path: Path, name: str, template: str) -> None:
    write_split(tmp_path, name, train=TRAIN, test=TEST)
    assert load_dataset(tmp_path).template == template


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["../cat.jpg", 0, "tabby_cat"], "leads out of the data folder"),
        (["a/../../cat.jpg", 0, "tabby_cat"], "leads out of the data folder"),
        (["a\\..\\cat.jpg", 0, "tabby_cat"], "leads out of the data folder"),
        (["/etc/cat.jpg", 0, "tabby_cat"], "is an absolute path"),
        (["C:\\cat.jpg", 0, "tabby_cat"], "is an absolute path"),
        (["https://a.example/cat.jpg", 0, "tabby_cat"], "is a URL"),
        (["", 0, "tabby_cat"], "is empty"),
        (["a\0b.jpg", 0, "tabby_cat"], "cannot be a file name"),
        (["a\nb.jpg", 0, "tabby_cat"], "cannot be a file name"),
        (["ä" * 128, 0, "tabby_cat"], "cannot be a file name"),
        (["a\ud800b.jpg", 0, "tabby_cat"], "cannot be a file name"),
        (["./dog/1.jpg", 1, "dog"], 'listed twice, first in "train" row 1'),
        (["c.jpg", 0, "dog"], 'label 0 is called "dog" here and "tabby_cat" before'),
        (["c.jpg", 0, "a\u2028b"], "'a\\u2028b' cannot name a class"),
        (["c.jpg", 0, "a" * 300], "cannot name a class"),
        (["c.jpg", -1, "dog"], "label -1 is out of range"),
        (["c.jpg", 10**30, "dog"], "is out of range"),
        (["c.jpg", True, "dog"], "must be [path, label, class name]"),
        (["c.jpg", "1", "dog"], "must be [path, label, class name]"),
        (["c.jpg", 1.0, "dog"], "must be [path, label, class name]"),
        (["c.jpg", 1], "must be [path, label, class name]"),
        ([None, 1, "dog"], "must be [path, label, class name]"),
        ("c.jpg", "must be [path, label, class name]"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: object, reason: str) -> None:
    path = write_split(tmp_path, train=TRAIN, test=[*TEST, row])
    message = refusal(tmp_path)
    assert f'{path}, "test" row 2: ' in message
    assert reason in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no readable JSON"),
        ("{", "no readable JSON"),
        ("[" * 100_000, "no readable JSON"),
        ("\xff", "no readable JSON"),
        ("[]", "must hold one object"),
        ('{"train": [["a.jpg", 0, "a"], ["b.jpg", 1, "b"]], "tset": []}', '"tset" is no split'),
        (
            '{"train": [["a.jpg", 0, "a"], ["b.jpg", 1, "b"]], "test": null}',
            '"test" must be a list',
        ),
        ('{"train": [["a.jpg", 0, "a"]], "train": [["b.jpg", 1, "b"]]}', "a field is given twice"),
        ('{"train": [["a.jpg", 0, "a"], ["b.jpg", 9999999, "b"]]}', "no row has label 1"),
        ("{}", 'no "train" rows'),
        ('{"train": []}', 'no "train" rows'),
        ('{"train": {"a": 1}}', '"train" must be a list'),
        ('{"train": [["a.jpg", 0, "a"], ["b.jpg", 2, "b"]]}', "no row has label 1"),
        ('{"train": [["a.jpg", 0, "a"]]}', "at least two classes"),
        ('{"train": [["a.jpg", 0, "a_b"], ["b.jpg", 1, "a b"]]}', 'two classes are called "a b"'),
        ('{"train": [["a.jpg", 0, "a"], ["b.jpg", 1, " "]]}', "cannot name a class"),
        ('{"train": [["a.jpg", 0, "a"], ["b.jpg", 1, "b\\nc"]]}', "cannot name a class"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "split_zhou_Toy.json"
    path.write_bytes(text.encode("latin-1"))
    message = refusal(tmp_path)
    assert reason in message
    assert str(tmp_path) in message


def test_column_options_are_refused(tmp_path: Path) -> None:
    write_split(tmp_path, train=TRAIN, test=TEST)
    message = refusal(tmp_path, label_column="human")
    assert "label_column 'human' is for tables; this is a split file" in message


@pytest.mark.parametrize(
    ("name", "sizes", "classes", "label", "class_name"),
    [
        ("DescribableTextures", (2820, 1128, 1692), 47, 0, "banded"),
        ("EuroSAT", (13500, 5400, 8100), 10, 9, "Sea or Lake"),
        ("OxfordFlowers", (4093, 1633, 2463), 102, 76, "passion flower"),
        ("OxfordPets", (2944, 736, 3669), 37, 36, "yorkshire terrier"),
        ("StanfordCars", (6509, 1635, 8041), 196, 13, "2012 Audi TTS Coupe"),
        ("UCF101", (7639, 1898, 3783), 101, 100, "Yo Yo"),
    ],
)
def test_real_split_files(
    name: str, sizes: tuple[int, ...], classes: int, label: int, class_name: str
) -> None:
    dataset = load_dataset(shared_data("coop-splits") / f"split_zhou_{name}.json")
    assert tuple(len(dataset.splits[split]) for split in ("train", "val", "test")) == sizes
    assert len(dataset.class_names) == classes
    assert dataset.class_names[label] == class_name


def test_real_caltech_101() -> None:
    dataset = load_dataset(shared_data("caltech-101"))
    sizes = {split: len(indices) for split, indices in dataset.splits.items()}
    assert sizes == {"train": 4128, "val": 1649, "test": 2465}
    assert len(dataset.class_names) == 100
    assert dataset.class_names[99] == "yin yang"
    last = int(dataset.splits["train"][-1])
    assert open_image(dataset.images.read(last), dataset.images.key(last)).mode == "RGB"
