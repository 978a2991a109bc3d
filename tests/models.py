"""Small random open_clip models for tests: real code paths, a fraction of a second to build.

open_clip starts biases at 0 and norms at 1, which hides mistakes; here every parameter is random.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from torch import Tensor, nn

from dspt.backbones import Backbone, UnsupportedTower, take_text_tower

TINY_VISION = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1}
TINY_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
EMBED_DIM = 24


@lru_cache(maxsize=1)
def clip_tokenizer() -> Callable[[Sequence[str]], Tensor]:
    """CLIP's own BPE tokenizer, 77 tokens."""
    return open_clip.get_tokenizer("ViT-B-32")


def tiny_config(*, embed_dim: int = EMBED_DIM, quick_gelu: bool = False, **text: Any) -> dict:
    """``model_cfg`` of a tiny CLIP; keyword arguments change its text tower."""
    return {
        "embed_dim": embed_dim,
        "quick_gelu": quick_gelu,
        "vision_cfg": dict(TINY_VISION),
        "text_cfg": {**TINY_TEXT, **text},
    }


def real_config(name: str, *, layers: int | None = None) -> dict:
    """``model_cfg`` of open_clip's model ``name`` with a tiny image tower, perhaps fewer layers."""
    config = open_clip.get_model_config(name)
    config["vision_cfg"] = dict(TINY_VISION)
    if layers is not None:
        config["text_cfg"]["layers"] = layers
    return config


def build_model(config: dict, *, custom_text: bool = False, seed: int = 0) -> nn.Module:
    """A frozen open_clip model in evaluation mode, every parameter random."""
    config = deepcopy(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (CustomTextCLIP if custom_text else CLIP)(**config)
        randomise(model, seed)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Move what open_clip starts at a constant: norms, biases, layer scales, positions."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("logit_scale"):
            continue
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        elif name.endswith("positional_embedding"):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def backbone_of(
    model: nn.Module, tokenizer: Callable[[Sequence[str]], Tensor] | None = None
) -> Backbone:
    """A backbone around a model built here, without the way through files."""
    try:
        tower, note = take_text_tower(model), ""
    except UnsupportedTower as reason:
        tower, note = None, str(reason)
    return Backbone(
        name="tiny",
        pretrained=None,
        model=model,
        preprocess=lambda image: torch.zeros(3, 32, 32),
        preprocess_config={"size": 32},
        tokenizer=tokenizer or clip_tokenizer(),
        device=torch.device("cpu"),
        precision="fp32",
        text_tower=tower,
        text_note=note,
    )


@lru_cache(maxsize=1)
def tiny_backbone() -> Backbone:
    """Tiny CLIP, fp32. Shared by tests: do not change it."""
    return backbone_of(build_model(tiny_config()))


@lru_cache(maxsize=1)
def tiny_backbone_fp64() -> Backbone:
    """The same model in float64. Shared by tests: do not change it."""
    return backbone_of(build_model(tiny_config()).double())


def write_model_folder(
    folder: Path,
    config: dict,
    *,
    custom_text: bool = False,
    seed: int = 0,
    preprocess: dict | None = None,
    weights: bool = True,
) -> nn.Module:
    """Write ``open_clip_config.json`` and weights, as open_clip saves them; returns the model."""
    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(config, custom_text=custom_text, seed=seed)
    described = {**config, "custom_text": True} if custom_text else config
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": described, "preprocess_cfg": preprocess or {}}), encoding="utf-8"
    )
    if weights:
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
    return model


class WordTokenizer:
    """One token a word: what a tokenizer may do differently from CLIP's, in a few lines.

    Args:
        length: tokens a row.
        start: id put before the words, or None (SigLIP's has none).
        end: id put after them.
        pad: id of the padding; may be ``end`` itself, as in SigLIP's.
        stop: id of a full stop, or None to drop punctuation.
    """

    def __init__(
        self, length: int = 16, *, start: int | None, end: int, pad: int, stop: int | None
    ) -> None:
        self.length, self.start, self.end, self.pad, self.stop = length, start, end, pad, stop
        self.words: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            words = text.replace(".", " . ").split()
            ids = [self.stop if w == "." else self._id(w) for w in words]
            ids = [i for i in ids if i is not None]
            ids = [*([] if self.start is None else [self.start]), *ids, self.end]
            ids = ids[: self.length]
            rows.append([*ids, *([self.pad] * (self.length - len(ids)))])
        return torch.tensor(rows)

    def _id(self, word: str) -> int:
        return self.words.setdefault(word, 10 + len(self.words))
