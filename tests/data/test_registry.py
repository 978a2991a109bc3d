from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.data.made import put, refusal
from tests.shared_data import shared_data

from dspt.data import dataset_card, draw_shots, load_dataset
from dspt.data.registry import CARDS, VARIABLE, find_root
from dspt.data.split_file import TEMPLATES
from dspt.errors import UserError

REAL_SPLITS = {
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "oxford_flowers": "OxfordFlowers",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "ucf101": "UCF101",
}

# Two pictures of each of the first two classes of Caltech101, seed 1.
DRAWN = [
    "Faces/image_0202.jpg",
    "Faces/image_0255.jpg",
    "Leopards/image_0131.jpg",
    "Leopards/image_0122.jpg",
]


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real" not in request.node.name:  # real data may be found through the same variable
        monkeypatch.delenv(VARIABLE, raising=False)


def test_the_registry_names_every_promised_data_set_once() -> None:
    names = [card.name for card in CARDS]
    assert len(set(names)) == len(names)
    coop = {"caltech101", "dtd", "eurosat", "oxford_flowers", "food101", "oxford_pets"}
    coop |= {"stanford_cars", "fgvc_aircraft", "sun397", "ucf101", "imagenet"}
    others = {"cifar10", "cifar100", "cifar10n", "cifar100n", "food101n", "fashion_mnist"}
    assert set(names) == coop | others
    folders = [folder for card in CARDS for folder in card.folders]
    assert len(set(folders)) == len(folders)


def test_every_card_is_filled_in() -> None:
    used = set()
    for card in CARDS:
        assert card.template.count("{}") == 1
        assert card.source.startswith("https://")
        assert card.licence
        assert card.citation
        assert card.sizes[0] > 0
        assert card.sizes[2] > 0
        assert all(name in card.layout for name in card.index if "variant_" not in name)
        used.add(card.template)
    assert set(TEMPLATES.values()) <= used


def test_torchvision_has_the_classes_that_the_cards_name() -> None:
    from torchvision import datasets

    assert all(hasattr(datasets, card.torchvision) for card in CARDS if card.torchvision)


@pytest.mark.parametrize("name", ["caltech101", "caltech-101", "Caltech101", "CALTECH-101"])
def test_a_card_is_found_by_name_and_by_folder_name(name: str) -> None:
    assert dataset_card(name).title == "Caltech101"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"'oxfordpets'; known: .*; did you mean 'oxfo"):
        dataset_card("oxfordpets")
    with pytest.raises(UserError, match="no data set is called 'zzz'; known: caltech101, "):
        dataset_card("zzz")
    assert "did you mean 'caltech101'?" in refusal("caltech11")
    assert "did you mean" not in refusal("my_pictures")


def test_the_root_may_be_the_folder_of_all_sets_or_of_the_one(tmp_path: Path) -> None:
    folder = tmp_path / "caltech-101"
    folder.mkdir()
    assert find_root("caltech101", tmp_path) == folder
    assert find_root("caltech101", folder) == folder
    assert find_root("dtd", tmp_path) is None
    (tmp_path / "Food-101N_release").mkdir()
    assert find_root("food101n", tmp_path) == tmp_path / "Food-101N_release"


def test_without_a_data_root_the_message_names_all_ways(tmp_path: Path) -> None:
    message = refusal("caltech101")
    assert "root, --root" in message
    assert "DSPT_DATA" in message
    assert "dspt data check caltech101 ROOT" in message
    assert "no folder caltech-101 in" in refusal("caltech101", root=tmp_path)
    assert "is no folder" in refusal("caltech101", root=tmp_path / "nowhere")
    assert "(from root)" in refusal("caltech101", root="~no_such_user_here")
    assert "(from root)" in refusal("caltech101", root="a\0b")


def test_the_variable_is_used_when_no_root_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    assert "(from $DSPT_DATA)" in refusal("dtd")
    assert "no folder dtd in" in refusal("dtd", root=tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert "no folder dtd in" in refusal("dtd")


def test_a_path_that_exists_is_never_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "dtd/a/1.jpg", "dtd/b/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("dtd").class_names == ("a", "b")
    assert load_dataset("dtd", root=tmp_path).class_names == ("a", "b")
    monkeypatch.chdir("/")
    assert "no such file or folder: 'caltech101'" in refusal(Path("caltech101"))


def test_other_data_in_the_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "dtd/a/1.jpg", "dtd/b/1.jpg")
    assert "split_zhou_DescribableTextures.json missing in" in refusal("dtd", root=tmp_path)
    path = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    path.write_text('{"train": [["a/1.jpg", 0, "a"], ["b/1.jpg", 1, "b"]]}')
    assert "2 classes, but DTD has 47" in refusal("dtd", root=tmp_path)
    assert "is for tables" in refusal("dtd", root=tmp_path, label_column="x")


def test_cifar_10_without_human_labels_is_not_cifar_10n(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10n"
    put(folder, *(f"{i}.png" for i in range(20)))
    write_small_tables(folder, 10)
    assert "no label column aggre_label, random_label1" in refusal("cifar10n", root=tmp_path)
    folder.rename(tmp_path / "cifar-10")
    dataset = load_dataset("cifar10", root=tmp_path)
    assert dataset.name == "cifar10"
    assert dataset.source == "cifar10"
    assert len(dataset.class_names) == 10


def write_small_tables(folder: Path, classes: int) -> None:
    """One picture a class and split, as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        cells = {"image": [b"x"] * classes, "label": list(range(classes))}
        pq.write_table(pa.table(cells), folder / f"{split}.parquet")
    (folder / "classes.txt").write_text("".join(f"class {i}\n" for i in range(classes)))


@pytest.mark.parametrize(("name", "split_name"), REAL_SPLITS.items())
def test_real_split_files_are_what_the_cards_say(
    tmp_path: Path, name: str, split_name: str
) -> None:
    card = dataset_card(name)
    folder = tmp_path / card.folders[0]
    folder.mkdir()
    shutil.copy(shared_data("coop-splits") / f"split_zhou_{split_name}.json", folder)
    dataset = load_dataset(name, root=tmp_path)
    assert (dataset.name, dataset.source, dataset.template) == (name, name, card.template)
    assert len(dataset.class_names) == card.num_classes
    sizes = tuple(len(dataset.splits[split]) for split in ("train", "val", "test"))
    assert sizes == card.sizes
    # A picture is found where CoOp puts it, below the card's folder of pictures.
    first = dataset.images.key(0)
    below = folder if name == "stanford_cars" else folder / card.pictures[0]
    put(below, first)
    assert load_dataset(name, root=tmp_path).images.read(0) == (below / first).read_bytes()


def test_real_caltech_101_by_name() -> None:
    root = shared_data("caltech-101").parent
    by_name = load_dataset("caltech101", root=root)
    by_path = load_dataset(root / "caltech-101")
    assert by_name.fingerprint == by_path.fingerprint
    assert by_name.name == "caltech101"
    sizes = tuple(len(by_name.splits[split]) for split in ("train", "val", "test"))
    assert sizes == dataset_card("caltech101").sizes


def test_real_cifar_10n_by_name() -> None:
    root = shared_data("cifar-10n").parent
    dataset = load_dataset("cifar10n", root=root)
    card = dataset_card("cifar10n")
    assert set(dataset.columns) == set(card.noise_columns)
    assert tuple(len(dataset.splits[s]) for s in ("train", "test")) == (50000, 10000)
    train = dataset.splits["train"]
    wrong = (dataset.columns["worse_label"] != dataset.labels)[train].mean()
    assert wrong == pytest.approx(0.4021, abs=1e-4)  # the paper: 40.21 %


def test_real_few_shot_draw_is_a_list_of_relative_paths_that_does_not_change() -> None:
    """The draw is a pure function of seed and path: these are the pictures on every machine."""
    dataset = load_dataset("caltech101", root=shared_data("caltech-101").parent, classes="first:2")
    train = dataset.splits["train"]
    drawn = draw_shots(dataset.labels, train, 2, 1, dataset.keys(train), dataset.class_names)
    assert dataset.keys(drawn) == DRAWN
    full = load_dataset("caltech101", root=shared_data("caltech-101").parent)
    train = full.splits["train"]
    drawn = draw_shots(full.labels, train, 2, 1, full.keys(train), full.class_names)
    assert full.keys(drawn[full.labels[drawn] < 2]) == DRAWN
    assert np.bincount(full.labels[drawn]).tolist() == [2] * 100
