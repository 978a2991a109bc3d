"""The one way to load a data set: look at what the user gave and pick the reader."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from dspt.data.class_folders import holds_class_folders, read_class_folders
from dspt.data.dataset import ImageDataset
from dspt.data.holdout import hold_out
from dspt.data.manifest import Columns, find_manifests, read_manifest
from dspt.data.split_file import find_split_files, read_split_file
from dspt.data.tables import SUFFIXES
from dspt.errors import UserError

DEMO = "demo"

ACCEPTED = (
    '"demo", a folder of class folders (with or without train/ and test/), a CSV, TSV or Parquet '
    "file that lists pictures and labels, a folder with train.csv, train.tsv or train.parquet, or "
    "a folder with CoOp's split_zhou_*.json"
)


def load_dataset(
    source: str | Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    holdout: float = 0.2,
) -> ImageDataset:
    """Load labels and splits; pictures are read one by one when asked for.

    Args:
        source: "demo" (packaged), a file or a folder. A folder is looked at in this order: a
            `split_zhou_*.json`, a table called train.*, class folders.
        image_column: column of the pictures, for tables only.
        label_column: column of the labels, for tables only.
        split_column: column of split names, for a single table only.
        holdout: share of every class that is held out of the training pictures for testing when
            the data has no test split; 0 for none. Always the same pictures.

    Raises:
        UserError: in one line, what is wrong with which file and how to mend it.
    """
    if not 0 <= holdout < 1:
        raise UserError(f"holdout must be at least 0 and below 1, got {holdout}")
    dataset = _read(source, Columns(image_column, label_column, split_column))
    if "test" in dataset.splits or holdout == 0:
        return dataset
    pool = dataset.splits["train"]
    train, test = hold_out(dataset.labels, pool, holdout, dataset.keys(pool))
    if not len(test):
        return dataset  # one picture a class: there is nothing to spare
    splits = {**dataset.splits, "train": train, "test": test}
    return replace(dataset, splits=splits, test_source="holdout")


def _read(source: str | Path, columns: Columns) -> ImageDataset:
    text = str(source)
    if text == DEMO and not isinstance(source, Path):
        return _read_demo(columns)
    try:
        path = Path(text).expanduser()
        if path.is_file():
            return _read_file(path, text, columns)
        if text.strip() and path.is_dir():  # Path("") would be the current folder
            return _read_folder(path, text, columns)
    except (OSError, RuntimeError) as error:  # RuntimeError: no such home folder
        raise UserError(f"{text!r} cannot be read: {error}; choose another path") from error
    raise UserError(f"no such file or folder: {text!r}; data can be {ACCEPTED}")


def _read_file(path: Path, source: str, columns: Columns) -> ImageDataset:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        plain = path.stem.lower() in ("train", "data", "metadata", "labels")
        name = path.resolve().parent.name if plain else path.stem
        return read_manifest({"train": path}, source, name or path.stem, columns)
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
    manifests = find_manifests(folder)
    if manifests:
        return read_manifest(manifests, source, folder.resolve().name, columns)
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
        return read_manifest({"train": path}, DEMO, DEMO, columns)
