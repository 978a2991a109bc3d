"""Every kind of bad picture in one folder: each is named and left out, none stops the others."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.acceptance.calling import Caller
from tests.data.made import picture, put
from tests.data.test_images import GOOD, png
from tests.tiny import write_model, write_pictures

from dspt.backbones import load_backbone
from dspt.data import ImageDataset, load_dataset, picture_files
from dspt.data.given import GivenPictures
from dspt.data.stores import LARGEST_FILE, read_picture
from dspt.data.summary import summarise
from dspt.errors import UserError
from dspt.features import extract_features


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may be at most about 100 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def folder(path: Path) -> None:
    path.mkdir()


def broken_link(path: Path) -> None:
    path.symlink_to("nowhere.jpg")


def link_in_a_circle(path: Path) -> None:
    path.symlink_to(path)


def link_to_a_folder(path: Path) -> None:
    path.symlink_to(path.parent)


def too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # takes no space


def bytes_of(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def bitmap(width: int, height: int) -> bytes:
    """A BMP of one bit a pixel whose header promises more than it holds."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (bytes_of(b""), "is an empty file"),
    "truncated": (bytes_of(GOOD[: len(GOOD) // 2]), "cannot be decoded"),
    "only the header": (bytes_of(GOOD[:30]), "cannot be decoded"),
    "text": (bytes_of(b"<html>404 not found</html>"), "not one of JPEG"),
    "pdf": (bytes_of(b"%PDF-1.4\n"), "not one of JPEG"),
    "bomb": (bytes_of(png(30_000, 30_000, 1, 0, b"")), "too many pixels"),
    "promise": (bytes_of(bitmap(12_000, 12_000)), "cannot be decoded"),
    "large": (too_large, f"has {LARGEST_FILE + 1} bytes"),
    "pipe": (pipe, "is no ordinary file"),
    "socket": (unix_socket, "is no ordinary file"),
    "broken link": (broken_link, "is a broken link"),
    "circle": (link_in_a_circle, "cannot be read"),
}
IN_A_LIST = {
    **BAD,
    "folder": (folder, "is a folder"),
    "link to a folder": (link_to_a_folder, "is a folder"),
}


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    """A data folder with class folders a and b of three fine pictures each."""
    put(tmp_path, *(f"{c}/{i}.jpg" for c in "ab" for i in range(3)))
    return tmp_path


def problems(dataset: ImageDataset) -> list[str]:
    found = summarise(dataset, pictures=True).unreadable
    assert found is not None
    return found


@pytest.mark.parametrize("kind", BAD)
def test_in_a_class_folder(fine: Path, kind: str) -> None:
    make, reason = BAD[kind]
    make(fine / "a" / "bad.jpg")
    dataset = load_dataset(fine, holdout=0)
    (line,) = problems(dataset)
    assert line.startswith("picture a/bad.jpg ")
    assert reason in line
    assert len(line.splitlines()) == 1
    with pytest.raises(UserError) as caught:
        summarise(dataset, pictures=True, strict=True)
    assert str(caught.value) == line


@pytest.mark.parametrize("kind", IN_A_LIST)
def test_in_a_manifest(fine: Path, kind: str) -> None:
    make, reason = IN_A_LIST[kind]
    make(fine / "bad.jpg")
    (fine / "train.csv").write_text("image,label\na/0.jpg,a\nbad.jpg,a\nb/1.jpg,b\n")
    (line,) = problems(load_dataset(fine, holdout=0))
    assert line.startswith("picture bad.jpg ")
    assert reason in line


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "bomb"])
def test_in_a_parquet_file(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    make, _ = BAD[kind]
    make(tmp_path / "bad")
    cells = [picture(0), (tmp_path / "bad").read_bytes(), picture(1)]
    pq.write_table(pa.table({"image": cells, "label": list("aab")}), tmp_path / "train.parquet")
    (line,) = problems(load_dataset(tmp_path, holdout=0))
    assert "train.parquet#1" in line


@pytest.mark.parametrize("kind", IN_A_LIST)
def test_given_in_python(tmp_path: Path, kind: str) -> None:
    make, reason = IN_A_LIST[kind]
    path = tmp_path / "bad.jpg"
    make(path)
    if "cannot be decoded" in reason or "not one of" in reason or "pixels" in reason:
        assert GivenPictures([path]).read(0)
    elif kind != "empty":
        with pytest.raises(UserError, match=r"picture X\[0\]: .*bad\.jpg " + reason):
            GivenPictures([path]).read(0)


def test_folders_with_a_pictures_name_are_searched(fine: Path) -> None:
    put(fine, "a/4.jpg/deep.jpg")
    (fine / "a" / "5.jpg").mkdir()
    (fine / "a" / "6.jpg").symlink_to(fine)  # not followed
    dataset = load_dataset(fine, holdout=0)
    assert len(dataset.images) == 7
    assert problems(dataset) == []


def test_a_wrong_ending_does_not_matter(fine: Path) -> None:
    for name, kind in (("3.jpg", "PNG"), ("4.png", "JPEG"), ("5.GIF", "TIFF"), ("6.bmp", "WEBP")):
        Image.new("RGB", (9, 9)).save(fine / "a" / name, kind)
    assert problems(load_dataset(fine, holdout=0)) == []


def test_without_permission(fine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    with pytest.raises(UserError, match="picture a cannot be read: Permission denied"):
        read_picture(fine / "a" / "0.jpg", "a")


def test_a_name_that_cannot_exist() -> None:
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        read_picture(Path("x" * 300), "x")
    with pytest.raises(UserError, match="cannot be read: embedded null"):
        read_picture(Path("a\0b"), "x")


def test_picture_files_keeps_what_reading_will_name(fine: Path) -> None:
    broken_link(fine / "link.jpg")
    pipe(fine / "a" / "pipe.jpg")
    assert picture_files([fine / "link.jpg"]) == [fine / "link.jpg"]
    assert fine / "a" / "pipe.jpg" in picture_files([fine])
    for name in ("nowhere", "x" * 300, "a\0b"):
        with pytest.raises(UserError, match="no such picture or folder"):
            picture_files([name])


# --- what trains and predicts ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def some_bad(tmp_path: Path) -> Path:
    """Class folders of eight fine pictures each, and one bad picture of every kind."""
    folder = write_pictures(tmp_path / "set", ("red", "green"), n=8)
    for number, (make, _) in enumerate(BAD.values()):
        make(folder / "red" / f"bad{number}.png")
    return folder


def test_features_of_the_others_are_there(some_bad: Path, model: str, tmp_path: Path) -> None:
    dataset = load_dataset(some_bad, holdout=0)
    backbone = load_backbone(model, device="cpu")
    everything = np.arange(len(dataset.images))
    found = extract_features(backbone, dataset.images, everything, cache=tmp_path / "cache")
    assert found.readable.sum() == 16
    assert len(found.unreadable) == len(BAD)
    assert [line.split()[1] for line in found.unreadable] == [
        dataset.images.key(int(i)) for i in np.flatnonzero(~found.readable)
    ]
    assert torch.allclose(found.values[found.readable].norm(dim=-1), torch.ones(16, 1))
    assert not found.values[~found.readable].any()
    with pytest.raises(UserError, match="picture red/bad"):
        extract_features(
            backbone, dataset.images, everything, cache=tmp_path / "cache", strict=True
        )


def test_fit_leaves_them_out_and_names_them(
    some_bad: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = Caller(capsys)
    options = ("--shots", "all", "--epochs", "1", "--holdout", "0", "--backbone", model)
    answer = call.ok("fit", some_bad, "--out", tmp_path / "run", *options)
    assert "red/bad3.png" in answer.err
    assert f"warning: {len(BAD)} training pictures could not be read and are left out" in answer.err
    line = call.refused("fit", some_bad, "--out", tmp_path / "2", *options, "--strict", "-q")
    assert "picture red/bad" in line
    assert not (tmp_path / "2").exists()


def test_predict_leaves_them_out_and_names_them(
    some_bad: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = Caller(capsys)
    fine = write_pictures(tmp_path / "fine", ("red", "green"), n=3)
    options = ("--epochs", "1", "--holdout", "0", "--backbone", model, "-q")
    call.ok("fit", fine, "--out", tmp_path / "run", *options)
    answer = call.ok("predict", tmp_path / "run", some_bad, "-q", "--format", "csv")
    assert len(answer.out.splitlines()) == 1 + 16
    assert answer.err.count("skipped: picture ") == len(BAD)
    assert "picture " in call.refused(
        "predict", tmp_path / "run", some_bad / "red", "-q", "--strict"
    )
