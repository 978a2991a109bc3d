from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.shared_data import shared_data

from dspt.data import dataset_card
from dspt.data.on_disk import check_dataset, is_on_disk
from dspt.data.registry import CARDS
from dspt.errors import UserError


@pytest.fixture
def dtd(tmp_path: Path) -> Path:
    """A whole DTD by its real split file; nothing looks into the pictures."""
    folder = tmp_path / "dtd"
    folder.mkdir()
    split = shared_data("coop-splits") / "split_zhou_DescribableTextures.json"
    shutil.copy(split, folder)
    for rows in json.loads(split.read_text()).values():
        for path, _, _ in rows:
            picture = folder / "images" / path
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.touch()
    return folder


def test_a_whole_data_set_and_then_less_and_less_of_it(dtd: Path) -> None:
    root = dtd.parent
    checked = check_dataset("dtd", root)
    assert checked.complete
    assert (checked.folder, checked.pictures, checked.missing) == (dtd, 5640, ())
    assert is_on_disk(checked.card, root) == "yes"
    assert check_dataset("dtd", dtd).complete  # the folder itself will do

    gone = [f"banded/banded_000{i}.jpg" for i in (2, 4, 5, 6, 8, 9)]
    for name in gone:
        (dtd / "images" / name).unlink()
    checked = check_dataset("dtd", root)
    assert sorted(checked.missing) == gone
    assert len(checked.problems) == 1
    assert checked.problems[0].startswith("6 of 5640 listed pictures are missing: banded/banded_")
    assert checked.problems[0].endswith(" and 1 more")

    (dtd / "images").rename(dtd / "elsewhere")
    checked = check_dataset("dtd", root)
    assert checked.problems[0] == f"missing folder images/ in {dtd}"
    assert checked.problems[1].startswith("5640 of 5640 listed pictures are missing")
    assert is_on_disk(checked.card, root) == "in part"

    (dtd / "split_zhou_DescribableTextures.json").unlink()
    checked = check_dataset("dtd", root)
    assert checked.problems[0].startswith(
        f"missing file split_zhou_DescribableTextures.json in {dtd}; it comes from https://github"
    )
    assert checked.pictures == 0

    shutil.rmtree(dtd)
    checked = check_dataset("dtd", root)
    assert checked.problems == (f"no folder dtd/ in {root}",)
    assert is_on_disk(checked.card, root) == "no"


def test_a_list_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    (path.parent / "images").mkdir(parents=True)
    content = json.loads((shared_data("coop-splits") / path.name).read_text())
    content["train"] = content["train"][:-1]
    path.write_text(json.dumps(content))
    problems = check_dataset("dtd", tmp_path).problems
    assert problems[1:] == ("train: 2819 pictures are listed, DTD has 2820",)
    path.write_text("{")
    assert "no readable JSON" in check_dataset("dtd", tmp_path).problems[0]


@pytest.mark.parametrize("name", [card.name for card in CARDS])
def test_in_an_empty_root_everything_is_missing(tmp_path: Path, name: str) -> None:
    assert not check_dataset(name, tmp_path).complete
    card = dataset_card(name)
    (tmp_path / card.folders[0]).mkdir()
    problems = check_dataset(name, tmp_path).problems
    assert len(problems) == len(card.index) + len(card.pictures)


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        check_dataset("dtd", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no data set is called 'dtt'.*did you mean 'dtd'"):
        check_dataset("dtt", tmp_path)


@pytest.mark.parametrize(("name", "pictures"), [("caltech101", 8242), ("cifar10n", 60000)])
def test_real_data_is_complete(name: str, pictures: int) -> None:
    folder = shared_data(dataset_card(name).folders[0])
    checked = check_dataset(name, folder.parent)
    assert checked.complete, checked.problems
    assert checked.pictures == pictures
