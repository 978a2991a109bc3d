from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tiny import COLOURS, draw, encoded, write_model, write_pictures

from dspt.backbones import Backbone, load_backbone
from dspt.data import ImageDataset, load_dataset
from dspt.data.recognition import ENOUGH, PICTURES_A_CLASS, Recognition, recognise
from dspt.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("models") / "tiny"), device="cpu")


def looked_at(dataset: ImageDataset, model: Backbone, cache: Path) -> Recognition:
    readable = np.arange(len(dataset.images))
    return recognise(dataset, model, readable=readable, cache=cache)


def test_recall_is_the_share_of_pictures_whose_own_prompt_wins(
    model: Backbone, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "set", tuple(COLOURS), n=12)
    dataset = load_dataset(tmp_path / "set", holdout=0)
    found = looked_at(dataset, model, tmp_path)
    texts = model.zero_shot_features(dataset.class_names, dataset.template)
    hits = np.zeros(len(COLOURS))
    for i, label in enumerate(dataset.labels):
        from dspt.features import extract_features

        (feature,) = extract_features(model, dataset.images, [i], cache=tmp_path).values[:, 0]
        hits[label] += int((texts @ feature).argmax()) == label
    assert found.recall == pytest.approx(hits / 12)
    assert found.pictures == [12] * 6
    assert found.alike == []
    assert found.backbone == model.name


def test_names_without_meaning_are_unknown_and_confused_names_are_named(
    model: Backbone, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "set", ("red", "green"), n=40)
    (tmp_path / "set" / "red").rename(tmp_path / "set" / "blue")  # now called by a wrong name
    (tmp_path / "set" / "green").rename(tmp_path / "set" / "zzz")
    write_pictures(tmp_path / "more", ("red", "green"), n=1, first=50)
    for name in ("red", "green"):
        (tmp_path / "more" / name).rename(tmp_path / "set" / name)
    found = looked_at(load_dataset(tmp_path / "set", holdout=0), model, tmp_path)
    names = load_dataset(tmp_path / "set", holdout=0).class_names
    assert names == ("blue", "green", "red", "zzz")
    assert found.unknown == [0, 3]
    assert found.taken_for[0] == 2
    assert found.taken_for[3] == 1
    assert found.pictures == [PICTURES_A_CLASS, 1, 1, PICTURES_A_CLASS]
    again = looked_at(load_dataset(tmp_path / "set", holdout=0), model, tmp_path)
    assert again == found


def test_few_pictures_prove_nothing_and_half_of_wrong_labels_do_not_hide_a_name(
    model: Backbone, tmp_path: Path
) -> None:
    for number in range(24):
        for name, colours in (("red", ("red", "blue")), ("green", ("green",))):
            path = tmp_path / "set" / name / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(draw(colours[number % len(colours)], number)))
    write_pictures(tmp_path / "few", ("green",), n=ENOUGH - 1, first=50)
    (tmp_path / "few" / "green").rename(tmp_path / "set" / "zzz")
    found = looked_at(load_dataset(tmp_path / "set", holdout=0), model, tmp_path)
    assert found.unknown == []
    assert found.recall[2] == 0


def test_only_readable_training_pictures_count(model: Backbone, tmp_path: Path) -> None:
    write_pictures(tmp_path / "set", ("red", "green"), n=10)
    dataset = load_dataset(tmp_path / "set", holdout=0.5)
    train = dataset.splits["train"]
    found = recognise(dataset, model, readable=train[:3], cache=tmp_path)
    assert found.pictures == [3, 0]
    assert found.recall[1] is None
    with pytest.raises(UserError, match="none of the training pictures could be read"):
        recognise(dataset, model, readable=dataset.splits["test"], cache=tmp_path)
