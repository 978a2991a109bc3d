"""Corrected manifests load again, hold the same pictures and never touch the original."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.audit.ground import CLASSES, WRONG, N, rows_of
from tests.tiny import draw, encoded, files_of

from dspt.audit.corrected import CorrectedManifest
from dspt.audit.job import data_settings
from dspt.audit.record import AuditReport, Finding
from dspt.data import ImageDataset, load_dataset
from dspt.errors import UserError


class _Record:
    def __init__(self, names: tuple[str, ...]) -> None:
        self.class_names = list(names)
        self.informed = True


def report_on(data: ImageDataset, proposals: dict[str, tuple[str, float]]) -> AuditReport:
    """An audit that proposes a label, with a confidence, for some pictures; others it believes."""
    findings = []
    for key, label in zip(data.keys(range(len(data.images))), data.labels, strict=True):
        name, confidence = proposals.get(key, (data.class_names[label], 0.9))
        findings.append(
            Finding(key, "train", int(label), data.class_names.index(name), confidence, {})
        )
    return AuditReport(_Record(data.class_names), findings, Path())  # type: ignore[arg-type]


def corrected(
    source: Path | str,
    target: Path,
    proposals: dict[str, tuple[str, float]],
    confidence: float = 0.7,
    **columns: Any,
) -> tuple[ImageDataset, ImageDataset, int]:
    """The data before and after, loaded from the new file; and how many labels changed."""
    config = data_settings(str(source), **columns).config
    manifest = CorrectedManifest(config, target)
    before = load_dataset(config.data, holdout=0, **columns)
    changed = manifest.write(report_on(before, proposals), confidence)
    return before, load_dataset(target, holdout=0, **columns), changed


def labels_by_picture(data: ImageDataset) -> dict[bytes, str]:
    labels = [data.class_names[label] for label in data.labels]
    return dict(zip(map(data.images.read, range(len(labels))), labels, strict=True))


def check_same_but(before: ImageDataset, after: ImageDataset, changes: dict[str, str]) -> None:
    """The same pictures, class names and splits, and only these labels are new."""
    wanted = labels_by_picture(before)
    for key, name in changes.items():
        place = before.keys(range(len(before.images))).index(key)
        wanted[before.images.read(place)] = name
    assert labels_by_picture(after) == wanted
    assert set(after.class_names) == set(before.class_names)
    assert {s: len(rows) for s, rows in after.splits.items()} == {
        s: len(rows) for s, rows in before.splits.items()
    }


PROPOSALS = {key: (name, 0.8) for key, name in WRONG.items()}


@pytest.mark.parametrize("name", ["colours.csv", "colours.tsv", "colours.parquet"])
def test_class_folders_become_a_manifest(planted: Path, tmp_path: Path, name: str) -> None:
    data = Path(shutil.copytree(planted, tmp_path / "colours"))
    original = files_of(data)
    unsure = {"red/001.png": ("blue", 0.69)}
    before, after, changed = corrected(data, tmp_path / name, PROPOSALS | unsure)
    assert changed == 3
    check_same_but(before, after, WRONG)
    assert files_of(data) == original
    if name.endswith(".csv"):
        rows = {row["image"]: row for row in rows_of(tmp_path / name)}
        row = rows["colours/red/003.png"]
        assert row == {
            "image": "colours/red/003.png",
            "label": "green",
            "split": "train",
            "given_label": "red",
            "confidence": "0.8",
            "changed": "True",
        }
        assert rows["colours/red/001.png"]["changed"] == "False"
        assert rows["colours/red/001.png"]["label"] == "red"


def test_a_manifest_may_lie_among_the_class_folders(planted: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(planted, tmp_path / "colours"))
    before, after, _ = corrected(data, data / "corrected.csv", PROPOSALS)
    check_same_but(before, after, WRONG)
    assert load_dataset(data).class_names == CLASSES  # which are read as before


def write_list(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("red", "blue"):
        for number in range(2):
            (folder / f"{name}{number}.png").write_bytes(encoded(draw(name, number)))
    (folder / "list.csv").write_text(text, encoding="utf-8", newline="")
    return folder / "list.csv"


LIST = (
    '\ufeffphoto, tag ,split,remark,empty\r\n" red0.png",hot_dog,train,"a ""b"", c",\r\n'
    'red1.png,hot_dog,test,"two\rlines",\r\n\r\nblue0.png,blue,train,=1+1,\r\n'
    "blue1.png,blue,train,ü,\r\n"
)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_keeps_its_rows_and_columns(tmp_path: Path, suffix: str) -> None:
    source = write_list(tmp_path, LIST)
    target = tmp_path / f"corrected{suffix}"
    before, after, changed = corrected(
        source,
        target,
        {"blue1.png": ("hot dog", 0.7)},
        label_column="tag",
        image_column="photo",
    )
    assert changed == 1
    check_same_but(before, after, {"blue1.png": "hot dog"})
    assert source.read_bytes() == LIST.encode()
    if suffix == ".parquet":
        rows = pq.read_table(target).to_pylist()
    else:
        rows = rows_of(target, "\t" if suffix == ".tsv" else ",")
    assert list(rows[0])[:5] == ["photo", "tag", "split", "remark", "empty"]
    assert [row["remark"] for row in rows] == ['a "b", c', "two\rlines", "=1+1", "ü"]
    assert [row["tag"] for row in rows] == ["hot_dog", "hot_dog", "blue", "hot_dog"]
    assert [row["given_label"] for row in rows] == ["hot_dog", "hot_dog", "blue", "blue"]
    assert [str(row["changed"]) for row in rows] == ["False"] * 3 + ["True"]
    assert [str(row["confidence"]) for row in rows] == ["0.9", "0.9", "0.9", "0.7"]


def parquet_of(pictures: dict[str, bytes], labels: pa.Array, **more: Any) -> pa.Table:
    structs = [{"bytes": data, "path": name} for name, data in pictures.items()]
    return pa.table({"image": structs, "label": labels, **more})


PICTURES = {f"{c}{i}.png": encoded(draw(c, i)) for c in ("red", "blue", "green") for i in range(3)}


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0] * 3 + [1] * 3 + [2] * 3, pa.int64()),
        pa.array([0.0] * 3 + [1.0] * 3 + [2.0] * 3),
        pa.array(["0"] * 3 + ["1"] * 3 + ["2"] * 3).dictionary_encode(),
        pa.array(["00"] * 3 + ["x"] * 3 + ["7"] * 3, pa.large_string()),
    ],
    ids=["integers", "floats", "dictionary", "text"],
)
def test_bytes_in_parquet_are_kept(tmp_path: Path, labels: pa.Array) -> None:
    source, target = tmp_path / "t.parquet", tmp_path / "corrected.parquet"
    table = parquet_of(PICTURES, labels, remark=[None, *range(8)])
    pq.write_table(table, source, row_group_size=4)
    original = source.read_bytes()
    names = load_dataset(source).class_names
    proposals = {"t.parquet#0": (names[1], 0.99), "t.parquet#5": (names[0], 1.0)}
    before, after, changed = corrected(source, target, proposals)
    assert changed == 2
    check_same_but(before, after, {key: name for key, (name, _) in proposals.items()})
    assert source.read_bytes() == original
    written = pq.read_table(target)
    assert written.drop_columns(["label", "given_label", "confidence", "changed"]).equals(
        table.drop_columns(["label"])
    )
    assert [row for row, new in enumerate(written["changed"].to_pylist()) if new] == [0, 5]
    assert pq.ParquetFile(target).num_row_groups == 3
    assert (after.columns["given_label"] == before.labels).all()


def test_names_that_hugging_face_recorded_stay(tmp_path: Path) -> None:
    """A class that no row has can be proposed too; it is known from the recorded names."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["blue", "red", "unseen"], "_type": "ClassLabel"},
    }
    recorded = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = parquet_of(PICTURES, pa.array([1] * 3 + [0] * 6)).replace_schema_metadata(recorded)
    source, target = tmp_path / "t.parquet", tmp_path / "corrected.parquet"
    pq.write_table(table, source)
    before, after, _ = corrected(source, target, {"t.parquet#8": ("unseen", 0.9)})
    assert after.class_names == before.class_names == ("blue", "red", "unseen")
    check_same_but(before, after, {"t.parquet#8": "unseen"})
    known = json.loads(pq.read_schema(target).metadata[b"huggingface"])["info"]["features"]
    assert list(known) == pq.read_schema(target).names


def test_names_of_classes_txt_stay(tmp_path: Path) -> None:
    source = write_list(tmp_path, "image,label\nred0.png,1\nred1.png,1\nblue0.png,0\nblue1.png,0\n")
    (tmp_path / "classes.txt").write_text("blue\nred\nunseen\n")
    proposals = {"red0.png": ("unseen", 0.9), "red1.png": ("blue", 0.9)}
    before, after, _ = corrected(source, tmp_path / "corrected.csv", proposals)
    assert after.class_names == before.class_names
    check_same_but(before, after, {"red0.png": "unseen", "red1.png": "blue"})
    assert [row["label"] for row in rows_of(tmp_path / "corrected.csv")] == ["2", "0", "0", "0"]


def test_pictures_inside_other_tables_come_along(tmp_path: Path) -> None:
    """Several tables become one."""
    for split in ("train", "test"):
        table = parquet_of(
            {
                f"{split}{c}{i}": encoded(draw(c, i + 9 * len(split)))
                for c in CLASSES
                for i in range(2)
            },
            pa.array([c for c in CLASSES for _ in range(2)]),
        )
        pq.write_table(table, tmp_path / f"{split}.parquet")
    before, after, _ = corrected(
        tmp_path, tmp_path / "corrected.parquet", {"train.parquet#0": ("red", 0.9)}
    )
    check_same_but(before, after, {"train.parquet#0": "red"})
    assert set(after.splits) == {"train", "test"}


def test_an_audit_of_some_classes_leaves_the_others(planted: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(planted, tmp_path / "colours"))
    config = data_settings(str(data), classes="first:2").config
    part = load_dataset(data, classes="first:2", holdout=0)
    manifest = CorrectedManifest(config, tmp_path / "new.csv")
    manifest.write(report_on(part, {"blue/000.png": ("green", 0.9)}), 0.7)
    rows = {row["image"]: row for row in rows_of(tmp_path / "new.csv")}
    assert len(rows) == 3 * N
    assert rows["colours/blue/000.png"]["label"] == "green"
    assert rows["colours/red/000.png"]["label"] == "red"
    assert rows["colours/red/000.png"]["confidence"] == ""


@pytest.mark.parametrize(
    ("prepare", "target", "message"),
    [
        (lambda d: None, "corrected.json", "must end in"),
        (lambda d: (d / "new.csv").write_text("mine"), "new.csv", "exists and is not replaced"),
        (lambda d: (d / "new.csv").symlink_to("nowhere"), "new.csv", "exists and is not replaced"),
        (lambda d: None, "colours/Train.csv", "read as one of its splits"),
        (lambda d: None, "colours/red/new.csv", "lies outside"),
        (lambda d: (d / "elsewhere").mkdir(), "elsewhere/new.csv", "lies outside"),
        (lambda d: (d / "classes.txt").write_text("a\n"), "new.csv", "would rename the classes"),
        (
            lambda d: (d / "colours" / "red" / "000.png").rename(
                d / "colours" / "red" / "a\\b.png"
            ),
            "new.csv",
            "cannot name the picture",
        ),
    ],
)
def test_files_that_would_not_load_are_refused(
    planted: Path, tmp_path: Path, prepare: Callable[[Path], object], target: str, message: str
) -> None:
    data = Path(shutil.copytree(planted, tmp_path / "colours"))
    prepare(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=message):
        CorrectedManifest(data_settings(str(data)).config, tmp_path / target)
    assert files_of(tmp_path) == before


def test_a_table_is_corrected_beside_itself_once(tmp_path: Path) -> None:
    source = write_list(
        tmp_path / "a", "image,label\nred0.png,x\nred1.png,x\nblue0.png,y\nblue1.png,y\n"
    )
    with pytest.raises(UserError, match="must lie beside"):
        CorrectedManifest(data_settings(str(source)).config, tmp_path / "new.csv")
    corrected(source, source.with_name("new.csv"), {})
    with pytest.raises(UserError, match="already has a column 'given_label'"):
        corrected(source.with_name("new.csv"), source.with_name("newer.csv"), {})
    with pytest.raises(UserError, match="exists and is not replaced"):
        corrected(source, source, {})


def test_bytes_do_not_go_into_text(tmp_path: Path) -> None:
    pq.write_table(parquet_of(PICTURES, pa.array([0, 1, 2] * 3)), tmp_path / "t.parquet")
    config = data_settings(str(tmp_path / "t.parquet")).config
    with pytest.raises(UserError, match=r"holds no text; name a \.parquet"):
        CorrectedManifest(config, tmp_path / "new.csv")
    with pytest.raises(UserError, match=r"name a \.parquet file, which keeps their bytes"):
        CorrectedManifest(data_settings("demo").config, tmp_path / "new.csv")


def test_labels_made_wrong_on_purpose_are_not_corrected(planted: Path, tmp_path: Path) -> None:
    config = data_settings(str(planted), noise="symmetric:0.5").config
    with pytest.raises(UserError, match=r"wrong on purpose \(noise symmetric:0\.5\)"):
        CorrectedManifest(config, tmp_path / "new.csv")


def test_a_file_that_comes_to_be_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    source = write_list(tmp_path, "image,label\nred0.png,x\nblue0.png,y\n")
    target = tmp_path / "new.csv"
    manifest = CorrectedManifest(data_settings(str(source)).config, target)
    target.write_text("mine")
    with pytest.raises(UserError, match="exists and is not replaced"):
        manifest.write(report_on(load_dataset(source, holdout=0), {}), 0.7)
    assert target.read_text() == "mine"
    assert not list(tmp_path.glob("*.tmp"))


def test_an_audit_that_is_not_to_be_trusted_is_not_applied(tmp_path: Path) -> None:
    source = write_list(tmp_path, "image,label\nred0.png,x\nblue0.png,y\n")
    manifest = CorrectedManifest(data_settings(str(source)).config, tmp_path / "new.csv")
    report = report_on(load_dataset(source, holdout=0), {"red0.png": ("y", 0.9)})
    report.record.informed = False  # type: ignore[misc]
    with pytest.raises(UserError, match="cannot tell wrong labels from right ones"):
        manifest.write(report, 0.7)
    assert not (tmp_path / "new.csv").exists()
