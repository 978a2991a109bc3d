"""``PromptClassifier`` keeps scikit-learn's contract, and is the same training as ``dspt.fit``."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer
from sklearn.utils.estimator_checks import parametrize_with_checks
from tests.models import backbone_of, build_model, tiny_config
from tests.tiny import count_encoded, draw, encoded, write_model, write_pictures

from dspt import PromptClassifier, fit
from dspt.backbones import Backbone, load_backbone
from dspt.errors import UserError
from dspt.features import extract_features
from dspt.model import PromptModel, load_model

ROOT = Path(__file__).parents[1]
CLASSES = ("red", "green", "blue")


@lru_cache(maxsize=64)
def backbone_of_width(width: int) -> Backbone:
    """A tiny random CLIP with features of the given width."""
    return backbone_of(build_model(tiny_config(embed_dim=width)))


class AnyWidth(PromptClassifier):
    """The estimator as it is, on a backbone made for the width of the arrays.

    scikit-learn's suite chooses its arrays, 1 to 20 numbers wide; the features of a real backbone
    have one width, and the estimator rightly refuses all others. So the suite is given what no user
    has, a CLIP of every width. Nothing else is replaced.
    """

    def _backbone_for(self, width: int | None) -> Backbone:
        assert width is not None
        return backbone_of_width(width)


EXCLUDED: dict[str, str] = {}
"""Checks of the suite that the estimator need not pass, each with the reason."""


@parametrize_with_checks(
    [AnyWidth(method="ce", class_specific=True, n_ctx=4, epochs=10, lr=0.02)],
    expected_failed_checks=lambda estimator: EXCLUDED,
)
@pytest.mark.filterwarnings("ignore:y holds numbers:UserWarning")
def test_the_suite_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("tiny") / "model"), device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "train", CLASSES, 6)


@pytest.fixture(scope="module")
def paths(pictures: Path) -> list[Path]:
    return sorted(pictures.rglob("*.png"))


@pytest.fixture(scope="module")
def names(paths: list[Path]) -> list[str]:
    return [path.parent.name for path in paths]


@pytest.fixture(scope="module")
def features(backbone: Backbone, paths: list[Path]) -> np.ndarray:
    images = [backbone.preprocess(Image.open(path).convert("RGB")) for path in paths]
    return backbone.encode_image(torch.stack(images)).numpy()


def quick(backbone: Backbone | str, **parameters: Any) -> PromptClassifier:
    return PromptClassifier(backbone=backbone, **{"epochs": 2, "n_ctx": 4, **parameters})


def test_it_is_the_training_of_fit(
    backbone: Backbone, pictures: Path, paths: list[Path], names: list[str]
) -> None:
    """Same pictures in the same order, same seed: the same context vectors, bit for bit."""
    run = fit(
        pictures,
        backbone,
        shots=None,
        holdout=0.0,
        seed=3,
        prompt={"n_ctx": 4},
        recipe={"epochs": 3, "batch_size": 5},
    )
    assert isinstance(run.model, PromptModel)
    keys = [pictures / key for key in run.dataset.keys(run.dataset.splits["train"])]
    estimator = quick(backbone, epochs=3, batch_size=5, random_state=3)
    # Classes sort otherwise than they were listed only if a reader orders them so; here they agree.
    assert run.model.class_names == tuple(sorted(CLASSES))
    estimator.fit(keys, [key.parent.name for key in keys])
    assert torch.equal(estimator.model_.context, run.model.context)
    assert [m.train_loss for m in estimator.history_] == [m.train_loss for m in run.result.epochs]
    told = run.model.predict(paths, top=3)
    found = estimator.predict_proba(paths)
    for row, prediction in zip(found, told, strict=True):
        by_name = dict(zip(estimator.classes_, row, strict=True))
        assert [by_name[label] for label in prediction.labels] == pytest.approx(
            prediction.probabilities, abs=1e-5
        )


def test_every_kind_of_picture_gives_the_same(
    backbone: Backbone, paths: list[Path], names: list[str], features: np.ndarray
) -> None:
    import pandas as pd

    images = [Image.open(path) for path in paths]
    arrays = [np.asarray(image.convert("RGB")) for image in images]
    kinds: dict[str, Any] = {
        "paths": paths,
        "text": [str(path) for path in paths],
        "array of text": np.array([str(path) for path in paths]),
        "series": pd.Series([str(path) for path in paths]),
        "table with one column": pd.DataFrame({"image": [str(path) for path in paths]}),
        "images": images,
        "arrays": arrays,
        "one array": np.stack(arrays),
        "mixed": [paths[0], images[1], *arrays[2:]],
    }
    expected = quick(backbone).fit(paths, names).predict_proba(paths)
    assert expected.shape == (18, 3)
    assert expected.sum(axis=1) == pytest.approx(1.0)
    for kind, X in kinds.items():
        estimator = quick(backbone).fit(X, names)
        assert np.array_equal(estimator.predict_proba(X), expected), kind
        assert not hasattr(estimator, "n_features_in_")
    by_features = quick(backbone).fit(7 * features, names)
    assert by_features.n_features_in_ == 16
    assert by_features.predict_proba(features) == pytest.approx(expected, abs=1e-4)
    assert by_features.predict_proba(images) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ("a.png", ["red"], r"X: a.png is one picture; give a list of them, \['a.png'\]"),
        (Path("a.png"), ["red"], r"X: a.png is one picture"),
        (np.array([["a.png", "b.png"]]), ["red"], "X: a table with 2 columns of text"),
        (["a.png", "b.png"], ["red", "red"], r"y: holds one class \('red'\); give at least two"),
    ],
)
def test_slips_are_named(backbone: Backbone, X: Any, y: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        quick(backbone).fit(X, y)


@pytest.mark.parametrize("method", ["auto", "zero-shot"])
def test_methods_without_a_prompt_work_in_the_estimator(
    method: str, backbone: Backbone, names: list[str], features: np.ndarray
) -> None:
    estimator = quick(backbone, method=method).fit(features, names)
    assert estimator.predict_proba(features).shape == (18, 3)
    assert estimator.n_iter_ == 0
    again = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(again.predict(features), estimator.predict(features))


def test_transparency_and_orientation_count_as_in_a_file(
    backbone: Backbone, tmp_path: Path
) -> None:
    """A Pillow image opened from a file has the feature of the file."""
    layer = draw("red", 1).convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(layer.size))
    layer.save(tmp_path / "clear.png")
    turned = Image.new("RGB", (40, 20), "blue")
    turned.paste("yellow", (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    turned.convert("CMYK").save(tmp_path / "print.tif")
    files = [tmp_path / name for name in ("clear.png", "turned.png", "print.tif")]
    estimator = quick(backbone, method="zero-shot").fit([*files, files[0]], list("abca"))
    as_files = estimator.predict_proba(files)
    assert np.array_equal(estimator.predict_proba([Image.open(f) for f in files]), as_files)
    assert len(np.unique(as_files.round(9), axis=0)) == 3


def test_pictures_are_encoded_once(
    backbone: Backbone,
    paths: list[Path],
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = count_encoded(monkeypatch)
    scores = cross_val_score(quick(backbone, cache=tmp_path), paths, names, cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    assert seen() == len(paths)


def test_cross_validation_pipeline_and_search(
    backbone: Backbone, features: np.ndarray, names: list[str]
) -> None:
    scaled = make_pipeline(Normalizer(), quick(backbone, init="a photo of a"))
    assert cross_val_score(scaled, features, names, cv=3).mean() > 0.9  # a start at the prior
    assert scaled.fit(features, names).score(features, names) > 0.9
    read = make_pipeline(FunctionTransformer(list), quick(backbone, method="zero-shot"))
    shown = [draw(name, 70 + i) for i, name in enumerate(CLASSES)]
    assert list(read.fit(shown, CLASSES).predict(shown)) == list(CLASSES)
    search = GridSearchCV(quick(backbone), {"method": ["ce", "linear-probe"]}, cv=2)
    search.fit(features, names)
    assert set(search.cv_results_["param_method"]) == {"ce", "linear-probe"}


def test_clones_share_a_loaded_backbone(backbone: Backbone, tmp_path: Path) -> None:
    estimator = quick(backbone, class_names={"a": "b"}, cache=tmp_path)
    twin = clone(estimator)
    assert twin is not estimator
    assert twin.backbone is backbone
    assert twin.class_names == {"a": "b"}
    assert twin.class_names is not estimator.class_names
    assert {k: v for k, v in twin.get_params().items() if k != "backbone"} == {
        k: v for k, v in estimator.get_params().items() if k != "backbone"
    }
    assert twin.set_params(epochs=7).epochs == 7


def test_pickles_of_a_named_backbone_hold_no_weights(
    backbone: Backbone, features: np.ndarray, names: list[str]
) -> None:
    for method in ("dspt", "linear-probe"):
        estimator = quick(backbone.name, method=method, device="cpu").fit(features, names)
        stored = pickle.dumps(estimator)
        assert len(stored) < 20_000
        back = pickle.loads(stored)
        assert np.array_equal(back.predict_proba(features), estimator.predict_proba(features))
        assert list(back.classes_) == list(estimator.classes_)


def test_a_pickle_refuses_other_weights(
    features: np.ndarray, names: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    estimator = quick(write_model(folder), device="cpu").fit(features, names)
    stored = pickle.dumps(estimator)
    folder.rename(tmp_path / "moved")
    write_model(folder, seed=1)
    with pytest.raises(UserError, match="use the same weights or train again"):
        pickle.loads(stored)


def test_columns_follow_the_sorted_labels(backbone: Backbone, features: np.ndarray) -> None:
    """Whatever the labels are called, a picture's probability belongs to its label."""
    shown = np.array([0] * 6 + [1] * 6 + [2] * 6)  # blue, green, red: the folders sorted
    words = {0: "blue", 1: "green", 2: "red"}
    expected = quick(backbone).fit(features, [words[k] for k in shown]).predict_proba(features)
    by_list = quick(backbone, class_names=["blue", "green", "red"]).fit(features, shown)
    assert list(by_list.classes_) == [0, 1, 2]
    assert by_list.class_names_ == ("blue", "green", "red")
    assert np.array_equal(by_list.predict_proba(features), expected)
    # Labels in another order than the names: columns move with the labels.
    codes = {0: "z", 1: "m", 2: "a"}
    other = quick(
        backbone, method="zero-shot", class_names={codes[k]: word for k, word in words.items()}
    ).fit(features, [codes[k] for k in shown])
    straight = quick(backbone, method="zero-shot", class_names=words).fit(features, shown)
    assert list(other.classes_) == ["a", "m", "z"]
    assert other.class_names_ == ("red", "green", "blue")
    assert other.predict_proba(features) == pytest.approx(straight.predict_proba(features)[:, ::-1])
    assert list(other.predict(features)) == [codes[k] for k in straight.predict(features)]
    assert other.score(features, [codes[k] for k in shown]) == straight.score(features, shown) > 0.9


def test_numbers_without_names_are_warned_of(backbone: Backbone, features: np.ndarray) -> None:
    with pytest.warns(UserWarning, match='prompts say "0", "1"'):
        quick(backbone).fit(features, [0, 1, 2] * 6)
    named = quick(backbone).fit(features, ["red_1", "green", "blue"] * 6)
    assert named.class_names_ == ("blue", "green", "red 1")


@pytest.mark.parametrize(
    ("parameters", "labels", "words"),
    [
        ({"class_names": ["a", "b"]}, [0, 1, 2] * 6, "label 2 in y has no name among the 2"),
        ({"class_names": ["a", "b", "c"]}, list("abc") * 6, "a list names the labels 0, 1"),
        ({"class_names": {"a": "x", "b": "y"}}, list("abc") * 6, "no name for label 'c'"),
        ({"class_names": ["a", "a", "c"]}, [0, 1, 2] * 6, "two classes are called 'a'"),
        ({"class_names": ["a", " ", "c"]}, [0, 1, 2] * 6, "cannot name a class"),
        ({}, ["a"] * 18, "one class"),
        ({"epochs": 0}, list("abc") * 6, "recipe.epochs"),
        ({"method": "dsppt"}, list("abc") * 6, "did you mean 'dspt'"),
        ({"method": "gce", "method_options": {"p": 1}}, list("abc") * 6, "no option 'p'"),
        ({"template": "a photo"}, list("abc") * 6, "template"),
        ({"random_state": "x"}, list("abc") * 6, "random_state"),
        ({"pretrained": "openai"}, list("abc") * 6, "brings its own weights"),
        ({"warm_start_from": "nowhere.safetensors"}, list("abc") * 6, "does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    backbone: Backbone, features: np.ndarray, parameters: dict[str, Any], labels: Any, words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        quick(backbone, **parameters).fit(features, labels)
    assert len(str(caught.value).splitlines()) == 1


def test_wrong_pictures_and_widths_are_refused(
    backbone: Backbone, paths: list[Path], names: list[str], features: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for X, words in (
        ([*paths[:-1], tmp_path / "gone.png"], "gone.png"),
        ([*paths[:-1], tmp_path / "broken.png"], "broken.png cannot be decoded"),
        ([*paths[:-1], 5], "X[17]: int is no picture"),
        (np.zeros((18, 8, 8, 3)), "must be uint8"),
        (features[:, :5], "5 numbers a row are no image features"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            quick(backbone).fit(X, names)
    fitted = quick(backbone).fit(paths, names)
    with pytest.raises(UserError, match="5 numbers a row"):
        fitted.predict(features[:, :5])
    with pytest.raises(ValueError, match="inconsistent"):
        quick(backbone).fit(paths, names[:-1])


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A person presses Ctrl-C after this step of training."""
    import dspt.estimator as module

    original = module.train

    def cut_short(*arguments: Any, on_step: Any, **options: Any) -> Any:
        def told(done: int, total: int) -> None:
            if done == step:
                raise KeyboardInterrupt
            on_step(done, total)

        return original(*arguments, on_step=told, **options)

    monkeypatch.setattr(module, "train", cut_short)


def test_an_interruption_leaves_the_last_finished_epoch(
    backbone: Backbone, features: np.ndarray, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters: dict[str, Any] = {"batch_size": 6, "epochs": 5, "lr": 0.5}  # 3 steps an epoch
    whole = quick(backbone, **parameters).fit(features, names)
    assert (whole.interrupted_, whole.n_iter_, len(whole.history_)) == (False, 5, 6)
    for step, finished in ((8, 2), (1, 0)):
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            with pytest.warns(UserWarning, match=f"after epoch {finished} of 5"):
                cut = quick(backbone, **parameters).fit(features, names)
        assert (cut.interrupted_, cut.n_iter_) == (True, finished)
        assert cut.history_ == whole.history_[: finished + 1]
        assert cut.predict_proba(features).shape == (18, 3)


def test_an_interruption_before_training_is_one(
    backbone: Backbone, features: np.ndarray, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("dspt.estimator.train", stop)
    with pytest.raises(KeyboardInterrupt):
        quick(backbone).fit(features, names)


def test_warm_start_goes_on_from_a_saved_prompt(
    backbone: Backbone, features: np.ndarray, names: list[str], tmp_path: Path
) -> None:
    first = quick(backbone, n_ctx=3, lr=0.5).fit(features, names)
    first.model_.save(tmp_path / "prompt.safetensors")
    again = quick(backbone, n_ctx=None, lr=1e-9, warm_start_from=tmp_path).fit(features, names)
    assert again.model_.context.shape == first.model_.context.shape
    assert again.predict_proba(features) == pytest.approx(first.predict_proba(features), abs=1e-3)
    assert again.history_[0].accuracy_given == first.history_[-1].accuracy_given
    assert load_model(tmp_path, backbone=backbone).class_names == first.class_names_
    renamed = quick(backbone, warm_start_from=tmp_path).fit(features, list("abc") * 6)
    assert renamed.class_names_ == ("a", "b", "c")  # a shared context goes before any name
    own = quick(backbone, class_specific=True).fit(features, names)
    own.model_.save(tmp_path / "prompt.safetensors")
    kept = quick(backbone, warm_start_from=tmp_path).fit(features, names)
    assert kept.model_.prompt.class_specific
    with pytest.raises(UserError, match="take one that they share"):
        quick(backbone, warm_start_from=tmp_path).fit(features, list("abc") * 6)


def test_random_state(backbone: Backbone, features: np.ndarray, names: list[str]) -> None:
    def context(random_state: Any) -> torch.Tensor:
        return quick(backbone, random_state=random_state).fit(features, names).model_.context

    assert torch.equal(context(0), context(np.int64(0)))
    assert not torch.equal(context(0), context(1))
    draws = [context(np.random.RandomState(seed)) for seed in (4, 4, 5)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert context(None).isfinite().all()


def test_verbose_tells_on_standard_error(
    backbone: Backbone, paths: list[Path], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    quick(backbone).fit(paths, names)
    assert capsys.readouterr() == ("", "")
    quick(backbone, verbose=1).fit(paths, names)
    out, err = capsys.readouterr()
    assert out == ""
    assert "image features" in err
    assert "training" in err


def test_zero_shot_is_that_of_the_template(
    backbone: Backbone, features: np.ndarray, names: list[str]
) -> None:
    estimator = quick(backbone, method="zero-shot", template="{} picture.").fit(features, names)
    texts = backbone.encode_text([f"{name} picture." for name in sorted(CLASSES)])
    logits = backbone.logit_scale * torch.from_numpy(features) @ texts.t()
    assert estimator.predict_proba(features) == pytest.approx(
        logits.softmax(dim=1).numpy(), abs=1e-5
    )
    assert (estimator.n_iter_, estimator.interrupted_, estimator.history_) == (0, False, [])


def test_features_of_a_backbone_serve_as_they_are(backbone: Backbone, paths: list[Path]) -> None:
    """A tensor will do, as :func:`dspt.features.extract_features` gives it."""
    from dspt.data.given import GivenPictures

    found = extract_features(backbone, GivenPictures(paths), range(len(paths)))
    assert found.readable.all()
    labels = [path.parent.name for path in paths]
    by_pictures = quick(backbone).fit(paths, labels).predict_proba(paths)
    by_features = quick(backbone).fit(found.values[:, 0], labels)
    told = by_features.predict_proba(found.values[:, 0])
    assert told == pytest.approx(by_pictures, abs=1e-4)  # normalised once more, in fp64


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "estimator.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 5
    for name in ("cat", "dog", "crab"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            (tmp_path / "pictures" / name / f"{i}.png").write_bytes(encoded(draw(name, i)))
    code = "\n".join(blocks).replace("epochs=20", "epochs=2")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "prompt.safetensors").is_file()
