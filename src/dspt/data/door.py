"""The one way to load a data set: look at what the user gave and pick the reader."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from dspt.data.aircraft import is_aircraft, read_aircraft
from dspt.data.class_folders import holds_class_folders, read_class_folders
from dspt.data.dataset import ImageDataset
from dspt.data.food101n import is_food101n, read_food101n
from dspt.data.holdout import hold_out
from dspt.data.hugging_face import find_saved_datasets, find_shards
from dspt.data.imagenet import is_imagenet, read_imagenet
from dspt.data.manifest import Columns, find_manifests, read_manifest
from dspt.data.paths import is_clean, printable
from dspt.data.registry import (
    CARDS,
    VARIABLE,
    DatasetCard,
    data_root,
    find_card,
    find_root,
)
from dspt.data.split_file import find_split_files, read_split_file
from dspt.data.subsets import choose_classes
from dspt.data.tables import SUFFIXES
from dspt.errors import UserError, did_you_mean

DEMO = "demo"

ACCEPTED = (
    '"demo", a folder of class folders (with or without train/ and test/), a CSV, TSV or Parquet '
    "file that lists pictures and labels, a folder with train.csv, train.tsv or train.parquet, "
    "a folder that Hugging Face's save_to_disk wrote or with data/train-*.parquet, "
    "a folder with CoOp's split_zhou_*.json, or a name that `dspt data list` shows"
)


def load_dataset(
    source: str | Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    holdout: float = 0.2,
    root: str | Path | None = None,
    classes: str = "all",
) -> ImageDataset:
    """Load labels and splits; pictures are read one by one when asked for.

    Args:
        source: "demo" (packaged), a file or a folder, or the name of a data set in the registry.
            What exists as a path is never taken for a name. A folder is looked at in this order: a
            `split_zhou_*.json`, a table called train.*, Hugging Face's layouts, those of ImageNet,
            FGVC-Aircraft and Food-101N, class folders.
        image_column: column of the pictures, for tables only.
        label_column: column of the labels, for tables only.
        split_column: column of split names, for a single table only.
        holdout: share of every class that is held out of the training pictures for testing when
            the data has no test split; 0 for none. Always the same pictures.
        root: folder that holds the data sets that are given by name (not used for a path);
            None for the environment variable DSPT_DATA.
        classes: "all", "base", "new" or "first:N"; see :func:`dspt.data.choose_classes`.

    Raises:
        UserError: in one line, what is wrong with which file and how to mend it.
    """
    if not 0 <= holdout < 1:
        raise UserError(f"holdout must be at least 0 and below 1, got {holdout}")
    columns = Columns(image_column, label_column, split_column)
    dataset = choose_classes(_read(source, columns, root), classes)
    if "test" in dataset.splits or holdout == 0:
        return dataset
    pool = dataset.splits["train"]
    train, test = hold_out(dataset.labels, pool, holdout, dataset.keys(pool))
    if not len(test):
        return dataset  # one picture a class: there is nothing to spare
    splits = {**dataset.splits, "train": train, "test": test}
    return replace(dataset, splits=splits, test_source="holdout")


def _read(source: str | Path, columns: Columns, root: str | Path | None) -> ImageDataset:
    text = str(source)
    if text == DEMO and not isinstance(source, Path):
        return _read_demo(columns)
    try:
        path = Path(text).expanduser()
        if not is_clean(text) and path.exists():  # reports and settings could not name it
            raise UserError(f"{text!a}: this path is not one line of UTF-8; rename or link it")
        if path.is_file():
            return _read_file(path, text, columns)
        if text.strip() and path.is_dir():  # Path("") would be the current folder
            return _read_folder(path, text, columns)
    except (OSError, RuntimeError) as error:  # RuntimeError: no such home folder
        raise UserError(f"{text!r} cannot be read: {error}; choose another path") from error
    card = find_card(text) if isinstance(source, str) else None
    if card is not None:
        return _read_named(card, text, columns, root)
    hint = did_you_mean(text, [card.name for card in CARDS], cutoff=0.75)
    raise UserError(f"no such file or folder: {text!r}; data can be {ACCEPTED}{hint}")


def _read_named(
    card: DatasetCard, source: str, columns: Columns, root: str | Path | None
) -> ImageDataset:
    """The data set of a card below the data root."""
    place = data_root(root)
    if place is None:
        raise UserError(
            f"{source}: where is it? give the data root (root, --root) or set {VARIABLE}; "
            f"`dspt data check {card.name} ROOT` says what belongs there"
        )
    folder = find_root(card.name, place)
    if folder is None:
        raise UserError(
            f"{source}: no folder {' or '.join(card.folders)} in {place}; "
            f"`dspt data check {card.name} {place}` says what is missing"
        )
    return read_card(card, folder, source, columns)


def read_card(
    card: DatasetCard, folder: Path, source: str, columns: Columns | None = None
) -> ImageDataset:
    """Read the folder of a registered data set, and nothing else that may lie there.

    Raises:
        UserError: a missing index file, or data that cannot be this data set.
    """
    columns = columns or Columns()
    absent = [name for name in card.index if not (folder / name).is_file()]
    if absent:
        raise UserError(
            f"{source}: {', '.join(absent)} missing in {folder}; "
            f"`dspt data check {card.name} {folder.parent}` says more"
        )
    if card.reader != "table":
        _refuse_columns(columns, source, f"the layout of {card.title}")
    if card.reader == "split file":
        dataset = read_split_file(folder / card.index[0], source)
    elif card.reader == "imagenet":
        dataset = read_imagenet(folder, source)
    elif card.reader == "aircraft":
        dataset = read_aircraft(folder, source)
    elif card.reader == "food-101n":
        dataset = read_food101n(folder, source)
    else:
        tables = {"train": [folder / "train.parquet"], "test": [folder / "test.parquet"]}
        dataset = read_manifest(tables, folder, source, card.name, columns)
    found = len(dataset.class_names)
    if found != card.num_classes:
        raise UserError(
            f"{folder}: {found} classes, but {card.title} has {card.num_classes}; this is other "
            "data, give its path instead of the name"
        )
    without = [name for name in card.noise_columns if name not in dataset.columns]
    if without and columns == Columns():
        raise UserError(
            f"{folder}: no label column {', '.join(without)}, so this is not {card.title}; move "
            f"train.parquet away and run `dspt data get {card.name}`"
        )
    return replace(dataset, name=card.name, template=card.template)


def _read_file(path: Path, source: str, columns: Columns) -> ImageDataset:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        plain = path.stem.lower() in ("train", "data", "metadata", "labels")
        name = printable(path.resolve().parent.name) if plain else path.stem
        return read_manifest({"train": [path]}, path.parent, source, name or path.stem, columns)
    if suffix == ".json":
        _refuse_columns(columns, source, "a split file")
        return read_split_file(path, source)
    raise UserError(
        f"{source}: no data set in a {suffix or 'suffixless'} file; data can be {ACCEPTED}"
    )


def _read_folder(folder: Path, source: str, columns: Columns) -> ImageDataset:
    split_files = find_split_files(folder)
    if len(split_files) > 1:
        names = ", ".join(path.name for path in split_files)
        raise UserError(f"{source}: several split files ({names}); give the path of one of them")
    if split_files:
        _refuse_columns(columns, source, "a split file")
        return read_split_file(split_files[0], source)
    tables = find_manifests(folder) or find_saved_datasets(folder) or find_shards(folder)
    if tables:
        return read_manifest(tables, folder, source, printable(folder.resolve().name), columns)
    for looks_like, read, what in (
        (is_imagenet, read_imagenet, "ImageNet's layout"),
        (is_aircraft, read_aircraft, "FGVC-Aircraft's layout"),
        (is_food101n, read_food101n, "Food-101N's layout"),
    ):
        if looks_like(folder):
            _refuse_columns(columns, source, what)
            return read(folder, source)
    if holds_class_folders(folder):
        _refuse_columns(columns, source, "class folders")
        return read_class_folders(folder, source)
    raise UserError(f"{source}: no data set in this folder; data can be {ACCEPTED}")


def _refuse_columns(columns: Columns, source: str, what: str) -> None:
    """Options that would be ignored are refused instead."""
    for option, value in vars(columns).items():
        if value is not None:
            raise UserError(
                f"{source}: {option}_column {value!r} is for tables; this is {what}, leave it out"
            )


def _read_demo(columns: Columns) -> ImageDataset:
    # Packages are installed unpacked, so the file stays where as_file() finds it.
    with as_file(files("dspt") / "assets" / "demo" / "demo.parquet") as path:
        if not path.is_file():
            raise UserError("the demo data is missing from this installation; install dspt again")
        return read_manifest({"train": [path]}, path.parent, DEMO, DEMO, columns)
