"""A frozen CLIP-like model with everything that belongs to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dspt.backbones.text_tower import TextTower
from dspt.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

_DECIDING = (
    "num_heads",
    "heads",
    "eps",
    "stride",
    "padding",
    "dilation",
    "approximate",
    "pool_type",
    "text_pool_type",
    "global_pool",
    "num_prefix_tokens",
    "final_ln_after_pool",
    "no_causal_mask",
)
"""Attributes of modules that change what equal weights compute."""

_READS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
"""Settings of open_clip's preprocessing."""


@dataclass(frozen=True)
class Backbone:
    """A model of open_clip, frozen and in evaluation mode.

    Preprocessing, tokenizer and logit scale are the model's own.

    Attributes:
        name: as given to :func:`dspt.load_backbone`.
        pretrained: tag or file of the weights, None where the name says it all or for no weights.
        model: the open_clip module.
        preprocess: PIL image -> tensor [3, height, width].
        preprocess_config: what decides the preprocessing (size, mean, std, interpolation, ...).
        tokenizer: texts -> token ids [n, context length].
        device: where the model lies.
        precision: "fp32", "fp16" or "bf16"; features always come back in fp32.
        text_tower: the frozen form of the text tower, None when it could not be taken.
        text_note: why not, "" when it was.
    """

    name: str
    pretrained: str | None
    model: nn.Module
    preprocess: Callable[[Image], Tensor]
    preprocess_config: dict[str, Any]
    tokenizer: Callable[[Sequence[str]], Tensor]
    device: torch.device
    precision: str
    text_tower: TextTower | None
    text_note: str

    @cached_property
    def logit_scale(self) -> float:
        """The factor on the cosine similarity, ``exp(model.logit_scale)``; 100 for OpenAI CLIP."""
        scale = self.model.logit_scale
        assert isinstance(scale, Tensor)
        return float(scale.detach().float().exp().mean())

    @cached_property
    def embed_dim(self) -> int:
        """Dimension D of the features."""
        return self.encode_text(["a"]).shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that the image tower sees."""
        size = self.preprocess_config["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def context_length(self) -> int:
        """Tokens per text, padding included."""
        return int(self.tokenizer(["a"]).shape[1])

    @property
    def input_dtype(self) -> torch.dtype:
        """Type in which the image tower takes its input."""
        return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision, torch.float32)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Preprocessed pictures [n, 3, height, width] -> L2-normalised features [n, D], fp32.

        Raises:
            UserError: as :meth:`checked`.
        """
        batch = images.to(self.device, self.input_dtype, memory_format=torch.channels_last)
        features = F.normalize(self.model.encode_image(batch).float(), dim=-1)  # type: ignore[operator]
        return self.checked(features, "image tower")

    def checked(self, features: Tensor, tower: str) -> Tensor:
        """L2-normalised features [..., D] as they are, once it is sure that they are directions.

        A tower in half precision may overflow; what is not a number would pass through a softmax,
        an argmax or a cache without a word.

        Raises:
            UserError: when one is zero or not finite.
        """
        if bool(((features.norm(dim=-1) - 1).abs() < 1e-3).all()):
            return features
        mend = "try bf16 or fp32" if self.precision == "fp16" else "check the weights"
        raise UserError(
            f"the {tower} of {self.name} in {self.precision} gives a feature that is zero or not "
            f"finite; {mend}"
        )

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Texts -> L2-normalised features [n, D] in fp32, by open_clip's own forward pass.

        Raises:
            UserError: as :meth:`checked`.
        """
        rows = []
        for start in range(0, len(texts), batch_size):
            ids = self.tokenizer(list(texts[start : start + batch_size])).to(self.device)
            rows.append(F.normalize(self.model.encode_text(ids).float(), dim=-1))  # type: ignore[operator]
        return self.checked(torch.cat(rows), "text tower")

    def zero_shot_features(self, class_names: Sequence[str], template: str) -> Tensor:
        """Features of the classes under one template, [C, D], normalised."""
        return self.encode_text([template.replace("{}", name) for name in class_names])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, shapes, types and bytes of all weights."""
        return _hash_state(self.model, lambda name: True)

    @cached_property
    def image_fingerprint(self) -> str:
        """SHA-256 over what decides an image feature: weights, structure, precision, preprocessing.

        Weights alone do not: under GELU and under quick-GELU, equal ones compute different things.
        """
        state = _hash_state(self.model, lambda name: name.startswith("visual."))
        structure = _hash_structure(self.model.visual)
        settings = json.dumps(self.preprocess_config, sort_keys=True, default=str)
        said = f"{state}\n{structure}\n{self.precision}\n{settings}"
        return hashlib.sha256(said.encode()).hexdigest()

    def behaviour(self, texts: Sequence[str]) -> dict[str, str]:
        """SHA-256 of each thing beside the weights that decides what the model makes of its input.

        Args:
            texts: for which the tokenizer must give the same token ids.

        Returns:
            By name: "structure" (activations, heads, pooling, masks, ...), "preprocessing" and
            "tokenizer".
        """
        settings = {name: self.preprocess_config.get(name) for name in _READS}
        read = json.dumps(settings, sort_keys=True, default=str)
        ids = self.tokenizer(["a photo of a", *texts])
        return {
            "structure": _hash_structure(self.model),
            "preprocessing": hashlib.sha256(read.encode()).hexdigest(),
            "tokenizer": hashlib.sha256(json.dumps(ids.tolist()).encode()).hexdigest(),
        }


def _hash_structure(module: Any) -> str:
    """SHA-256 over what equal weights do not say: activations, attributes, unsaved buffers.

    Names of other classes are left out, so that a newer open_clip that only tidies up is no other
    model.
    """
    digest = hashlib.sha256()
    saved = module.state_dict().keys()
    for name, part in module.named_modules():
        told = {key: vars(part)[key] for key in _DECIDING if key in vars(part)}
        leaf = not any(True for _ in part.children()) and not any(True for _ in part.parameters())
        if leaf and not isinstance(part, nn.Identity | nn.Dropout):
            told["type"] = type(part).__name__
        if told:
            digest.update(f"{name} {json.dumps(told, sort_keys=True, default=str)}\n".encode())
    for name, buffer in sorted(module.named_buffers()):
        if name not in saved:
            digest.update(f"{name} {tuple(buffer.shape)}\n".encode())
            digest.update(buffer.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _hash_state(model: nn.Module, wanted: Callable[[str], bool]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not wanted(name):
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        raw = tensor.detach().cpu().contiguous().flatten()
        if raw.numel():
            digest.update(raw.view(torch.uint8).numpy().data)
    return digest.hexdigest()
