from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from tests.models import build_model, tiny_config, write_model_folder

from dspt.backbones import Backbone, load_backbone
from dspt.configuration import PromptConfig
from dspt.errors import UserError
from dspt.outcome import backbone_info
from dspt.prompts import initial_context, text_engine

REGISTERED = "dspt-test-tiny"
TEXTS = ["a photo of a dog.", "a photo of a great white shark.", "texture"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny model"
    write_model_folder(path, tiny_config(), preprocess={"mean": [0.1, 0.2, 0.3]})
    return path


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small model under a name of its own among open_clip's."""
    path = tmp_path_factory.mktemp("configs") / f"{REGISTERED}.json"
    path.write_text(json.dumps(tiny_config()), encoding="utf-8")
    open_clip.add_model_config(path)
    yield REGISTERED
    open_clip.factory._MODEL_CONFIG_PATHS.remove(path)
    open_clip.factory._MODEL_CONFIGS.pop(REGISTERED)


def assert_same_features(backbone: Backbone, model: Any) -> None:
    expected = F.normalize(model.encode_text(open_clip.tokenize(TEXTS)), dim=-1)
    torch.testing.assert_close(backbone.encode_text(TEXTS), expected)
    pictures = torch.rand(2, 3, 32, 32)
    expected = F.normalize(model.encode_image(pictures), dim=-1)
    torch.testing.assert_close(backbone.encode_image(pictures), expected)


# Where models come from


def test_random_weights_are_the_same_every_time(registered: str) -> None:
    torch.manual_seed(1)
    first = load_backbone(registered, "none", device="cpu")
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = load_backbone(registered, "none", device="cpu")
    assert first.fingerprint == second.fingerprint
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state()), "the caller's random stream was used"


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_checkpoint_file_of_a_named_model(registered: str, ending: str, tmp_path: Path) -> None:
    model = build_model(tiny_config(), seed=3)
    file = tmp_path / f"weights.{ending}"
    if ending == "pt":
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, file)
    else:
        save_file(model.state_dict(), file)
    backbone = load_backbone(registered, str(file), device="cpu")
    assert_same_features(backbone, model)
    assert backbone.text_note == ""
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())


@pytest.mark.parametrize("prefix", ["", "local-dir:"], ids=["path", "local-dir"])
def test_a_model_folder(folder: Path, prefix: str) -> None:
    backbone = load_backbone(f"{prefix}{folder}", device="cpu")
    assert_same_features(backbone, build_model(tiny_config()))
    assert backbone.embed_dim == 24
    assert backbone.image_size == (32, 32)
    assert backbone.context_length == 77
    assert backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert backbone.preprocess_config["mean"] == [0.1, 0.2, 0.3]
    white = backbone.preprocess(Image.new("RGB", (64, 48), "white"))
    assert white.shape == (3, 32, 32)
    assert white[0].mean().item() == pytest.approx((1 - 0.1) / 0.26862954, rel=1e-4)
    info = backbone_info(backbone)
    assert info.text_path == "shared-prefix"
    assert info.fingerprint == backbone.fingerprint


def test_a_folder_with_its_random_start(folder: Path) -> None:
    weights, start = load_backbone(str(folder)), load_backbone(str(folder), "none")
    assert start.fingerprint != weights.fingerprint
    assert start.fingerprint == load_backbone(str(folder), "none").fingerprint


def test_custom_text_model_through_a_folder(tmp_path: Path) -> None:
    model = write_model_folder(tmp_path, tiny_config(proj_bias=True), custom_text=True)
    backbone = load_backbone(str(tmp_path), device="cpu")
    assert backbone.text_tower is not None
    assert_same_features(backbone, model)


def test_a_bidirectional_tower_says_that_it_runs_the_plain_way(tmp_path: Path) -> None:
    model = write_model_folder(tmp_path, tiny_config(no_causal_mask=True), custom_text=True)
    backbone = load_backbone(str(tmp_path), device="cpu")
    assert backbone.text_tower is None
    assert "bidirectional" in backbone.text_note
    assert backbone_info(backbone).text_path == "open_clip"
    names = ["dog", "great white shark"]
    start = initial_context(backbone, PromptConfig(init="a photo of a"), 2, seed=0)
    ours = text_engine(backbone, names, 4)(start[None])[0]
    ids = open_clip.tokenize([f"a photo of a {name}." for name in names])
    theirs = F.normalize(model.encode_text(ids), dim=-1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_default_model_needs_nothing() -> None:
    backbone = load_backbone(device="cpu")
    assert backbone.text_note == ""
    names = ["dog", "great white shark", "b-52"]
    start = initial_context(backbone, PromptConfig(init="a photo of a"), 3, seed=0)
    ours = text_engine(backbone, names, 4)(start[None])[0]
    theirs = backbone.zero_shot_features(names, "a photo of a {}.")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    height, width = backbone.image_size
    features = backbone.encode_image(torch.rand(2, 3, height, width))
    assert features.shape == (2, backbone.embed_dim)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


# What goes wrong, in words


@pytest.mark.parametrize(
    ("name", "pretrained", "words"),
    [
        ("ViT-B32", "openai", "did you mean .*ViT-B-32"),
        ("defualt", None, "did you mean 'default'"),
        ("zzzz", None, "'zzzz' is unknown; `dspt models` lists the names"),
        ("ViT-B-32", None, "ViT-B-32 needs weights: a tag .*openai.*none for random"),
        ("ViT-B-32", "opanai", "'opanai' is neither a tag of ViT-B-32 .*openai.* nor a file"),
        ("default", "openai", "brings its own weights"),
        ("hf-hub:someone/model", "openai", "brings its own weights"),
        ("local-dir:nowhere", None, "nowhere .*open_clip_config.json"),
    ],
)
def test_wrong_names_get_a_hint(name: str, pretrained: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_backbone(name, pretrained)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"open_clip_config\.json"):
        load_backbone(str(tmp_path))


def test_a_folder_without_weights_does_not_get_random_ones(tmp_path: Path) -> None:
    write_model_folder(tmp_path, tiny_config(), weights=False)
    with pytest.raises(UserError, match="does not load"):
        load_backbone(str(tmp_path), device="cpu")


def test_weights_of_another_shape_are_refused(registered: str, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file(build_model(tiny_config(layers=2)).state_dict(), file)
    with pytest.raises(UserError, match="does not load") as caught:
        load_backbone(registered, str(file), device="cpu")
    assert "\n" not in str(caught.value)


def test_precision_and_device_are_checked(registered: str) -> None:
    with pytest.raises(UserError, match="precision: must be fp32, fp16 or bf16, not 'int8'"):
        load_backbone(registered, "none", precision="int8")
    for device in ("cuda:99", "tpu-of-mine"):
        with pytest.raises(UserError, match=f"device: '{device}' cannot be used"):
            load_backbone(registered, "none", device=device)


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_code_in_a_checkpoint_is_not_run(registered: str, how: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "executed", tmp_path / "weights.pt"
    content = {"state_dict": Payload(str(mark))}
    if how == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match="nothing in it was run"):
        load_backbone(registered, str(file), device="cpu")
    assert not mark.exists()
    pickle.loads(pickle.dumps(content))
    assert mark.exists(), "the payload is harmless, so nothing was tested"


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    write_model_folder(tmp_path, tiny_config(), weights=False)
    mark = tmp_path / "executed"
    torch.save({"state_dict": Payload(str(mark))}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match="nothing in it was run"):
        load_backbone(str(tmp_path), device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "pretrained", "quick"),
    [("ViT-B-32", "openai", True), ("RN50", "openai", True), ("ViT-B-32", "laion2b_e16", False)],
)
def test_the_tag_decides_the_activation(
    name: str, pretrained: str, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's weights under plain GELU lose accuracy without an error."""
    asked: dict[str, Any] = {}

    def refuse(model_name: str, **options: Any) -> None:
        asked.update(options, name=model_name)
        raise RuntimeError("no download in tests")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", refuse)
    with pytest.raises(UserError, match="no download in tests"):
        load_backbone(name, pretrained)
    assert asked["name"] == name
    assert asked["pretrained"] == pretrained
    assert asked["force_quick_gelu"] is quick


# What belongs to a loaded model


def test_bf16_features_are_close_and_come_back_in_fp32(folder: Path) -> None:
    full, half = load_backbone(str(folder)), load_backbone(str(folder), precision="bf16")
    assert half.text_tower is not None
    assert half.text_tower.compute_dtype == torch.bfloat16
    pictures = torch.rand(3, 3, 32, 32)
    pairs = [
        (full.encode_text(TEXTS), half.encode_text(TEXTS)),
        (full.encode_image(pictures), half.encode_image(pictures)),
    ]
    for exact, rounded in pairs:
        assert rounded.dtype == torch.float32
        assert not torch.equal(exact, rounded)
        assert F.cosine_similarity(exact, rounded).min() > 0.999


def test_fingerprints_tell_what_changed(folder: Path) -> None:
    def fresh() -> Backbone:
        return load_backbone(str(folder), device="cpu")

    start = fresh()
    assert start.fingerprint == fresh().fingerprint
    assert start.image_fingerprint == fresh().image_fingerprint

    text = fresh()
    text.model.ln_final.bias[3] += 1e-3
    assert text.fingerprint != start.fingerprint
    assert text.image_fingerprint == start.image_fingerprint

    image = fresh()
    image.model.visual.ln_post.bias[3] += 1e-3
    assert image.fingerprint != start.fingerprint
    assert image.image_fingerprint != start.image_fingerprint

    changed = {**start.preprocess_config, "interpolation": "bilinear"}
    assert changed != start.preprocess_config
    seen_otherwise = dataclasses.replace(start, preprocess_config=changed)
    assert seen_otherwise.fingerprint == start.fingerprint
    assert seen_otherwise.image_fingerprint != start.image_fingerprint

    rounded = dataclasses.replace(start, precision="bf16")
    assert rounded.image_fingerprint != start.image_fingerprint


def test_logit_scale_is_the_models(tmp_path: Path) -> None:
    config = {**tiny_config(), "init_logit_scale": 4.6051702, "nonscalar_logit_scale": True}
    write_model_folder(tmp_path, config)
    assert load_backbone(str(tmp_path)).logit_scale == pytest.approx(100.0, rel=1e-5)


def test_long_lists_of_texts_are_encoded_in_parts(folder: Path) -> None:
    backbone = load_backbone(str(folder), device="cpu")
    torch.testing.assert_close(
        backbone.encode_text(TEXTS, batch_size=2), backbone.encode_text(TEXTS)
    )
