"""torchvision at work on tiny archives of the real form; only the addresses are local."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from tests.data.made import picture

from dspt.data import load_dataset, open_image
from dspt.data.download import get_dataset
from dspt.data.registry import CARDS
from dspt.errors import UserError

JPEG = picture()


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def mat(**arrays: Any) -> bytes:
    scipy_io = pytest.importorskip("scipy.io")
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, arrays)
    return buffer.getvalue()


def flowers() -> dict[str, bytes]:
    return {
        "102flowers.tgz": tar({"jpg/image_00001.jpg": JPEG, "jpg/image_00002.jpg": JPEG}),
        "imagelabels.mat": mat(labels=[1, 2]),
        "setid.mat": mat(trnid=[1, 2], valid=[1], tstid=[2]),
    }


LISTS = {
    f"images_variant_{split}.txt": b"1 A\n2 B\n" for split in ("train", "val", "test", "trainval")
}

ARCHIVES: dict[str, Callable[[], dict[str, bytes]]] = {
    "caltech101": lambda: {
        "caltech-101.zip": zipped(
            {
                "caltech-101/101_ObjectCategories.tar.gz": tar(
                    {
                        "101_ObjectCategories/BACKGROUND_Google/image_0001.jpg": JPEG,
                        "101_ObjectCategories/Faces/image_0001.jpg": JPEG,
                    }
                ),
            }
        )
    },
    "oxford_pets": lambda: {
        "images.tar.gz": tar({"images/Abyssinian_1.jpg": JPEG}),
        "annotations.tar.gz": tar(
            {"annotations/trainval.txt": b"Abyssinian_1 1 1 1\n", "annotations/test.txt": b""}
        ),
    },
    "oxford_flowers": flowers,
    "food101": lambda: {
        "food-101.tar.gz": tar(
            {
                "food-101/images/apple_pie/1.jpg": JPEG,
                "food-101/meta/train.json": json.dumps({"apple_pie": ["apple_pie/1"]}).encode(),
            }
        )
    },
    "fgvc_aircraft": lambda: {
        "fgvc-aircraft-2013b.tar.gz": tar(
            {
                f"fgvc-aircraft-2013b/data/{name}": data
                for name, data in {
                    "variants.txt": b"A\nB\n",
                    "images/1.jpg": JPEG,
                    "images/2.jpg": JPEG,
                    **LISTS,
                }.items()
            }
        )
    },
    "sun397": lambda: {
        "SUN397.tar.gz": tar(
            {"SUN397/ClassName.txt": b"/a/abbey\n", "SUN397/a/abbey/sun_1.jpg": JPEG}
        )
    },
    "dtd": lambda: {
        "dtd-r1.0.1.tar.gz": tar(
            {
                "dtd/images/banded/banded_1.jpg": JPEG,
                "dtd/labels/train1.txt": b"banded/banded_1.jpg\n",
                "dtd/imdb/imdb.mat": b"x",
            }
        )
    },
    "eurosat": lambda: {"EuroSAT.zip": zipped({"2750/Forest/Forest_1.jpg": JPEG})},
}

# What must lie in the data set's folder afterwards, beside what torchvision adds.
FOUND = {
    "caltech101": "caltech-101/101_ObjectCategories/Faces/image_0001.jpg",
    "oxford_pets": "oxford_pets/images/Abyssinian_1.jpg",
    "oxford_flowers": "oxford_flowers/jpg/image_00001.jpg",
    "food101": "food-101/images/apple_pie/1.jpg",
    "fgvc_aircraft": "fgvc_aircraft/images/1.jpg",
    "sun397": "sun397/SUN397/a/abbey/sun_1.jpg",
    "dtd": "dtd/images/banded/banded_1.jpg",
    "eurosat": "eurosat/2750/Forest/Forest_1.jpg",
}


@pytest.fixture
def addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the internet: an address is answered by the file of its last part.

    Checksums of the real archives cannot hold for these; everything else is torchvision's own.
    """
    from torchvision import datasets
    from torchvision.datasets import utils

    folder = tmp_path / "internet"
    folder.mkdir()

    def retrieve(url: str, filename: str | Path, *more: object) -> None:
        there = folder / url.rsplit("/", 1)[-1]
        if not there.exists():
            raise URLError(f"no answer from {url}")
        shutil.copy(there, filename)

    monkeypatch.setattr(utils, "_urlretrieve", retrieve)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, *more, **options: url)
    monkeypatch.setattr(utils, "check_integrity", lambda path, md5=None: Path(path).is_file())
    sums = {key: (name, None) for key, (name, _) in datasets.Flowers102._file_dict.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", sums)
    return folder


def answer(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_every_downloadable_set_of_folders_is_tried_here() -> None:
    wanted = {card.name for card in CARDS if card.torchvision and card.reader != "table"}
    assert wanted == set(ARCHIVES) == set(FOUND)


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_pictures_end_up_where_the_readers_look(addresses: Path, tmp_path: Path, name: str) -> None:
    answer(addresses, ARCHIVES[name]())
    root = tmp_path / "root"
    checked = get_dataset(name, root)
    assert (root / FOUND[name]).read_bytes() == JPEG
    assert [path.name for path in root.iterdir()] == [FOUND[name].split("/")[0]]
    assert not checked.complete  # the tiny archive is no whole data set
    missing = [line for line in checked.problems if line.startswith("missing")]
    if name == "fgvc_aircraft":
        assert not missing
    else:  # the split file is CoOp's, and all that is missing
        assert len(missing) == 1
        assert "split_zhou_" in missing[0]
        assert "CoOp" in missing[0]


def test_what_is_there_is_neither_fetched_nor_touched_again(
    addresses: Path, tmp_path: Path
) -> None:
    answer(addresses, ARCHIVES["dtd"]())
    get_dataset("dtd", tmp_path / "root")
    mine = tmp_path / "root" / "dtd" / "images" / "mine.txt"
    mine.write_text("mine")
    (addresses / "dtd-r1.0.1.tar.gz").unlink()
    get_dataset("dtd", tmp_path / "root")
    assert mine.read_text() == "mine"


def test_every_address_that_was_tried_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchvision tells the reason in further lines."""
    from torchvision import datasets

    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/a/"])
    with pytest.raises(UserError, match="could not download it") as caught:
        get_dataset("fashion_mnist", tmp_path / "root")
    assert "http://127.0.0.1:9/a/" in str(caught.value)
    assert "refused" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_failed_download_leaves_nothing_and_is_one_line(addresses: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with pytest.raises(UserError, match="dtd: torchvision could not download it") as caught:
        get_dataset("dtd", root)
    assert "get it from https://www.robots.ox.ac.uk/~vgg/data/dtd/" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    (addresses / "dtd-r1.0.1.tar.gz").write_bytes(ARCHIVES["dtd"]()["dtd-r1.0.1.tar.gz"][:-40])
    with pytest.raises(UserError, match="could not download it"):
        get_dataset("dtd", root)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["stanford_cars", "ucf101", "imagenet", "food101n"])
def test_what_torchvision_cannot_download_is_refused_with_the_way_to_get_it(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UserError, match="torchvision cannot download it; get it from https://"):
        get_dataset(name, tmp_path / "root")
    assert not (tmp_path / "root").exists()


# --- CIFAR and Fashion-MNIST: tables ---


def cifar(monkeypatch: pytest.MonkeyPatch, addresses: Path, name: str, classes: int) -> np.ndarray:
    """A CIFAR archive with 2 pictures a class in training, 1 in testing; the training labels."""
    from torchvision import datasets

    kind = getattr(datasets, name)
    fine = "labels" if name == "CIFAR10" else "fine_labels"
    labels = np.repeat(np.arange(classes), 2)
    rng = np.random.default_rng(0)
    parts: dict[str, bytes] = {}

    def batch(of: np.ndarray) -> bytes:
        data = rng.integers(0, 256, (len(of), 3072), dtype=np.uint8)
        return pickle.dumps({"data": data, fine: of.tolist()})

    meta_key = kind.meta["key"]
    parts[kind.meta["filename"]] = pickle.dumps({meta_key: [f"class_{c}" for c in range(classes)]})
    pieces = np.array_split(labels, len(kind.train_list))
    for (file, _), piece in zip(kind.train_list, pieces, strict=True):
        parts[file] = batch(piece)
    for file, _ in kind.test_list:
        parts[file] = batch(np.arange(classes))
    archive = tar({f"{kind.base_folder}/{file}": data for file, data in parts.items()})
    (addresses / kind.filename).write_bytes(archive)

    def sums(files: list[list[str]]) -> list[list[str]]:
        return [[file, hashlib.md5(parts[file]).hexdigest()] for file, _ in files]

    meta = {**kind.meta, "md5": hashlib.md5(parts[kind.meta["filename"]]).hexdigest()}
    # CIFAR100 is a CIFAR10, so the attributes are set on each.
    monkeypatch.setattr(kind, "train_list", sums(kind.train_list))
    monkeypatch.setattr(kind, "test_list", sums(kind.test_list))
    monkeypatch.setattr(kind, "meta", meta)
    return labels


@pytest.mark.parametrize(
    ("name", "kind", "classes", "folder"),
    [("cifar10", "CIFAR10", 10, "cifar-10"), ("cifar100", "CIFAR100", 100, "cifar-100")],
)
def test_cifar_becomes_tables_of_png(
    addresses: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
    classes: int,
    folder: str,
) -> None:
    from torchvision import datasets

    labels = cifar(monkeypatch, addresses, kind, classes)
    root = tmp_path / "root"
    checked = get_dataset(name, root)
    assert sorted(path.name for path in (root / folder).iterdir()) == [
        "classes.txt",
        "test.parquet",
        "train.parquet",
    ]
    assert [path.name for path in root.iterdir()] == [folder]
    assert checked.problems == (
        f"train: {2 * classes} pictures are listed, {checked.card.title} has 50000",
        f"test: {classes} pictures are listed, {checked.card.title} has 10000",
    )
    dataset = load_dataset(name, root=root)
    assert dataset.class_names[:2] == ("class 0", "class 1")
    assert dataset.labels[dataset.splits["train"]].tolist() == labels.tolist()
    (tmp_path / "again").mkdir()
    theirs = getattr(datasets, kind)(root=str(tmp_path / "again"), train=True, download=True)
    for i in (0, 7, 2 * classes - 1):  # lossless, in torchvision's order
        ours = open_image(dataset.images.read(i), dataset.images.key(i))
        assert np.array_equal(np.asarray(ours), theirs.data[i])


@pytest.mark.parametrize(
    ("name", "kind", "classes", "columns"),
    [
        ("cifar10n", "CIFAR10", 10, 5),
        ("cifar100n", "CIFAR100", 100, 1),
    ],
)
def test_human_labels_become_columns(
    addresses: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
    classes: int,
    columns: int,
) -> None:
    labels = cifar(monkeypatch, addresses, kind, classes)
    root = tmp_path / "root"
    with pytest.raises(UserError, match=r"no human labels at .*_human.pt; download CIFAR-10"):
        get_dataset(name, root)
    assert not root.exists()
    card = next(card for card in CARDS if card.name == name)
    assert len(card.noise_columns) == columns
    human = {
        column: (labels + shift) % classes for shift, column in enumerate(card.noise_columns, 1)
    }
    torch.save({"clean_label": np.roll(labels, 1), **human}, tmp_path / "wrong.pt")
    with pytest.raises(UserError, match="clean labels differ from the pictures' labels"):
        get_dataset(name, root, labels=tmp_path / "wrong.pt")
    assert list(root.iterdir()) == []
    torch.save({"clean_label": labels, **human}, tmp_path / "human.pt")
    get_dataset(name, root, labels=tmp_path / "human.pt")
    dataset = load_dataset(name, root=root)
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert set(dataset.columns) == set(human)
    for column, values in human.items():
        assert dataset.columns[column][train].tolist() == values.tolist()
        assert set(dataset.columns[column][test]) == {-1}


def test_labels_are_only_for_sets_that_have_some(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CIFAR-10 has no file of human labels"):
        get_dataset("cifar10", tmp_path, labels=tmp_path / "x.pt")


def test_fashion_mnist_becomes_tables(addresses: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = {}
    for stem, n in (("train", 20), ("t10k", 10)):
        pixels[stem] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels[stem]), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            data = gzip.compress(head + array.tobytes())
            (addresses / f"{stem}-{kind}-ubyte.gz").write_bytes(data)
    root = tmp_path / "root"
    get_dataset("fashion_mnist", root)
    dataset = load_dataset("fashion_mnist", root=root)
    assert dataset.class_names[0] == "T-shirt/top"
    assert dataset.class_names[9] == "Ankle boot"
    assert dataset.labels.tolist() == [*range(10)] * 3
    grey = np.asarray(open_image(dataset.images.read(5), "x"))
    assert np.array_equal(grey[..., 0], pixels["train"][5])
    assert np.array_equal(grey[..., 1], grey[..., 2])
