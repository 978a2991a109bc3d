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

if TYPE_CHECKING:
    from PIL.Image import Image


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
        """Preprocessed pictures [n, 3, height, width] -> L2-normalised features [n, D], fp32."""
        batch = images.to(self.device, self.input_dtype, memory_format=torch.channels_last)
        return F.normalize(self.model.encode_image(batch).float(), dim=-1)  # type: ignore[operator]

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Texts -> L2-normalised features [n, D] in fp32, by open_clip's own forward pass."""
        rows = []
        for start in range(0, len(texts), batch_size):
            ids = self.tokenizer(list(texts[start : start + batch_size])).to(self.device)
            rows.append(F.normalize(self.model.encode_text(ids).float(), dim=-1))  # type: ignore[operator]
        return torch.cat(rows)

    def zero_shot_features(self, class_names: Sequence[str], template: str) -> Tensor:
        """Features of the classes under one template, [C, D], normalised."""
        return self.encode_text([template.replace("{}", name) for name in class_names])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, shapes, types and bytes of all weights."""
        return _hash_state(self.model, lambda name: True)

    @cached_property
    def image_fingerprint(self) -> str:
        """SHA-256 over what decides an image feature: weights, precision, preprocessing."""
        state = _hash_state(self.model, lambda name: name.startswith("visual."))
        settings = json.dumps(self.preprocess_config, sort_keys=True, default=str)
        return hashlib.sha256(f"{state}\n{self.precision}\n{settings}".encode()).hexdigest()


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
