"""Every text tower that is taken computes what open_clip computes; every other one is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CLIPTextCfg
from tests.models import (
    TINY_TEXT,
    TINY_VISION,
    backbone_of,
    build_model,
    clip_tokenizer,
    real_config,
    tiny_config,
)
from torch import nn

from dspt.backbones import Backbone, UnsupportedTower, take_text_tower
from dspt.configuration import PromptConfig
from dspt.prompts import initial_context, text_engine

NAMES = ["dog", "great white shark", "siberian husky", "b-52"]
EOT = 49407
WITH_EOS = pytest.mark.skipif(
    "eos_id" not in CLIPTextCfg.__dataclass_fields__, reason="this open_clip has no eos pooling"
)

FAMILIES = [
    "ViT-B-32",
    "ViT-B-32-quickgelu",
    "ViT-B-16",
    "ViT-B-16-quickgelu",
    "ViT-L-14",
    "ViT-L-14-quickgelu",
    "RN50",
    "RN50-quickgelu",
]


def assert_same_as_open_clip(backbone: Backbone) -> None:
    """Our engine with the tokens of "a photo of a" against open_clip on the written-out texts."""
    start = initial_context(backbone, PromptConfig(init="a photo of a"), len(NAMES), seed=0)
    with torch.no_grad():
        ours = text_engine(backbone, NAMES, 4)(start[None])[0]
        ids = backbone.tokenizer([f"a photo of a {name}." for name in NAMES])
        theirs = F.normalize(backbone.model.encode_text(ids).float(), dim=-1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (theirs[0] - theirs[1]).norm() > 0.005, "all texts alike: nothing was compared"


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_open_clip(name: str) -> None:
    model = build_model(real_config(name, layers=2))
    backbone = backbone_of(model)
    assert backbone.text_tower is not None, backbone.text_note
    assert backbone.text_tower.width == real_config(name)["text_cfg"]["width"]
    assert_same_as_open_clip(backbone)


def test_full_depth() -> None:
    backbone = backbone_of(build_model(real_config("ViT-B-32")))
    assert backbone.text_tower is not None
    assert len(backbone.text_tower.blocks) == 12
    assert_same_as_open_clip(backbone)


@pytest.mark.parametrize(
    "text",
    [
        {},
        {"layers": 1},
        {"layers": 2},
        {"heads": 1},
        {"mlp_ratio": 2.5},
        {"ls_init_value": 0.5},
        pytest.param({"pool_type": "eos", "eos_id": EOT}, marks=WITH_EOS),
        {"pool_type": "last"},
        {"proj_bias": True},
        {"proj_type": "none", "width": 24},
        {"norm_kwargs": {"eps": 1e-2}},
        {"act_kwargs": {"approximate": "tanh"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("custom_text", [False, True], ids=["CLIP", "CustomTextCLIP"])
def test_variants_of_the_text_tower(text: dict[str, Any], custom_text: bool) -> None:
    backbone = backbone_of(build_model(tiny_config(**text), custom_text=custom_text))
    assert backbone.text_tower is not None, backbone.text_note
    assert_same_as_open_clip(backbone)


@pytest.mark.parametrize("custom_text", [False, True], ids=["CLIP", "CustomTextCLIP"])
def test_activation_is_the_models(custom_text: bool) -> None:
    features = []
    for quick_gelu in (False, True):
        model = build_model(tiny_config(quick_gelu=quick_gelu), custom_text=custom_text)
        backbone = backbone_of(model)
        assert_same_as_open_clip(backbone)
        context = torch.zeros(1, 1, 32)
        features.append(text_engine(backbone, NAMES, 1)(context))
    assert (features[0] - features[1]).abs().max() > 1e-4, "the two activations look the same"


def test_tensors_are_shared_not_copied() -> None:
    model = build_model(tiny_config())
    tower = take_text_tower(model)
    block, theirs = tower.blocks[1], model.transformer.resblocks[1]
    assert tower.token_embedding.data_ptr() == model.token_embedding.weight.data_ptr()
    assert block.qkv_weight.data_ptr() == theirs.attn.in_proj_weight.data_ptr()
    assert block.fc_weight.data_ptr() == theirs.mlp.c_fc.weight.data_ptr()


def test_releases_of_open_clip_without_eos_pooling() -> None:
    """open_clip 3.0 has neither ``text_eos_id`` nor ``eos_id``."""
    plain, custom = build_model(tiny_config()), build_model(tiny_config(), custom_text=True)
    for owner, name in ((plain, "text_eos_id"), (custom.text, "eos_id")):
        if hasattr(owner, name):
            delattr(owner, name)
    for model in (plain, custom):
        assert take_text_tower(model).pooling == "argmax"


def tiny_coca() -> nn.Module:
    text = {**TINY_TEXT, "embed_cls": True, "context_length": 76}
    vision = {**TINY_VISION, "attentional_pool": True, "attn_pooler_heads": 2}
    other = {"context_length": 76, "vocab_size": 99, "width": 32, "heads": 2, "layers": 1}
    return CoCa(embed_dim=24, multimodal_cfg=other, text_cfg=text, vision_cfg=vision)


def with_other_mask() -> nn.Module:
    model = build_model(tiny_config())
    model.attn_mask[3, 1] = float("-inf")
    return model


def with_other_block() -> nn.Module:
    model = build_model(tiny_config())
    model.transformer.resblocks[2].__class__ = type(
        "Twisted", (type(model.transformer.resblocks[2]),), {}
    )
    return model


class Subclass(CLIP):
    """A CLIP that computes something of its own."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: build_model(tiny_config(no_causal_mask=True)), "bidirectional"),
        (lambda: build_model(tiny_config(no_causal_mask=True), custom_text=True), "bidirectional"),
        (lambda: build_model(tiny_config(embed_cls=True), custom_text=True), "class token"),
        (lambda: build_model(tiny_config(pool_type="first")), "'first'"),
        (lambda: build_model(tiny_config(qk_norm=True)), "CustomResidualAttentionBlock"),
        (lambda: build_model(tiny_config(scale_fc=True)), "CustomResidualAttentionBlock"),
        (lambda: build_model(tiny_config(block_type="custom")), "CustomResidualAttentionBlock"),
        (with_other_mask, "not the causal one"),
        (with_other_block, "Twisted"),
        (lambda: Subclass(**tiny_config()), "Subclass"),
        (tiny_coca, "TextTransformer"),
        (lambda: nn.Linear(2, 2), "Linear"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_works_differently_is_refused_with_the_reason(make: Any, reason: str) -> None:
    with pytest.raises(UnsupportedTower, match=reason):
        take_text_tower(make())


@pytest.mark.parametrize(
    "text",
    [{"no_causal_mask": True}, {"pool_type": "first"}, {"qk_norm": True}, {"scale_fc": True}],
    ids=str,
)
def test_a_refused_tower_runs_through_open_clips_own_pass(text: dict[str, Any]) -> None:
    backbone = backbone_of(build_model(tiny_config(**text), custom_text=True))
    assert backbone.text_tower is None
    assert backbone.text_note
    if text == {"pool_type": "first"}:  # [SOS] of a causal tower says nothing of the text
        return
    assert_same_as_open_clip(backbone)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({}, [2, 4]),
        pytest.param({"pool_type": "eos", "eos_id": EOT}, [2, 4], marks=WITH_EOS),
        ({"pool_type": "last"}, [76, 76]),
    ],
    ids=["argmax", "eos", "last"],
)
def test_read_positions(text: dict[str, Any], expected: list[int]) -> None:
    ids = clip_tokenizer()(["dog", "great white shark"])
    assert (
        take_text_tower(build_model(tiny_config(**text))).read_positions(ids).tolist() == expected
    )
