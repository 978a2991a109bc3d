from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.made import picture, put
from tests.shared_data import shared_data

from dspt.data import load_dataset
from dspt.data.summary import summarise
from dspt.errors import UserError


def table(folder: Path, rows: str) -> Path:
    path = folder / "train.csv"
    path.write_text("image,label,split,human\n" + rows)
    return path


def test_counts_imbalance_and_label_columns(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "1.jpg,a,train,a\n2.jpg,a,train,b\n3.jpg,a,train,\n4.jpg,b,train,b\n5.jpg,b,test,\n",
    )
    summary = summarise(load_dataset(path))
    assert summary.counts == {"train": [3, 1], "test": [0, 1]}
    assert summary.imbalance == 3
    assert summary.columns == {"human": (pytest.approx(1 / 3), 3)}
    assert summary.test_source == "split"
    assert summary.unreadable is None
    assert summary.duplicates is None


def test_an_empty_class_has_no_imbalance(tmp_path: Path) -> None:
    path = table(tmp_path, "1.jpg,a,train,\n2.jpg,b,test,\n")
    assert summarise(load_dataset(path)).imbalance is None


def test_pictures_are_read_only_when_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png", "3.png", "4.png", "5.png")
    for copy in ("2.png", "4.png"):
        (tmp_path / copy).write_bytes(picture(0))
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "5.png").unlink()
    path = table(
        tmp_path,
        "1.png,a,train,\n2.png,b,train,\n3.png,a,train,\n4.png,b,test,\n5.png,b,test,\n",
    )
    summary = summarise(load_dataset(path), pictures=True)
    assert summary.duplicates == [["1.png", "2.png", "4.png"]]
    assert (summary.across_splits, summary.disagreeing) == (1, 1)
    assert summary.unreadable is not None
    assert [message.split()[1] for message in summary.unreadable] == ["3.png", "5.png"]
    assert summary.readable is not None
    assert summary.readable.tolist() == [0, 1, 3]
    with pytest.raises(UserError, match=r"picture 3\.png"):
        summarise(load_dataset(path), pictures=True, strict=True)


def test_real_human_labels_are_as_wrong_as_their_paper_says() -> None:
    """CIFAR-10N, table 1 of Wei et al. 2022: 9.03, 17.23, 18.12, 17.64 and 40.21 %."""
    columns = summarise(load_dataset(shared_data("cifar-10n"))).columns
    wrong = {name: round(100 * share, 2) for name, (share, n) in columns.items() if n == 50000}
    assert wrong == {
        "aggre_label": pytest.approx(9.03, abs=0.03),
        "random_label1": pytest.approx(17.23, abs=0.03),
        "random_label2": pytest.approx(18.12, abs=0.03),
        "random_label3": pytest.approx(17.64, abs=0.03),
        "worse_label": pytest.approx(40.21, abs=0.03),
    }
