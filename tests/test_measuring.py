from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import write_model, write_pictures

from dspt.backbones import load_backbone
from dspt.data import load_dataset, open_image
from dspt.errors import UserError
from dspt.fitting import FittedRun, fit
from dspt.measuring import measure_run, measure_zero_shot

CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measuring")
    write_model(folder / "model")
    write_pictures(folder / "pictures" / "train", CLASSES, 4)
    write_pictures(folder / "pictures" / "test", CLASSES, 5, first=50)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> FittedRun:
    return fit(
        place / "pictures",
        str(place / "model"),
        out=place / "run",
        cache=place / "cache",
        device="cpu",
        shots=4,
        recipe={"epochs": 3, "lr": 0.01},
    )


def test_zero_shot_is_the_plain_computation(place: Path) -> None:
    measured = measure_zero_shot(
        place / "pictures",
        str(place / "model"),
        template="a blurry {} thing",
        device="cpu",
        cache=place / "cache",
    )
    backbone = load_backbone(str(place / "model"), device="cpu")
    data = load_dataset(place / "pictures")
    texts = backbone.encode_text([f"a blurry {name} thing" for name in data.class_names])
    hits = []
    for index in data.splits["test"]:
        image = backbone.preprocess(open_image(data.images.read(int(index)), ""))
        guess = int((backbone.encode_image(image[None]) @ texts.T).argmax())
        hits.append(guess == data.labels[index])
    assert measured.zero_shot.accuracy == pytest.approx(np.mean(hits))
    assert (measured.zero_shot.n, measured.split, measured.tuned) == (15, "test", None)
    assert measured.template == "a blurry {} thing"
    assert measured.logit_scale == pytest.approx(100)


def test_a_run_measured_again_gives_its_own_numbers(place: Path, run: FittedRun) -> None:
    again = measure_run(place / "run", device="cpu", cache=place / "cache")
    assert again.tuned == run.result.final
    assert again.zero_shot == run.result.zero_shot.test
    train = measure_run(place / "run", split="train", device="cpu", cache=place / "cache")
    assert train.tuned is not None
    assert train.tuned.accuracy == run.result.epochs[-1].accuracy_given
    assert train.zero_shot.n == 12


def test_other_pictures_with_fewer_and_reordered_classes(
    place: Path, run: FittedRun, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "other", ("red", "blue"), 3, first=70)
    measured = measure_run(
        place / "run",
        str(tmp_path / "other"),
        split="train",
        device="cpu",
        cache=place / "cache",
        holdout=0.0,
    )
    assert measured.class_names == ["blue", "green", "red"]
    assert measured.tuned is not None
    assert measured.tuned.per_class_n == [3, 0, 3]
    assert measured.tuned.per_class_accuracy[1] is None
    data = load_dataset(tmp_path / "other", holdout=0)
    truth = [data.class_names[label] for label in data.labels]
    guesses = run.model.predict([tmp_path / "other" / key for key in data.keys(range(6))])
    hits = [guess.label == true for guess, true in zip(guesses, truth, strict=True)]
    assert measured.tuned.accuracy == pytest.approx(np.mean(hits))


def test_unreadable_pictures_are_listed(place: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", ("red", "blue"), 4)
    (tmp_path / "p" / "blue" / "002.png").write_bytes(b"broken")
    measured = measure_zero_shot(
        tmp_path / "p",
        str(place / "model"),
        split="train",
        holdout=0.0,
        device="cpu",
        cache=tmp_path / "c",
    )
    assert measured.zero_shot.per_class_n == [3, 4]
    assert len(measured.unreadable) == 1
    assert "blue/002.png" in measured.unreadable[0]


def test_what_cannot_be_measured_is_refused(place: Path, run: FittedRun, tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", ("red", "pink"), 2)
    model = str(place / "model")
    for pattern, call in {
        "classes that the run does not know": lambda: measure_run(
            place / "run", str(tmp_path / "p"), device="cpu"
        ),
        "split: .* has no 'val'": lambda: measure_run(place / "run", split="val", device="cpu"),
        "is it the folder of a finished run": lambda: measure_run(tmp_path / "p"),
        "template: must hold": lambda: measure_zero_shot(tmp_path / "p", model, template="x"),
        "has no 'test'": lambda: measure_zero_shot(tmp_path / "p", model, holdout=0.0),
    }.items():
        with pytest.raises(UserError, match=pattern) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    for path in (tmp_path / "p").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 2 pictures could be read"):
        measure_zero_shot(tmp_path / "p", model, device="cpu", cache=tmp_path / "c")


def test_the_test_features_are_on_the_models_device(run: FittedRun) -> None:
    assert run.model.context.device == torch.device("cpu")
