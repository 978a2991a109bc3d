from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.made import ids, named_labels, picture, put, refusal
from tests.shared_data import shared_data

from dspt.data import load_dataset, open_image
from dspt.errors import UserError
from dspt.noise import NoiseSpec, apply_noise


def write(folder: Path, text: str, name: str = "train.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def write_parquet(
    folder: Path, name: str = "train.parquet", rows_a_group: int = 2, **columns: Any
) -> Path:
    path = folder / name
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group)
    return path


def refusal_of(folder: Path, text: str, name: str = "train.csv", **options: object) -> str:
    return refusal(write(folder, text, name), **options)


# --- layouts ---


def test_a_csv_of_paths_and_names(tmp_path: Path) -> None:
    put(tmp_path, "p/1.jpg", "p/2.jpg", "p/3.jpg")
    path = write(tmp_path, "image,label\np/1.jpg,tabby_cat\np/2.jpg,a dog\np/3.jpg,a dog\n")
    dataset = load_dataset(path, holdout=0)
    assert dataset.name == tmp_path.name
    assert dataset.class_names == ("a dog", "tabby cat")
    assert named_labels(dataset, "train") == {
        "p/1.jpg": "tabby cat",
        "p/2.jpg": "a dog",
        "p/3.jpg": "a dog",
    }
    assert dataset.images.read(2) == (tmp_path / "p/3.jpg").read_bytes()
    assert load_dataset(tmp_path, holdout=0).keys([0, 1, 2]) == dataset.keys([0, 1, 2])


def test_byte_order_mark_quotes_blank_lines_crlf_and_spaces(tmp_path: Path) -> None:
    text = '\ufeffimage , label\r\n"a, b.jpg", cat \r\n\r\n2.jpg,"dog"\r\n'
    dataset = load_dataset(write(tmp_path, text), holdout=0)
    assert named_labels(dataset, "train") == {"a, b.jpg": "cat", "2.jpg": "dog"}


def test_a_tsv(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "image\tlabel\n1.jpg\ta\n2.jpg\tb\n", "my.tsv"))
    assert dataset.name == "my"
    assert dataset.class_names == ("a", "b")


def test_words_that_other_readers_take_for_missing_are_class_names(tmp_path: Path) -> None:
    text = "image,label\n1.jpg,NA\n2.jpg,null\n3.jpg,nan\n4.jpg,None\n"
    dataset = load_dataset(write(tmp_path, text), holdout=0)
    assert dataset.class_names == ("NA", "None", "nan", "null")


@pytest.mark.parametrize(
    "image", ["image", "img", "path", "file", "filename", "file_name", "Image"]
)
@pytest.mark.parametrize("label", ["label", "class", "class_name", "category", "target", "y"])
def test_usual_column_names_are_found(tmp_path: Path, image: str, label: str) -> None:
    write(tmp_path, f"{label},other,{image}\na,x,1.jpg\nb,y,2.jpg\n")
    assert named_labels(load_dataset(tmp_path, holdout=0), "train") == {"1.jpg": "a", "2.jpg": "b"}


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "image,label,photo,kind,fold\nx,y,1.jpg,a,train\nx,y,2.jpg,b,Test\n")
    path.write_text(path.read_text() + "x,y,3.jpg,b,training\nx,y,4.jpg,a,valid\n")
    dataset = load_dataset(path, image_column="photo", label_column="kind", split_column="fold")
    assert named_labels(dataset, "train") == {"1.jpg": "a", "3.jpg": "b"}
    assert ids(dataset, "test") == ["2.jpg"]
    assert ids(dataset, "val") == ["4.jpg"]


def test_a_split_column_is_used(tmp_path: Path) -> None:
    text = "image,label,split\n1.jpg,a,train\n2.jpg,b,test\n3.jpg,b,train\n"
    dataset = load_dataset(write(tmp_path, text))
    assert dataset.test_source == "split"
    assert ids(dataset, "test") == ["2.jpg"]
    assert list(dataset.columns) == []


def test_one_file_a_split_of_different_kinds(tmp_path: Path) -> None:
    write_parquet(tmp_path, image=[picture(7), picture(8), picture(9)], label=["a", "b", "b"])
    write(tmp_path, "image,label\n1.jpg,b\n", "valid.csv")
    write(tmp_path, "image\tlabel\n2.jpg\ta\n", "test.tsv")
    put(tmp_path, "1.jpg", "2.jpg")
    dataset = load_dataset(tmp_path)
    assert ids(dataset, "train") == [f"train.parquet#{row}" for row in range(3)]
    assert named_labels(dataset, "val") == {"1.jpg": "b"}
    assert named_labels(dataset, "test") == {"2.jpg": "a"}
    assert dataset.images.read(1) == picture(8)
    assert dataset.images.read(4) == (tmp_path / "2.jpg").read_bytes()


# --- class names ---


def test_integers_are_named_by_classes_txt(tmp_path: Path) -> None:
    write(tmp_path, "cat\nhot_dog\nunused\n\n", "classes.txt")
    dataset = load_dataset(write(tmp_path, "image,label\n1.jpg,1\n2.jpg,0\n"), holdout=0)
    assert dataset.class_names == ("cat", "hot dog", "unused")
    assert dataset.labels.tolist() == [1, 0]


def test_names_keep_the_order_of_classes_txt(tmp_path: Path) -> None:
    write(tmp_path, "zebra\nhot_dog\n", "classes.txt")
    text = "image,label\n1.jpg,hot_dog\n2.jpg,zebra\n3.jpg,hot dog\n"
    assert load_dataset(write(tmp_path, text), holdout=0).labels.tolist() == [1, 0, 1]


def test_integers_without_names_are_named_by_their_digits(tmp_path: Path) -> None:
    text = "image,label\n1.jpg,10\n2.jpg,9\n3.jpg,10\n"
    dataset = load_dataset(write(tmp_path, text), holdout=0)
    assert dataset.class_names == ("9", "10")
    assert dataset.labels.tolist() == [1, 0, 1]


def test_digits_with_leading_zeros_are_names(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "image,label\n1.jpg,01\n2.jpg,1\n"), holdout=0)
    assert dataset.class_names == ("01", "1")


def test_integers_are_named_by_hugging_face_metadata(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "hot_dog"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": [picture(), picture(1)], "label": [1, 0]})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "train.parquet")
    dataset = load_dataset(tmp_path, holdout=0)
    assert dataset.class_names == ("cat", "hot dog")
    assert dataset.labels.tolist() == [1, 0]


@pytest.mark.parametrize("metadata", ["{", "[]", '{"info": null}', '{"info": {"features": {}}}'])
def test_odd_metadata_is_ignored(tmp_path: Path, metadata: str) -> None:
    table = pa.table({"image": [picture(), picture(1)], "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "train.parquet")
    assert load_dataset(tmp_path, holdout=0).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("column", "names", "labels"),
    [
        (pa.array([1, 0], pa.int8()), ("0", "1"), [1, 0]),
        (pa.array([1, 0], pa.uint64()), ("0", "1"), [1, 0]),
        (pa.array([1.0, 0.0]), ("0", "1"), [1, 0]),
        (pa.array([True, False]), ("False", "True"), [1, 0]),
        (pa.array(["b", "a"], pa.large_string()), ("a", "b"), [1, 0]),
        (pa.array(["b", "a"]).dictionary_encode(), ("a", "b"), [1, 0]),
    ],
)
def test_label_types(tmp_path: Path, column: pa.Array, names: tuple, labels: list[int]) -> None:
    write_parquet(tmp_path, image=[picture(), picture(1)], label=column)
    dataset = load_dataset(tmp_path, holdout=0)
    assert dataset.class_names == names
    assert dataset.labels.tolist() == labels


# --- further label columns ---


def test_columns_of_labels_are_kept_and_others_are_not(tmp_path: Path) -> None:
    write(
        tmp_path,
        "image,label,human,gaps,worker,note,empty\n"
        "1.jpg,a,b,,7,x,\n"
        "2.jpg,b,b,a,8,a,\n"
        "3.jpg,c,a,-1,9,b,\n",
    )
    write(tmp_path, "image,label\n4.jpg,a\n", "test.csv")
    columns = load_dataset(tmp_path).columns
    assert {name: labels.tolist() for name, labels in columns.items()} == {
        "human": [1, 1, 0, -1],
        "gaps": [-1, 0, -1, -1],
    }


def test_integer_columns_of_labels(tmp_path: Path) -> None:
    write(tmp_path, "cat\ndog\n", "classes.txt")
    write_parquet(
        tmp_path,
        image=[picture(), picture(1)],
        label=[0, 1],
        human=pa.array([1, None], pa.int8()),
        half=pa.array([0.5, 1.0]),
        far=[0, 2],
        vector=[[0, 1], [1, 0]],
    )
    columns = load_dataset(tmp_path, holdout=0).columns
    assert {name: labels.tolist() for name, labels in columns.items()} == {"human": [1, -1]}


# --- pictures in Parquet ---


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(79)])
def test_pictures_are_read_lazily_by_row_group(tmp_path: Path, kind: pa.DataType) -> None:
    content = [picture(shade).ljust(79, b"\0") for shade in range(7)]
    write_parquet(tmp_path, image=pa.array(content, kind), label=list("abababa"))
    images = load_dataset(tmp_path, holdout=0).images
    unread = pickle.dumps(images)
    assert [images.read(i) for i in (6, 0, 3, 2, 1, 5, 4)] == [
        content[i] for i in (6, 0, 3, 2, 1, 5, 4)
    ]
    assert pickle.dumps(images) == unread  # pictures in memory do not travel to worker processes
    assert pickle.loads(unread).read(5) == content[5]
    with pytest.raises(IndexError):
        images.read(7)


def test_the_pictures_are_not_read_when_loading(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, image=[picture(), picture(1)], label=["a", "b"])
    images = load_dataset(path, holdout=0).images
    path.unlink()
    with pytest.raises(UserError, match=r"train\.parquet: cannot read the pictures"):
        images.read(0)


def test_a_file_that_shrank_is_noticed(tmp_path: Path) -> None:
    content = [picture(shade) for shade in range(3)]
    path = write_parquet(tmp_path, rows_a_group=3, image=content, label=["a", "b", "b"])
    images = load_dataset(path, holdout=0).images
    write_parquet(tmp_path, image=[picture()], label=["a"])
    with pytest.raises(UserError, match="has changed since it was opened"):
        images.read(2)


def test_hugging_face_structs(tmp_path: Path) -> None:
    put(tmp_path, "x.jpg")
    (tmp_path / "link.jpg").symlink_to(__file__)
    cells = [
        {"bytes": picture(5), "path": "gone.jpg"},
        {"bytes": None, "path": "x.jpg"},
        {"bytes": None, "path": "../x.jpg"},
        {"bytes": None, "path": None},
        {"bytes": None, "path": "link.jpg"},
        None,
    ]
    write_parquet(tmp_path, image=cells, label=list("ababab"))
    dataset = load_dataset(tmp_path, holdout=0)
    assert dataset.images.key(1) == "train.parquet#1"
    assert dataset.images.read(0) == picture(5)
    assert dataset.images.read(1) == (tmp_path / "x.jpg").read_bytes()
    for row, reason in [
        (2, "train.parquet#2, column 'image': '../x.jpg' leads out"),
        (3, "train.parquet#3, column 'image': no picture"),
        (4, "picture link.jpg: a symbolic link leads out"),
        (5, "train.parquet#5, column 'image': no picture"),
    ]:
        with pytest.raises(UserError) as caught:
            dataset.images.read(row)
        assert reason in str(caught.value)


def test_paths_in_parquet(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "a/2.jpg")
    write_parquet(tmp_path, path=["a/1.jpg", "a\\2.jpg"], label=["a", "b"])
    dataset = load_dataset(tmp_path, holdout=0)
    assert ids(dataset, "train") == ["a/1.jpg", "a/2.jpg"]
    assert dataset.images.read(1) == (tmp_path / "a/2.jpg").read_bytes()


# --- refusals ---


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("image,label\n1.jpg,a\n2.jpg,\n", "line 3, column 'label'", "the label is empty"),
        ("image,label\n\n1.jpg,a\n,b\n", "line 4, column 'image'", "no path of a picture"),
        ("image,label\n1.jpg,a\n../2.jpg,b\n", "line 3, column 'image'", "leads out"),
        ("image,label\n1.jpg,a\n/2.jpg,b\n", "line 3, column 'image'", "absolute"),
        ("image,label\n1.jpg,a\nhttp://h/2.jpg,b\n", "line 3, column 'image'", "is a URL"),
        ("image,label\n1.jpg,a\ndata:image/png,b\n", "line 3, column 'image'", "is a URL"),
        ('image,label\n1.jpg,a\n"2\n.jpg",b\n', "line 3, column 'image'", "cannot be a file"),
        ("image,label\n1.jpg,a\n./1.jpg,b\n", "line 3, column 'image'", "listed twice"),
        ("image,label\n1.jpg,0\n2.jpg,-1\n", "line 3, column 'label'", "'-1' is not a label"),
        ("image,label,split\n1.jpg,a,train\n2.jpg,b,eval\n", "line 3, column 'split'", "no split"),
        ("image,label,split\n1.jpg,a,train\n2.jpg,b,\n", "line 3, column 'split'", "no split"),
        ("image,label,split\n1.jpg,a,test\n2.jpg,b,val\n", "", "no rows for training"),
        ("image,label\n1.jpg,a\n2.jpg,b,c\n", "line 3", "3 fields, the header has 2"),
        ('image,label\n1.jpg,a\n"2\n.jpg",b,c\n', "line 3", "3 fields"),
        ("image;label\n1.jpg;a\n", "", "no label column among image;label"),
        ("photo,label\n1.jpg,a\n", "", "no image column among photo, label"),
        ("image,label,label\n1.jpg,a,b\n", "", "two columns are called 'label'"),
        ("image,label,a\x85b\n1.jpg,a,b\n", "", "a\\x85b cannot name a column"),
        (f"image,label\n1.jpg,{'9' * 5000}\n2.jpg,a\n", "", "cannot name a class"),
        ("image,label\n", "", "no rows for training"),
        ("image,label\n1.jpg,a\n", "", "at least two classes"),
        ("", "", "is empty"),
        ('image,label\n1.jpg,"a\n', "after line 1", "mend the separators and quotes"),
        ("image,label\n1.jpg," + "a" * 200_000, "after line 1", "field larger than field limit"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path: Path, text: str, place: str, reason: str) -> None:
    message = refusal_of(tmp_path, text)
    assert str(tmp_path) in message
    assert place in message
    assert reason in message


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes("image,label\n1.jpg,caf\xe9\n".encode("latin-1"))
    assert "save it as UTF-8 text" in refusal(path)


@pytest.mark.parametrize(
    ("classes", "text", "reason"),
    [
        ("a\nb\n", "1.jpg,0\n2.jpg,2\n", "'2' is not a label; it must be an integer from 0 to 1"),
        ("a\nb\n", "1.jpg,0\n2.jpg,-1\n", "'-1' is not a label"),
        ("a\nb\n", "1.jpg,a\n2.jpg,c\n", "'c' is not a label; it must be one of 2 class names"),
        ("a\nb\n", "1.jpg,0\n2.jpg,b\n", "'0' is not a label"),
        ("a\n\nb\n", "1.jpg,0\n2.jpg,1\n", "classes.txt, line 2: empty"),
        ("1\n2\n", "1.jpg,0\n2.jpg,1\n", "label '1' may mean two classes"),
        ("a\na\n", "1.jpg,0\n2.jpg,1\n", "classes.txt, line 2: 'a' occurs twice"),
        ("a\n", "1.jpg,0\n2.jpg,0\n", "at least two classes"),
        ("", "1.jpg,0\n2.jpg,1\n", "is not a label"),
    ],
)
def test_labels_must_fit_classes_txt(tmp_path: Path, classes: str, text: str, reason: str) -> None:
    write(tmp_path, classes, "classes.txt")
    assert reason in refusal_of(tmp_path, f"image,label\n{text}")


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ([1, None], "row 1, column 'label': the label is empty"),
        ([1.0, float("nan")], "row 1, column 'label': the label is empty"),
        (["a", " "], "row 1, column 'label': the label is empty"),
        ([1.0, 0.5], "row 1, column 'label': 0.5 is not a label"),
        ([1.0, float("inf")], "row 1, column 'label': inf is not a label"),
        ([1, -2], "row 1, column 'label': -2 is not a label"),
        ([[1], [2]], "column 'label': its type cannot be a label column"),
        ([b"a", b"b"], "column 'label': its type cannot be a label column"),
    ],
)
def test_bad_labels_in_parquet_are_refused(tmp_path: Path, label: list, reason: str) -> None:
    write_parquet(tmp_path, image=[picture(), picture(1)], label=label)
    message = refusal(tmp_path)
    assert reason in message
    assert "train.parquet" in message


@pytest.mark.parametrize("image", [[1, 2], [[1], [2]], [{"path": "a"}, {"path": "b"}]])
def test_bad_image_columns_in_parquet_are_refused(tmp_path: Path, image: list) -> None:
    write_parquet(tmp_path, image=image, label=["a", "b"])
    assert "column 'image'" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" * 100])
def test_a_broken_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    assert "no readable Parquet file" in refusal(tmp_path)


def test_damaged_pictures_are_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, image=[picture(), picture(1)], label=["a", "b"])
    images = load_dataset(path, holdout=0).images
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="cannot read the pictures"):
        images.read(0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"label_column": "lable"}, "no column 'lable'; it has image, label; did you mean 'label'"),
        ({"image_column": "photo"}, "no column 'photo'"),
        ({"split_column": "fold"}, "no column 'fold'"),
    ],
)
def test_named_columns_must_exist(tmp_path: Path, options: dict, reason: str) -> None:
    assert reason in refusal_of(tmp_path, "image,label\n1.jpg,a\n2.jpg,b\n", **options)


def test_ambiguous_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "image,label\n1.jpg,a\n2.jpg,b\n")
    write(tmp_path, "image,label\n3.jpg,a\n", "test.csv")
    assert "the splits are already files" in refusal(tmp_path, split_column="label")
    write(tmp_path, "image\tlabel\n", "test.tsv")
    assert "both test.csv and test.tsv" in refusal(tmp_path)


@pytest.mark.parametrize("replace", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("x")])
@pytest.mark.parametrize("name", ["train.csv", "test.csv", "classes.txt", "split_zhou_X.json"])
def test_what_is_no_file_is_neither_skipped_nor_waited_for(
    tmp_path: Path, replace: Callable[[Path], None], name: str
) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    write(tmp_path, "image,label\na/1.jpg,0\nb/1.jpg,1\n")
    (tmp_path / name).unlink(missing_ok=True)
    replace(tmp_path / name)
    assert f"{tmp_path / name} is missing or no ordinary file" in refusal(tmp_path)


def test_a_picture_in_two_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "image,label\n1.jpg,a\n2.jpg,b\n")
    write(tmp_path, "image,label\n2.jpg,b\n", "test.csv")
    message = refusal(tmp_path)
    assert "test.csv, line 2, column 'image': 2.jpg is listed twice, first in " in message
    assert "train.csv, line 3" in message


# --- real data ---


def test_real_cifar_10n() -> None:
    dataset = load_dataset(shared_data("cifar-10n"))
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert (len(train), len(test)) == (50_000, 10_000)
    assert dataset.class_names[9] == "truck"
    assert set(dataset.columns) == {
        "aggre_label",
        "random_label1",
        "random_label2",
        "random_label3",
        "worse_label",
    }
    assert all((labels[test] == -1).all() for labels in dataset.columns.values())
    true = dataset.labels[train]
    columns = {name: labels[train] for name, labels in dataset.columns.items()}
    for name, percent in [("aggre_label", 9.0), ("worse_label", 40.2)]:
        spec = NoiseSpec.parse(f"column:{name}")
        given_labels = apply_noise(true, spec, 10, 1, dataset.keys(train), columns)
        assert round(100 * np.mean(given_labels != true), 1) == percent
    last = int(test[-1])
    assert dataset.images.key(last) == "test.parquet#9999"
    assert open_image(dataset.images.read(last), "last").size == (32, 32)


def test_digits_that_are_their_own_number_are_not_ambiguous(tmp_path: Path) -> None:
    write(tmp_path, "0\n1\n2\n", "classes.txt")
    dataset = load_dataset(write(tmp_path, "image,label\n1.jpg,1\n2.jpg,2\n"), holdout=0)
    assert [dataset.class_names[label] for label in dataset.labels] == ["1", "2"]
    write_parquet(tmp_path, image=[picture(), picture(1)], label=[0, 1])
    (tmp_path / "train.csv").unlink()
    write(tmp_path, "3\n0\n", "classes.txt")  # numbers are never taken for names
    assert load_dataset(tmp_path, holdout=0).labels.tolist() == [0, 1]
