from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.tiny import draw, encoded, write_model
from torch import Tensor

from dspt.backbones import Backbone, load_backbone
from dspt.configuration import PromptConfig
from dspt.data import open_image
from dspt.errors import UserError
from dspt.model import LinearModel, PromptModel

NAMES = ("red", "green", "dark blue", "écru <b>")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("tiny") / "model"), device="cpu")


def made(backbone: Backbone, **prompt: Any) -> PromptModel:
    config = PromptConfig(n_ctx=3, **prompt)
    shape = (len(NAMES), 3, 32) if config.class_specific else (3, 32)
    context = 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return PromptModel(backbone, NAMES, config, context)


def pictures(folder: Path, n: int = 5) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(n)]
    for i, path in enumerate(paths):
        path.write_bytes(encoded(draw(["red", "green", "black"][i % 3], i)))
    return paths


@pytest.mark.parametrize("prompt", [{}, {"class_specific": True}, {"position": "middle"}])
def test_round_trip(backbone: Backbone, tmp_path: Path, prompt: dict[str, Any]) -> None:
    model = made(backbone, **prompt)
    model.save(tmp_path / "prompt.safetensors")
    for place in (tmp_path, tmp_path / "prompt.safetensors", str(tmp_path)):
        back = PromptModel.load(place, backbone=backbone)
        assert torch.equal(back.context, model.context)
        assert (back.class_names, back.prompt) == (model.class_names, model.prompt)
        assert torch.equal(back.class_features, model.class_features)
    assert [p.name for p in tmp_path.iterdir()] == ["prompt.safetensors"]


def test_saving_twice_gives_the_same_bytes(backbone: Backbone, tmp_path: Path) -> None:
    for number in range(12):  # what is written in random order differs sooner or later
        made(backbone).save(tmp_path / str(number))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_the_backbone_is_loaded_by_name(backbone: Backbone, tmp_path: Path) -> None:
    made(backbone).save(tmp_path / "prompt")
    back = PromptModel.load(tmp_path / "prompt", device="cpu")
    assert back.backbone.fingerprint == backbone.fingerprint


def test_predictions_are_the_softmax_of_scaled_cosines(backbone: Backbone, tmp_path: Path) -> None:
    model = made(backbone)
    paths = pictures(tmp_path)
    found = model.predict(paths, top=3)
    for path, prediction in zip(paths, found, strict=True):
        image = open_image(path.read_bytes(), "")
        feature = backbone.encode_image(backbone.preprocess(image)[None])[0]
        cosines = model.class_features @ feature
        probabilities = (backbone.logit_scale * cosines).softmax(0)
        best = probabilities.argsort(descending=True)[:3].tolist()
        assert prediction.image == str(path)
        assert prediction.labels == tuple(NAMES[k] for k in best)
        assert prediction.probabilities == pytest.approx(
            probabilities[best].tolist(), rel=1e-3, abs=1e-6
        )
        assert prediction.label == NAMES[best[0]]


def test_top_is_bounded_by_the_classes_and_batches_do_not_matter(
    backbone: Backbone, tmp_path: Path
) -> None:
    model = made(backbone)
    paths = pictures(tmp_path)
    all_classes = model.predict(paths, top=99)
    assert all(sorted(p.labels) == sorted(NAMES) for p in all_classes)
    assert all(sum(p.probabilities) == pytest.approx(1, abs=1e-5) for p in all_classes)
    assert all(list(p.probabilities) == sorted(p.probabilities)[::-1] for p in all_classes)
    small = model.predict(paths, batch_size=2)
    assert [p.label for p in small] == [p.label for p in all_classes]
    assert model.predict([]) == []


@pytest.mark.parametrize("asked", [{"top": 0}, {"top": -1}, {"batch_size": 0}])
def test_impossible_numbers_are_refused(
    backbone: Backbone, tmp_path: Path, asked: dict[str, int]
) -> None:
    with pytest.raises(UserError, match="at least 1"):
        made(backbone).predict(pictures(tmp_path, 2), **asked)


def test_an_unreadable_picture_is_an_error_or_is_reported(
    backbone: Backbone, tmp_path: Path
) -> None:
    model = made(backbone)
    paths = pictures(tmp_path)
    paths[1].write_bytes(b"no picture")
    paths[3].unlink()
    with pytest.raises(UserError, match=paths[1].name):
        model.predict(paths)
    told: list[str] = []
    found = list(model.iter_predict(paths, batch_size=1, on_unreadable=told.append))
    assert [p.image for p in found] == [str(paths[i]) for i in (0, 2, 4)]
    assert [str(paths[1]) in told[0], str(paths[3]) in told[1]] == [True, True]


def test_pictures_are_read_batch_by_batch(backbone: Backbone, tmp_path: Path) -> None:
    model = made(backbone)
    paths = pictures(tmp_path)
    asked: list[Path] = []

    def stream() -> Any:
        for path in paths:
            asked.append(path)
            yield path

    predictions = model.iter_predict(stream(), batch_size=2)
    next(predictions)
    assert asked == paths[:2]


def test_other_weights_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    made(backbone).save(tmp_path / "prompt")
    other = load_backbone(write_model(tmp_path / "other", seed=1), device="cpu")
    with pytest.raises(UserError, match="use the same weights or train again"):
        PromptModel.load(tmp_path / "prompt", backbone=other)


def refusal(file: Path, backbone: Backbone) -> str:
    with pytest.raises(UserError) as caught:
        PromptModel.load(file, backbone=backbone)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    assert str(file) in message
    return message


def test_missing_files_are_named(backbone: Backbone, tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing", backbone)
    assert "prompt.safetensors" in refusal(tmp_path, backbone)


def test_truncated_and_changed_files_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "prompt"
    made(backbone).save(file)
    whole = file.read_bytes()
    for length in (0, 5, 8, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        refusal(file, backbone)
    file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert "checksum" in refusal(file, backbone)


@pytest.mark.parametrize("content", [b"garbage", b"\xff" * 300, b"PK\x03\x04" * 50, bytes(64)])
def test_garbage_is_refused(backbone: Backbone, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prompt").write_bytes(content)
    refusal(tmp_path / "prompt", backbone)


class _Trap:
    def __reduce__(self) -> object:
        return (pytest.fail, ("a pickle was executed",))


def test_a_pickle_is_not_executed(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_bytes(pickle.dumps(_Trap()))
    refusal(tmp_path / "prompt", backbone)
    torch.save({"context": _Trap()}, tmp_path / "prompt")
    refusal(tmp_path / "prompt", backbone)


def parts(file: Path) -> tuple[dict[str, Any], Tensor]:
    """Header and context of a saved prompt."""
    with safe_open(file, framework="pt") as stored:
        entry = json.loads(stored.metadata()["dspt-prompt-2"])
        return json.loads(entry["about"]), stored.get_tensor("context")


def written(file: Path, told: str, context: Tensor) -> None:
    """A file of format 2 whose checksum is right; computed as docs say, not by our code."""
    text = f"{told}\ncontext {tuple(context.shape)}\n".encode()
    checksum = hashlib.sha256(text + context.numpy().tobytes()).hexdigest()
    entry = json.dumps({"checksum": checksum, "about": told})
    save_file({"context": context}, file, metadata={"dspt-prompt-2": entry})


def rewritten(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The file with another header, its tensor intact and its checksum right."""
    about, context = parts(file)
    about = change(about) or about
    written(file, about if isinstance(about, str) else json.dumps(about), context)


def old(file: Path, model: PromptModel) -> None:
    """The prompt as version 1 saved it."""
    about = {
        "class_names": model.class_names,
        "prompt": model.prompt.model_dump(),
        "backbone": {
            "name": model.backbone.name,
            "pretrained": None,
            "precision": "fp32",
            "fingerprint": model.backbone.fingerprint,
        },
        "sha256": model.fingerprint,
    }
    header = {"dspt-prompt-1": json.dumps(about, sort_keys=True)}
    save_file({"context": model.context}, file, metadata=header)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda about: "[]",
    "null": lambda about: "null",
    "no json": lambda about: "{",
    "deep": lambda about: "[" * 100_000,
    "equal names": lambda about: about.update(class_names=["a", "b", "a"]),
    "no backbone": lambda about: about.pop("backbone") and None,
    "no prompt": lambda about: about.pop("prompt") and None,
    "no classes": lambda about: about.pop("class_names") and None,
    "one class": lambda about: about.update(class_names=["a"]),
    "classes are text": lambda about: about.update(class_names="red"),
    "classes are numbers": lambda about: about.update(class_names=[1, 2]),
    "more vectors": lambda about: about["prompt"].update(n_ctx=4),
    "vectors per class": lambda about: about["prompt"].update(class_specific=True),
    "unknown position": lambda about: about["prompt"].update(position="left"),
    "backbone is text": lambda about: about.update(backbone="default"),
    "name is a list": lambda about: about["backbone"].update(name=[]),
    "unknown field": lambda about: about.update(run="rm -rf"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_header_that_makes_no_sense_is_refused(
    backbone: Backbone, tmp_path: Path, what: str
) -> None:
    made(backbone).save(tmp_path / "prompt")
    rewritten(tmp_path / "prompt", CHANGES[what])
    assert "damaged" in refusal(tmp_path / "prompt", backbone)


def test_another_format_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    save_file({"context": torch.zeros(3, 32)}, tmp_path / "prompt", metadata={"format": "pt"})
    assert "no model of this version" in refusal(tmp_path / "prompt", backbone)
    save_file({"context": torch.zeros(3, 32)}, tmp_path / "prompt", metadata={"dspt-prompt-3": ""})
    assert "update dspt" in refusal(tmp_path / "prompt", backbone)


def test_version_1_is_read(backbone: Backbone, tmp_path: Path) -> None:
    model = made(backbone)
    old(tmp_path / "prompt", model)
    back = PromptModel.load(tmp_path / "prompt", backbone=backbone)
    assert torch.equal(back.context, model.context)
    assert (back.class_names, back.prompt) == (model.class_names, model.prompt)
    content = bytearray((tmp_path / "prompt").read_bytes())
    content[-1] ^= 1
    (tmp_path / "prompt").write_bytes(content)
    assert "checksum" in refusal(tmp_path / "prompt", backbone)


@pytest.mark.parametrize("kind", ["prompt", "head"])
def test_a_flipped_bit_anywhere_is_refused(backbone: Backbone, tmp_path: Path, kind: str) -> None:
    """In the header, where names and numbers could change unseen, and in the rest."""
    file = tmp_path / kind
    model: PromptModel | LinearModel = made(backbone)
    if kind == "head":
        generator = torch.Generator().manual_seed(2)
        weight, bias = torch.randn(4, 16, generator=generator), torch.randn(4, generator=generator)
        model = LinearModel(backbone, NAMES, weight, bias)
    model.save(file)
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, end, 2), *range(end, len(whole), 7)]:
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        file.write_bytes(content)
        with pytest.raises(UserError) as caught:
            type(model).load(file, backbone=backbone)
        assert len(str(caught.value).splitlines()) == 1, place
    file.write_bytes(whole)
    assert type(model).load(file, backbone=backbone).fingerprint == model.fingerprint


@pytest.mark.parametrize(
    "context",
    [torch.zeros(3, 31), torch.zeros(3, 0), torch.full((3, 32), torch.nan), torch.zeros(3, 32, 1)],
)
def test_impossible_contexts_are_refused(
    backbone: Backbone, tmp_path: Path, context: Tensor
) -> None:
    made(backbone).save(tmp_path / "prompt")
    about, _ = parts(tmp_path / "prompt")
    written(tmp_path / "prompt", json.dumps(about), context)
    assert "damaged" in refusal(tmp_path / "prompt", backbone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32])
def test_other_types_are_refused(backbone: Backbone, tmp_path: Path, dtype: torch.dtype) -> None:
    made(backbone).save(tmp_path / "prompt")
    about, context = parts(tmp_path / "prompt")
    written(tmp_path / "prompt", json.dumps(about), context.to(dtype))
    assert "another type" in refusal(tmp_path / "prompt", backbone)


def test_a_file_of_absurd_size_is_not_read(backbone: Backbone, tmp_path: Path) -> None:
    with (tmp_path / "prompt").open("wb") as file:
        file.truncate(2**40)  # takes no space
    assert "larger than" in refusal(tmp_path / "prompt", backbone)


def changed_twin(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Backbone:
    """The model of ``backbone`` with equal weights and another configuration."""
    write_model(folder)
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    return load_backbone(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("structure", lambda c: c["model_cfg"].update(quick_gelu=True)),
        ("structure", lambda c: c["model_cfg"]["text_cfg"].update(heads=1)),
        ("preprocessing", lambda c: c["preprocess_cfg"].update(mean=[0.4, 0.4, 0.4])),
        (
            "tokenizer",
            lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"clean": "canonicalize"}),
        ),
    ],
)
def test_equal_weights_in_another_model_are_refused(
    backbone: Backbone, tmp_path: Path, part: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    made(backbone).save(tmp_path / "prompt")
    twin = changed_twin(tmp_path / "twin", change)
    assert twin.fingerprint == backbone.fingerprint
    said = refusal(tmp_path / "prompt", twin)
    assert part in said
    assert backbone.name in said, "both models are named"
    assert twin.name in said
    moved = changed_twin(tmp_path / "moved", lambda config: None)
    PromptModel.load(tmp_path / "prompt", backbone=moved)


def test_a_context_that_overflows_is_noticed(backbone: Backbone) -> None:
    model = made(backbone)
    broken = PromptModel(backbone, NAMES, model.prompt, model.context * torch.inf)
    with pytest.raises(UserError, match=r"text tower.*not finite"):
        broken.logits(torch.zeros(1, 16))
