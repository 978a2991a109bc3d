"""Folders of the Hugging Face `datasets` library, written by pyarrow as the library writes them."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.made import ids, named_labels, picture, put, refusal

from dspt.data import load_dataset, open_image
from dspt.errors import UserError

NAMES = ("cat", "hot_dog", "fox")


def features(names: Sequence[str] = NAMES) -> dict[str, Any]:
    label = {"names": list(names), "_type": "ClassLabel"}
    return {"image": {"_type": "Image"}, "label": label}


def rows(shades: Sequence[int], names: Sequence[str] = NAMES, **columns: Any) -> pa.Table:
    """Pictures with these shades and labels in turn, with the library's metadata."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = [{"bytes": picture(shade), "path": None} for shade in shades]
    labels = [shade % len(names) for shade in shades]
    table = pa.table({"image": pa.array(cells, kind), "label": pa.array(labels, pa.int64())})
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        added = pa.array(values)
        table = (
            table.append_column(name, added)
            if position < 0
            else table.set_column(position, name, added)
        )
    about = {"huggingface": json.dumps({"info": {"features": features(names)}})}
    return table.replace_schema_metadata(about)


def save(folder: Path, *shards: pa.Table, names: Sequence[str] = NAMES) -> Path:
    """As `Dataset.save_to_disk`."""
    folder.mkdir(parents=True)
    files = [f"data-{i:05}-of-{len(shards):05}.arrow" for i in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        with pa.ipc.new_stream(str(folder / file), shard.schema) as stream:
            stream.write_table(shard, max_chunksize=2)
    state = {
        "_data_files": [{"filename": file} for file in files],
        "_fingerprint": "0",
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state))
    about = {name: {"_type": "Value"} for name in shards[0].column_names} | features(names)
    (folder / "dataset_info.json").write_text(json.dumps({"features": about}))
    return folder


def save_dict(folder: Path, **splits: pa.Table) -> Path:
    """As `DatasetDict.save_to_disk`."""
    for split, table in splits.items():
        save(folder / split, table)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def shards(folder: Path, split: str, *tables: pa.Table, note: str = "") -> None:
    """As a repository of the hub has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{split}-{i:05}-of-{len(tables):05}{note}.parquet")


def shade(dataset: Any, number: int) -> int:
    """Of the picture with this number."""
    pixel = open_image(dataset.images.read(number), "x").getpixel((0, 0))
    return pixel[0]


# --- save_to_disk ---


def test_a_saved_data_set(tmp_path: Path) -> None:
    dataset = load_dataset(save(tmp_path / "set", rows(range(9))), holdout=0)
    assert dataset.name == "set"
    assert dataset.class_names == ("cat", "hot dog", "fox")
    assert dataset.labels.tolist() == [0, 1, 2] * 3
    assert dataset.images.key(4) == "data-00000-of-00001.arrow#4"
    assert [shade(dataset, i) for i in (8, 0, 5)] == [8, 0, 5]
    with pytest.raises(IndexError):
        dataset.images.read(9)


def test_shards_follow_each_other_as_listed(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", rows(range(4)), rows(range(4, 9)))
    dataset = load_dataset(folder, holdout=0)
    assert [shade(dataset, i) for i in range(9)] == list(range(9))
    assert dataset.images.key(4) == "data-00001-of-00002.arrow#0"
    state = folder / "state.json"
    content = json.loads(state.read_text())
    content["_data_files"].reverse()
    state.write_text(json.dumps(content))
    assert shade(load_dataset(folder, holdout=0), 0) == 4


def test_a_saved_data_set_of_splits(tmp_path: Path) -> None:
    folder = save_dict(
        tmp_path / "set",
        test=rows(range(10, 13)),
        train=rows(range(6)),
        validation=rows([20, 21, 22]),
        extra=rows([30, 31, 32]),
    )
    dataset = load_dataset(folder)
    assert dataset.test_source == "split"
    assert {split: len(numbers) for split, numbers in dataset.splits.items()} == {
        "train": 6,
        "val": 3,
        "test": 3,
    }
    assert ids(dataset, "test")[0] == "test/data-00000-of-00001.arrow#0"
    assert [shade(dataset, int(i)) for i in dataset.splits["test"]] == [10, 11, 12]
    assert named_labels(dataset, "val")["validation/data-00000-of-00001.arrow#0"] == "fox"
    only = load_dataset(folder / "test", holdout=0)
    assert ids(only, "train")[0] == "data-00000-of-00001.arrow#0"


def test_pictures_stay_on_disk_until_asked_for(tmp_path: Path) -> None:
    big = [np.random.default_rng(i).bytes(1_000_000) for i in range(20)]
    table = pa.table({"image": big, "label": [i % 2 for i in range(20)]})
    folder = save(tmp_path / "set", table, names=("a", "b"))
    before = pa.total_allocated_bytes()
    images = load_dataset(folder, holdout=0).images
    unread = pickle.dumps(images)
    assert images.read(13) == big[13]
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert pickle.dumps(images) == unread
    assert len(unread) < 1000
    assert pickle.loads(unread).read(7) == big[7]


def test_dataset_info_names_the_classes_before_the_metadata_does(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", rows(range(6)), names=("kitten", "hot_dog", "fox"))
    assert load_dataset(folder).class_names == ("kitten", "hot dog", "fox")
    (folder / "dataset_info.json").write_text('{"features": null}')
    assert load_dataset(folder).class_names == ("cat", "hot dog", "fox")
    (folder / "dataset_info.json").unlink()
    assert load_dataset(folder).class_names == ("cat", "hot dog", "fox")


def test_columns_by_option_by_name_and_by_kind(tmp_path: Path) -> None:
    table = rows(range(6), tag=list("ababab"))
    assert load_dataset(save(tmp_path / "1", table), label_column="tag").class_names == ("a", "b")
    renamed = rows(range(6)).rename_columns(["picture_of_it", "animal"])
    about = {"animal": features()["label"]}
    metadata = {"huggingface": json.dumps({"info": {"features": about}})}
    folder = save(tmp_path / "2", renamed.replace_schema_metadata(metadata))
    (folder / "dataset_info.json").unlink()
    assert load_dataset(folder).class_names == ("cat", "hot dog", "fox")
    two = renamed.append_column("second", renamed.column(0))
    message = refusal(save(tmp_path / "3", two), label_column="animal")
    assert "no image column among picture_of_it, animal, second" in message
    assert "no column 'lable'" in refusal(tmp_path / "1", label_column="lable")


def test_labels_of_other_classes_are_no_further_column(tmp_path: Path) -> None:
    table = rows(range(6), coarse=[0, 1] * 3, human=[1, 1, 2] * 2)
    folder = save(tmp_path / "set", table)
    about = features() | {"coarse": {"names": ["animal", "food"], "_type": "ClassLabel"}}
    about["human"] = about["label"]
    (folder / "dataset_info.json").write_text(json.dumps({"features": about}))
    dataset = load_dataset(folder, holdout=0)
    assert {name: values.tolist() for name, values in dataset.columns.items()} == {
        "human": [1, 1, 2] * 2
    }


def test_a_path_without_bytes_is_relative_to_the_file(tmp_path: Path) -> None:
    cells = [
        {"bytes": None, "path": path} for path in ("1.png", "/1.png", "../1.png", "http://a/1")
    ]
    table = rows(range(4), image=cells)
    folder = save(tmp_path / "set", table)
    put(folder, "1.png")
    images = load_dataset(folder, holdout=0).images
    assert images.read(0) == picture(0)
    for row, reason in ((1, "absolute path"), (2, "leads out"), (3, "is a URL")):
        with pytest.raises(UserError, match=f"arrow#{row}, column 'image': .* {reason}"):
            images.read(row)


def test_urls_are_refused_when_loading(tmp_path: Path) -> None:
    table = rows(range(3), image=["1.png", "https://a.example/2.png", "3.png"])
    message = refusal(save(tmp_path / "set", table))
    assert "data-00000-of-00001.arrow, row 1, column 'image'" in message
    assert "is a URL; download the pictures" in message


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"_data_files": []}, '"_data_files" must list Arrow files'),
        ({"_data_files": None}, '"_data_files" must list Arrow files'),
        ({"_data_files": [{"filename": 3}]}, "entry 0: must name an .arrow file"),
        ({"_data_files": ["a.arrow"]}, "entry 0: must name an .arrow file"),
        ({"_data_files": [{"filename": "../x/a.arrow"}]}, "leads out of the data folder"),
        ({"_data_files": [{"filename": "/a.arrow"}]}, "absolute path"),
        (
            {"_data_files": [{"filename": "gone.arrow"}]},
            "gone.arrow is missing or no ordinary file",
        ),
        ({"_data_files": [{"filename": "data-00000-of-00001.arrow"}] * 2}, "is listed twice"),
        ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "call flatten_indices()"),
    ],
)
def test_a_bad_state_is_refused(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    folder = save(tmp_path / "set", rows(range(3)))
    edit(folder / "state.json", **fields)
    message = refusal(folder)
    assert reason in message
    assert str(folder) in message


@pytest.mark.parametrize(
    ("splits", "reason"),
    [
        (None, '"splits" must be a list of names'),
        ([1], '"splits" must be a list of names'),
        ([], "splits none; those to be used must be called train"),
        (["test"], "those to be used must be called train"),
        (["train", "eval"], "those to be used must be called train"),
        (["train", "../train"], "those to be used must be called train"),
        (["train", "val", "validation"], "both 'val' and 'validation'"),
        (["train", "test"], "test/state.json is missing or no ordinary file"),
    ],
)
def test_bad_splits_are_refused(tmp_path: Path, splits: object, reason: str) -> None:
    folder = save_dict(tmp_path / "set", train=rows(range(3)))
    edit(folder / "dataset_dict.json", splits=splits)
    assert reason in refusal(folder)


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ([], "does not describe column 'image'"),
        ({"image": {}, "labels": {}}, "does not describe column 'label'"),
        ({"image": {}, "label": {"_type": "ClassLabel"}}, "'label' has no list of class names"),
        (
            {"image": {}, "label": {"_type": "ClassLabel", "names": ["a", 1]}},
            "'label' has no list of class names",
        ),
    ],
)
def test_a_bad_description_of_the_columns_is_refused(
    tmp_path: Path, features: object, reason: str
) -> None:
    folder = save(tmp_path / "set", rows(range(3)))
    edit(folder / "dataset_info.json", features=features)
    message = refusal(folder)
    assert str(folder / "dataset_info.json") in message
    assert reason in message


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"a": 1, "a": 2}', "[" * 100_000])
def test_damaged_json_is_refused(tmp_path: Path, name: str, text: str) -> None:
    folder = save(tmp_path / "set", rows(range(3)))
    (folder / name).write_bytes(text.encode("latin-1"))
    assert f"{folder / name}: " in refusal(folder)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", rows(range(6)))
    (path,) = folder.glob("*.arrow")
    whole = path.read_bytes()
    with pa.ipc.open_stream(whole) as stream:
        stream.read_next_batch()
    for length in range(0, len(whole), 8):  # some of these end between two batches
        path.write_bytes(whole[:length])
        assert "save the data again" in refusal(folder)


def test_offsets_that_lead_out_of_the_file_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", rows(range(2)))
    (path,) = folder.glob("*.arrow")
    whole = path.read_bytes()
    ends = np.cumsum([0, len(picture(0)), len(picture(1))])
    offsets = ends.astype("<i4").tobytes()
    assert whole.count(offsets) == 1
    wrong = np.array([*ends[:2], 2**31 - 1], dtype="<i4").tobytes()
    path.write_bytes(whole.replace(offsets, wrong))
    images = load_dataset(folder, holdout=0).images
    with pytest.raises(UserError, match="column 'image': damaged"):
        images.read(0)


@pytest.mark.parametrize("labels", [[0, 1, 3], [0, -1, 1], [0, None, 1]])
def test_labels_outside_the_classes_are_refused(tmp_path: Path, labels: list[int | None]) -> None:
    message = refusal(save(tmp_path / "set", rows(range(3), label=labels)))
    assert "data-00000-of-00001.arrow, row" in message
    assert "column 'label'" in message


@pytest.mark.parametrize("names", [("cat", "cat"), ("cat", " "), ("cat",), ("a_b", "a b")])
def test_class_names_must_differ(tmp_path: Path, names: tuple[str, ...]) -> None:
    table = rows([0, 1, 2, 3], label=[0, 0, 0, 0])
    assert str(tmp_path) in refusal(save(tmp_path / "set", table, names=names))


# --- shards of the hub ---


@pytest.mark.parametrize("below", ["data", ""])
@pytest.mark.parametrize("note", ["", "-0a1b2c3d4e5f6789"])
def test_shards_of_the_hub(tmp_path: Path, below: str, note: str) -> None:
    shards(tmp_path / below, "train", rows(range(4)), rows(range(4, 9)), note=note)
    shards(tmp_path / below, "test", rows([9, 10, 11]), note=note)
    shards(tmp_path / below, "unlabelled", rows([50, 51, 52]), note=note)
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ("cat", "hot dog", "fox")
    assert {split: len(numbers) for split, numbers in dataset.splits.items()} == {
        "train": 9,
        "test": 3,
    }
    assert [shade(dataset, i) for i in range(12)] == list(range(12))
    prefix = f"{below}/" if below else ""
    assert dataset.images.key(4) == f"{prefix}train-00001-of-00002{note}.parquet#0"


def test_a_missing_shard_and_two_sets_of_shards_are_refused(tmp_path: Path) -> None:
    shards(tmp_path / "data", "train", rows(range(3)), rows(range(3, 6)))
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    assert "shard 0 of split 'train' is missing" in refusal(tmp_path)
    shards(tmp_path / "data", "train", rows(range(3)), rows(range(3, 6)), rows(range(6, 9)))
    assert "two sets of shards for split 'train'" in refusal(tmp_path)


@pytest.mark.parametrize("replace", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("x")])
@pytest.mark.parametrize("name", ["data/test-00000-of-00001.parquet", "train/state.json"])
def test_what_is_no_file_is_neither_skipped_nor_waited_for(
    tmp_path: Path, replace: Callable[[Path], None], name: str
) -> None:
    if name.startswith("data"):
        shards(tmp_path / "data", "train", rows(range(3)))
        shards(tmp_path / "data", "test", rows(range(3)))
    else:
        save_dict(tmp_path, train=rows(range(3)), test=rows(range(3)))
    (tmp_path / name).unlink()
    replace(tmp_path / name)
    assert f"{tmp_path / name} is missing or no ordinary file" in refusal(tmp_path)


def test_splits_with_other_class_names_are_refused(tmp_path: Path) -> None:
    shards(tmp_path / "data", "train", rows(range(3)))
    shards(tmp_path / "data", "test", rows(range(3), names=("fox", "cat", "hot_dog")))
    message = refusal(tmp_path)
    assert (
        "test-00000-of-00001.parquet, column 'label': its class names are not those of" in message
    )


def test_a_test_split_without_labels_is_refused(tmp_path: Path) -> None:
    shards(tmp_path / "data", "train", rows(range(3)))
    shards(tmp_path / "data", "test", rows(range(3), label=[-1, -1, -1]))
    assert "test-00000-of-00001.parquet, row 0, column 'label': -1 is not a label" in refusal(
        tmp_path
    )


# --- the library itself ---


def test_what_the_library_writes(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets")
    from PIL import Image

    about = library.Features(
        {"image": library.Image(), "label": library.ClassLabel(names=list(NAMES))}
    )
    shown = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(12)]
    made = library.Dataset.from_dict(
        {"image": shown, "label": [i % 3 for i in range(12)]}, features=about
    )
    made.shuffle(seed=3).save_to_disk(str(tmp_path / "one"), num_shards=3)
    halves = library.DatasetDict(
        {"train": made.select(range(8)), "test": made.select(range(8, 12))}
    )
    halves.save_to_disk(str(tmp_path / "dict"))
    for split, half in halves.items():
        half.to_parquet(str(tmp_path / f"hub/data/{split}-00000-of-00001.parquet"))
    for folder in ("one", "dict", "hub"):
        dataset = load_dataset(tmp_path / folder, holdout=0)
        assert dataset.class_names == ("cat", "hot dog", "fox")
        shades = [shade(dataset, i) for i in range(12)]
        assert sorted(shades) == list(range(12))
        assert dataset.labels.tolist() == [i % 3 for i in shades]
        if folder == "one":
            again = library.load_from_disk(str(tmp_path / folder))
            assert shades == [row["image"].getpixel((0, 0))[0] for row in again]
        else:
            assert [shade(dataset, int(i)) for i in dataset.splits["test"]] == [8, 9, 10, 11]
