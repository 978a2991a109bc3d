from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.made import put
from tests.shared_data import shared_data

from dspt.data import ImageDataset, choose_classes, load_dataset
from dspt.data.stores import FileImages
from dspt.errors import UserError


def made(labels: list[int], num_classes: int, human: list[int] | None = None) -> ImageDataset:
    n = len(labels)
    test = np.arange(0, n, 3)
    train = np.setdiff1d(np.arange(n), test)
    return ImageDataset(
        name="toy",
        source="toy",
        class_names=tuple(f"class {c}" for c in range(num_classes)),
        images=FileImages(Path(), [f"{i}.jpg" for i in range(n)], contained=True),
        labels=np.array(labels, dtype=np.int64),
        splits={"train": train, "test": test},
        columns={"human": np.array(human or labels, dtype=np.int64)},
    )


@given(st.integers(4, 9), st.data())
def test_base_and_new_share_out_the_classes_as_coop_does(classes: int, data: st.DataObject) -> None:
    """Against a plain restatement of CoOp's subsample_classes."""
    labels = [c for c in range(classes) for _ in range(6)]
    human = data.draw(
        st.lists(st.integers(-1, classes - 1), min_size=6 * classes, max_size=6 * classes)
    )
    whole = made(labels, classes, human)
    middle = math.ceil(classes / 2)
    for which, chosen in (("base", range(middle)), ("new", range(middle, classes))):
        part = choose_classes(whole, which)
        assert part.class_names == tuple(whole.class_names[c] for c in chosen)
        renumbered = {c: i for i, c in enumerate(chosen)}
        for split in ("train", "test"):
            wanted = [
                (whole.images.key(int(i)), renumbered[labels[i]], renumbered.get(human[i], -1))
                for i in whole.splits[split]
                if labels[i] in renumbered
            ]
            found = [
                (part.images.key(int(i)), int(part.labels[i]), int(part.columns["human"][i]))
                for i in part.splits[split]
            ]
            assert found == wanted


def test_names_and_fingerprints_tell_the_parts_apart() -> None:
    whole = made([0, 1, 2, 3] * 6, 4)
    parts = [choose_classes(whole, which) for which in ("base", "new", "first:3")]
    assert [part.name for part in parts] == ["toy[base]", "toy[new]", "toy[first:3]"]
    prints = {dataset.fingerprint for dataset in (whole, *parts)}
    assert len(prints) == 4
    assert choose_classes(whole, "all") is whole


def test_odd_numbers_give_base_the_larger_half() -> None:
    whole = made([0, 1, 2, 3, 4] * 6, 5)
    assert len(choose_classes(whole, "base").class_names) == 3
    assert len(choose_classes(whole, "new").class_names) == 2


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        ("old", 'must be "all", "base", "new" or "first:N"'),
        ("", "must be"),
        ("first:", "must be"),
        ("first:-2", "must be"),
        ("first:2.0", "must be"),
        ("first:0", "leaves 0 of the 4"),
        ("first:1", "leaves 1 of the 4"),
        ("first:5", "has only 4 classes"),
    ],
)
def test_what_cannot_be_chosen_is_refused(which: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        choose_classes(made([0, 1, 2, 3] * 6, 4), which)


def test_too_few_classes_for_two_halves() -> None:
    with pytest.raises(UserError, match="leaves 1 of the 3 classes"):
        choose_classes(made([0, 1, 2] * 6, 3), "new")


def test_a_split_without_chosen_pictures_is_dropped() -> None:
    whole = made([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 4)
    only = ImageDataset(
        name="toy",
        source="toy",
        class_names=whole.class_names,
        images=whole.images,
        labels=whole.labels,
        splits={"train": np.arange(9), "test": np.arange(9, 12)},
    )
    part = choose_classes(only, "base")
    assert set(part.splits) == {"train"}
    assert part.test_source == "none"
    with pytest.raises(UserError, match="training split is empty"):
        choose_classes(
            ImageDataset(
                name="toy",
                source="toy",
                class_names=whole.class_names,
                images=whole.images,
                labels=whole.labels,
                splits={"train": np.arange(6), "test": np.arange(6, 12)},
            ),
            "new",
        )


def test_the_door_takes_classes_and_holds_out_the_same_pictures(tmp_path: Path) -> None:
    put(tmp_path, *(f"{c}/{i}.jpg" for c in "abcd" for i in range(10)))
    whole = load_dataset(tmp_path)
    part = load_dataset(tmp_path, classes="new")
    assert part.class_names == ("c", "d")
    assert part.test_source == "holdout"
    held = whole.keys(whole.splits["test"])
    assert part.keys(part.splits["test"]) == [key for key in held if key[0] in "cd"]
    for i in (0, len(part.images) - 1):
        assert part.images.read(i) == (tmp_path / part.images.key(i)).read_bytes()


def test_real_caltech_101_base_to_new() -> None:
    folder = shared_data("caltech-101")
    base = load_dataset(folder, classes="base")
    new = load_dataset(folder, classes="new")
    whole = load_dataset(folder)
    assert base.class_names + new.class_names == whole.class_names
    assert len(base.class_names) == len(new.class_names) == 50
    for split in ("train", "val", "test"):
        assert len(base.splits[split]) + len(new.splits[split]) == len(whole.splits[split])
