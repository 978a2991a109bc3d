"""The data sets that are known by name: what they hold, how they lie on disk, where they come from.

Sources: folder and file names, class counts and splits of the eleven few-shot sets from CoOp
(Zhou et al. 2022, https://github.com/KaiyangZhou/CoOp: DATASETS.md and datasets/*.py), counts
checked against its split files where these were at hand; licences from the pages named in
``source``. "unstated" means that no licence was found there, not that there is none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dspt.data.split_file import DEFAULT_TEMPLATE, TEMPLATES
from dspt.errors import UserError, did_you_mean

VARIABLE = "DSPT_DATA"
UNSTATED = "unstated"
COOP_SPLITS = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
CIFAR_N = "https://github.com/UCSC-REAL/cifar-10-100n"

Reader = Literal["split file", "table", "imagenet", "aircraft", "food-101n"]


@dataclass(frozen=True)
class DatasetCard:
    """What is known about a data set.

    Args:
        name: what :func:`dspt.load_dataset` is given.
        title: as people write it.
        num_classes: C.
        sizes: pictures for (training, validation, testing); 0 for a split that it does not have.
        folders: names of its folder below the data root; the first is the usual one.
        index: files in the folder that list pictures and labels; without them nothing is read.
        pictures: subfolders with the pictures; none when the tables hold them.
        layout: where everything lies, for a person.
        reader: which reader understands the folder.
        source: page of the data set.
        licence: as its page says, or "unstated".
        citation: authors, title, year.
        template: the usual zero-shot prompt.
        noise_columns: label columns beside the true labels.
        torchvision: class in ``torchvision.datasets`` that can download the pictures, or None.
        index_source: where the index files come from when torchvision does not bring them.
    """

    name: str
    title: str
    num_classes: int
    sizes: tuple[int, int, int]
    folders: tuple[str, ...]
    index: tuple[str, ...]
    pictures: tuple[str, ...]
    layout: str
    reader: Reader
    source: str
    licence: str
    citation: str
    template: str = DEFAULT_TEMPLATE
    noise_columns: tuple[str, ...] = ()
    torchvision: str | None = None
    index_source: str | None = None


def _coop(
    name: str,
    title: str,
    num_classes: int,
    sizes: tuple[int, int, int],
    folder: str,
    split_name: str,
    pictures: tuple[str, ...],
    *,
    source: str,
    licence: str,
    citation: str,
    torchvision: str | None = None,
) -> DatasetCard:
    """A set with one of CoOp's split files."""
    split_file = f"split_zhou_{split_name}.json"
    return DatasetCard(
        name=name,
        title=title,
        num_classes=num_classes,
        sizes=sizes,
        folders=(folder,),
        index=(split_file,),
        pictures=pictures,
        layout=f"{folder}/: {split_file}, " + ", ".join(f"{sub}/" for sub in pictures),
        reader="split file",
        source=source,
        licence=licence,
        citation=citation,
        template=TEMPLATES.get(split_name, DEFAULT_TEMPLATE),
        torchvision=torchvision,
        index_source=COOP_SPLITS,
    )


def _tables(
    name: str,
    title: str,
    num_classes: int,
    sizes: tuple[int, int, int],
    folder: str,
    *,
    source: str,
    licence: str,
    citation: str,
    torchvision: str,
    noise_columns: tuple[str, ...] = (),
    index_source: str | None = None,
) -> DatasetCard:
    """A set of small pictures, kept as Parquet tables that hold the encoded pictures."""
    columns = ", ".join(("image", "label", *noise_columns))
    return DatasetCard(
        name=name,
        title=title,
        num_classes=num_classes,
        sizes=sizes,
        folders=(folder,),
        index=("train.parquet", "test.parquet", "classes.txt"),
        pictures=(),
        layout=f"{folder}/: train.parquet ({columns}), test.parquet (image, label), classes.txt",
        reader="table",
        source=source,
        licence=licence,
        citation=citation,
        noise_columns=noise_columns,
        torchvision=torchvision,
        index_source=index_source,
    )


_KRIZHEVSKY = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
_WEI = "Wei et al., Learning with Noisy Labels Revisited, ICLR 2022"
_CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"

CARDS: tuple[DatasetCard, ...] = (
    _coop(
        "caltech101",
        "Caltech101",
        100,
        (4128, 1649, 2465),
        "caltech-101",
        "Caltech101",
        ("101_ObjectCategories",),
        source="https://data.caltech.edu/records/mzrjq-6wc02",
        licence="CC BY 4.0",
        citation="Fei-Fei, Fergus, Perona, Learning Generative Visual Models from Few Training "
        "Examples, CVPR Workshop 2004",
        torchvision="Caltech101",
    ),
    _coop(
        "oxford_pets",
        "OxfordPets",
        37,
        (2944, 736, 3669),
        "oxford_pets",
        "OxfordPets",
        ("images",),
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        licence="CC BY-SA 4.0",
        citation="Parkhi, Vedaldi, Zisserman, Jawahar, Cats and Dogs, CVPR 2012",
        torchvision="OxfordIIITPet",
    ),
    _coop(
        "stanford_cars",
        "StanfordCars",
        196,
        (6509, 1635, 8041),
        "stanford_cars",
        "StanfordCars",
        ("cars_train", "cars_test"),
        source="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        licence=UNSTATED,
        citation="Krause, Stark, Deng, Fei-Fei, 3D Object Representations for Fine-Grained "
        "Categorization, ICCV Workshop 2013",
    ),
    _coop(
        "oxford_flowers",
        "Flowers102",
        102,
        (4093, 1633, 2463),
        "oxford_flowers",
        "OxfordFlowers",
        ("jpg",),
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        licence=UNSTATED,
        citation="Nilsback, Zisserman, Automated Flower Classification over a Large Number of "
        "Classes, ICVGIP 2008",
        torchvision="Flowers102",
    ),
    _coop(
        "food101",
        "Food101",
        101,
        (50500, 20200, 30300),
        "food-101",
        "Food101",
        ("images",),
        source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        licence="scientific fair use; the pictures belong to their owners",
        citation="Bossard, Guillaumin, Van Gool, Food-101, ECCV 2014",
        torchvision="Food101",
    ),
    DatasetCard(
        name="fgvc_aircraft",
        title="FGVCAircraft",
        num_classes=100,
        sizes=(3334, 3333, 3333),
        folders=("fgvc_aircraft",),
        index=(
            "variants.txt",
            "images_variant_train.txt",
            "images_variant_val.txt",
            "images_variant_test.txt",
        ),
        pictures=("images",),
        layout="fgvc_aircraft/ (the archive's data/ renamed): variants.txt, "
        "images_variant_{train,val,test}.txt, images/",
        reader="aircraft",
        source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        licence="non-commercial research only",
        citation="Maji, Kannala, Rahtu, Blaschko, Vedaldi, Fine-Grained Visual Classification of "
        "Aircraft, 2013",
        template=TEMPLATES["FGVCAircraft"],
        torchvision="FGVCAircraft",
    ),
    _coop(
        "sun397",
        "SUN397",
        397,
        (15880, 3970, 19850),
        "sun397",
        "SUN397",
        ("SUN397",),
        source="https://vision.princeton.edu/projects/2010/SUN/",
        licence=UNSTATED,
        citation="Xiao, Hays, Ehinger, Oliva, Torralba, SUN Database, CVPR 2010",
        torchvision="SUN397",
    ),
    _coop(
        "dtd",
        "DTD",
        47,
        (2820, 1128, 1692),
        "dtd",
        "DescribableTextures",
        ("images",),
        source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        licence="for research purposes",
        citation="Cimpoi, Maji, Kokkinos, Mohamed, Vedaldi, Describing Textures in the Wild, "
        "CVPR 2014",
        torchvision="DTD",
    ),
    _coop(
        "eurosat",
        "EuroSAT",
        10,
        (13500, 5400, 8100),
        "eurosat",
        "EuroSAT",
        ("2750",),
        source="https://github.com/phelber/EuroSAT",
        licence="MIT",
        citation="Helber, Bischke, Dengel, Borth, EuroSAT, JSTARS 2019",
        torchvision="EuroSAT",
    ),
    _coop(
        "ucf101",
        "UCF101",
        101,
        (7639, 1898, 3783),
        "ucf101",
        "UCF101",
        ("UCF-101-midframes",),
        source="https://www.crcv.ucf.edu/data/UCF101.php",
        licence=UNSTATED,
        citation="Soomro, Zamir, Shah, UCF101, 2012",
    ),
    DatasetCard(
        name="imagenet",
        title="ImageNet",
        num_classes=1000,
        sizes=(1281167, 0, 50000),
        folders=("imagenet",),
        index=("classnames.txt",),
        pictures=("images/train", "images/val"),
        layout="imagenet/: classnames.txt, images/train/<wnid>/, images/val/<wnid>/ (val is used "
        "for testing)",
        reader="imagenet",
        source="https://image-net.org/",
        licence="non-commercial research and education, after registration",
        citation="Deng et al., ImageNet, CVPR 2009; Russakovsky et al., ILSVRC, IJCV 2015",
        index_source=COOP_SPLITS,
    ),
    _tables(
        "cifar10",
        "CIFAR-10",
        10,
        (50000, 0, 10000),
        "cifar-10",
        source=_CIFAR_PAGE,
        licence=UNSTATED,
        citation=_KRIZHEVSKY,
        torchvision="CIFAR10",
    ),
    _tables(
        "cifar100",
        "CIFAR-100",
        100,
        (50000, 0, 10000),
        "cifar-100",
        source=_CIFAR_PAGE,
        licence=UNSTATED,
        citation=_KRIZHEVSKY,
        torchvision="CIFAR100",
    ),
    _tables(
        "cifar10n",
        "CIFAR-10N",
        10,
        (50000, 0, 10000),
        "cifar-10n",
        source=CIFAR_N,
        licence="human labels CC BY-NC 4.0; pictures: unstated",
        citation=_WEI,
        torchvision="CIFAR10",
        noise_columns=(
            "aggre_label",
            "random_label1",
            "random_label2",
            "random_label3",
            "worse_label",
        ),
        index_source=f"{CIFAR_N}/tree/main/data",
    ),
    _tables(
        "cifar100n",
        "CIFAR-100N",
        100,
        (50000, 0, 10000),
        "cifar-100n",
        source=CIFAR_N,
        licence="human labels CC BY-NC 4.0; pictures: unstated",
        citation=_WEI,
        torchvision="CIFAR100",
        noise_columns=("noisy_label",),
        index_source=f"{CIFAR_N}/tree/main/data",
    ),
    DatasetCard(
        name="food101n",
        title="Food-101N",
        num_classes=101,
        sizes=(310009, 0, 25250),
        folders=("food-101n", "Food-101N_release"),
        index=("meta/classes.txt", "meta/imagelist.tsv"),
        pictures=("images",),
        layout="food-101n/ or Food-101N_release/: meta/classes.txt, meta/imagelist.tsv, images/; "
        "and beside it food-101/: meta/test.txt, images/ (Food-101's test split is used for "
        "testing)",
        reader="food-101n",
        source="https://kuanghuei.github.io/Food-101N/",
        licence=UNSTATED,
        citation="Lee, He, Zhang, Yang, CleanNet, CVPR 2018",
        template=TEMPLATES["Food101"],
    ),
    _tables(
        "fashion_mnist",
        "Fashion-MNIST",
        10,
        (60000, 0, 10000),
        "fashion-mnist",
        source="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017",
        torchvision="FashionMNIST",
    ),
)

_BY_KEY = {key: card for card in CARDS for key in (card.name, *card.folders)}


def find_card(name: str) -> DatasetCard | None:
    """The card of a data set by its name or its usual folder name, in any case; else None."""
    return _BY_KEY.get(name) or {key.lower(): c for key, c in _BY_KEY.items()}.get(name.lower())


def dataset_card(name: str) -> DatasetCard:
    """The card of a data set.

    Raises:
        UserError: when no data set is called so, with the nearest name.
    """
    card = find_card(name)
    if card is None:
        known = [card.name for card in CARDS]
        raise UserError(
            f"no data set is called {name!r}; known: {', '.join(known)}{did_you_mean(name, known)}"
        )
    return card


def data_root(root: str | Path | None) -> Path | None:
    """The folder that holds the data sets: ``root``, else $DSPT_DATA, else None.

    Raises:
        UserError: when it is given but is no folder.
    """
    given = root if root is not None else os.environ.get(VARIABLE)
    if not given:
        return None
    try:
        path = Path(given).expanduser()
        if path.is_dir():
            return path
    except (OSError, RuntimeError, ValueError):  # no such home folder, a NUL byte, a long name
        pass
    option = "root" if root is not None else f"${VARIABLE}"
    raise UserError(f"data root {str(given)!r} (from {option}) is no folder; create or correct it")


def find_root(name: str, root: str | Path) -> Path | None:
    """The folder of a data set below a data root, or None.

    The root may also be the data set's own folder, if it is called as usual.
    """
    card = dataset_card(name)
    root = Path(root).expanduser()
    for folder in card.folders:
        if (root / folder).is_dir():
            return root / folder
    return root if root.is_dir() and root.resolve().name in card.folders else None
