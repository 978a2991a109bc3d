from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dspt.data.human_labels import read_human_labels
from dspt.errors import UserError

CLEAN = np.array([0, 1, 2, 1, 0])
NOISY = np.array([0, 1, 1, 1, 2])


def saved(folder: Path, **content: object) -> Path:
    path = folder / "human.pt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8"])
def test_arrays_as_torch_and_numpy_write_them(tmp_path: Path, kind: str) -> None:
    content = {"clean_label": CLEAN.astype(kind), "noisy_label": NOISY.astype(kind), "more": [1]}
    path = saved(tmp_path, **content)
    labels = read_human_labels(path, ["noisy_label"], CLEAN, 3)
    assert list(labels) == ["noisy_label"]
    assert labels["noisy_label"].dtype == np.int64
    assert labels["noisy_label"].tolist() == NOISY.tolist()


def test_a_file_from_before_numpy_2_is_read(tmp_path: Path) -> None:
    """The official files name NumPy's old module; the bytes are rewritten to do so."""
    import io
    import pickletools
    import zipfile

    path = saved(tmp_path, clean_label=CLEAN, noisy_label=NOISY)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    record = next(name for name in entries if name.endswith("data.pkl"))
    entries[record] = entries[record].replace(
        b"cnumpy._core.multiarray\n_reconstruct", b"cnumpy.core.multiarray\n_reconstruct"
    )
    names = [arg for op, arg, _ in pickletools.genops(entries[record]) if op.name == "GLOBAL"]
    assert "numpy.core.multiarray _reconstruct" in names
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    path.write_bytes(buffer.getvalue())
    labels = read_human_labels(path, ["noisy_label"], CLEAN, 3)
    assert labels["noisy_label"].tolist() == NOISY.tolist()


class Runs:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path: Path) -> None:
    path = saved(tmp_path, clean_label=CLEAN, noisy_label=Runs(tmp_path / "ran"))
    with pytest.raises(UserError, match="holds label arrays and nothing else"):
        read_human_labels(path, ["noisy_label"], CLEAN, 3)
    assert not (tmp_path / "ran").exists()


def test_another_order_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path, clean_label=np.roll(CLEAN, 1), noisy_label=NOISY)
    with pytest.raises(UserError, match="4 of 5 clean labels differ from the pictures' labels"):
        read_human_labels(path, ["noisy_label"], CLEAN, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"noisy_label": NOISY}, "no clean_label in it"),
        ({"clean_label": CLEAN}, "no noisy_label in it"),
        ({"clean_label": CLEAN, "noisy_label": NOISY[:3]}, "noisy_label must be 5 integers"),
        ({"clean_label": CLEAN, "noisy_label": NOISY + 1}, "labels outside 0 to 2"),
        ({"clean_label": CLEAN, "noisy_label": NOISY - 1}, "labels outside 0 to 2"),
        ({"clean_label": CLEAN, "noisy_label": [0, 1, 1, 1, 2]}, "must be 5 integers"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, content: dict, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_human_labels(saved(tmp_path, **content), ["noisy_label"], CLEAN, 3)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "human.npy"
    with pytest.raises(UserError, match="no such file"):
        read_human_labels(path, ["noisy_label"], CLEAN, 3)
    np.save(path, np.array({"clean_label": CLEAN}, dtype=object))  # the official .npy is like this
    with pytest.raises(UserError, match="is no torch file"):
        read_human_labels(path, ["noisy_label"], CLEAN, 3)
    torch.save([CLEAN], path)
    with pytest.raises(UserError, match="must hold a dictionary"):
        read_human_labels(path, ["noisy_label"], CLEAN, 3)
