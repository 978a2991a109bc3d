"""A trained prompt with the model it belongs to, and the linear head of a method without one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from dspt.backbones import Backbone
from dspt.classifier import (
    AboutModel,
    BackboneReference,
    Classifier,
    ModelFormat,
    read_model,
    tensors_fingerprint,
    write_model,
)
from dspt.configuration import PromptConfig
from dspt.errors import UserError
from dspt.run_folder import HEAD_FILE, PROMPT_FILE


@dataclass(frozen=True)
class PromptModel(Classifier):
    """A classifier: frozen backbone, class names and trained context vectors.

    Attributes:
        backbone: the model that the prompt was trained for.
        class_names: C names.
        prompt: layout of the prompt, ``n_ctx`` filled in.
        context: [M, W] or [C, M, W], fp32.
    """

    prompt: PromptConfig
    context: Tensor

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the context vectors."""
        return tensors_fingerprint(self.context)

    @cached_property
    def class_features(self) -> Tensor:
        """L2-normalised features of the classes, [C, D] fp32; computed once."""
        from dspt.prompts import text_engine

        engine = text_engine(
            self.backbone,
            self.class_names,
            self.context.shape[-2],
            position=self.prompt.position,
            class_specific=self.prompt.class_specific,
        )
        with torch.no_grad():
            return self.backbone.checked(engine(self.context[None])[0], "text tower")

    def logits(self, features: Tensor) -> Tensor:
        """Image features [n, D] -> scaled logits [n, C]."""
        return self.backbone.logit_scale * features @ self.class_features.t()

    def with_classes(self, class_names: tuple[str, ...]) -> PromptModel:
        """The same context vectors before other class names.

        Raises:
            UserError: when every class has context vectors of its own.
        """
        if self.prompt.class_specific:
            raise UserError(
                "class-specific context vectors cannot name other classes; train a shared context"
            )
        return PromptModel(self.backbone, class_names, self.prompt, self.context)

    def save(self, path: str | Path) -> None:
        """Write the context vectors as safetensors, with everything needed to use them."""
        about = _AboutPrompt(
            class_names=self.class_names,
            prompt=self.prompt,
            backbone=BackboneReference.of(self.backbone, self.class_names),
        )
        write_model(path, PROMPT_FORMAT, about, {"context": self.context})

    @classmethod
    def load(
        cls, path: str | Path, *, backbone: Backbone | None = None, device: str = "auto"
    ) -> PromptModel:
        """Load a saved prompt and its backbone.

        Args:
            path: a run's folder or its ``prompt.safetensors``.
            backbone: an already loaded model to use; it must be the one the prompt was trained for.
            device: where to load the backbone otherwise.

        Raises:
            UserError: when the file is missing, damaged or of another format, or the backbone is
                not the one that the prompt was trained for.
        """
        from dspt.prompts.plain import embedding_module

        file = Path(path)
        if file.is_dir():
            file = file / PROMPT_FILE
        about, tensors = read_model(file, PROMPT_FORMAT)
        backbone = about.backbone.find(file, backbone, device, about.class_names)
        if tensors["context"].shape[-1] != embedding_module(backbone.model).embedding_dim:
            raise UserError(f"{file} is damaged (its width is not the backbone's); train again")
        context = tensors["context"].to(backbone.device)
        return cls(backbone, about.class_names, about.prompt, context)


@dataclass(frozen=True)
class LinearModel(Classifier):
    """A classifier that is linear in the image features: a bound (zero-shot, linear probe).

    Attributes:
        backbone: gives the image features.
        class_names: C names.
        weight: [C, D], fp32.
        bias: [C], fp32.
    """

    weight: Tensor
    bias: Tensor

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weight and bias."""
        return tensors_fingerprint(self.weight, self.bias)

    def logits(self, features: Tensor) -> Tensor:
        """Image features [n, D] -> logits [n, C]."""
        return features @ self.weight.t() + self.bias

    def save(self, path: str | Path) -> None:
        """Write weight and bias as safetensors, with everything needed to use them."""
        about = AboutModel(
            class_names=self.class_names,
            backbone=BackboneReference.of(self.backbone, self.class_names),
        )
        write_model(path, HEAD_FORMAT, about, {"weight": self.weight, "bias": self.bias})

    @classmethod
    def load(
        cls, path: str | Path, *, backbone: Backbone | None = None, device: str = "auto"
    ) -> LinearModel:
        """Load a saved head; arguments and errors as for :meth:`PromptModel.load`."""
        file = Path(path)
        if file.is_dir():
            file = file / HEAD_FILE
        about, tensors = read_model(file, HEAD_FORMAT)
        backbone = about.backbone.find(file, backbone, device, about.class_names)
        if tensors["weight"].shape[1] != backbone.embed_dim:
            raise UserError(f"{file} is damaged (its width is not the backbone's); train again")
        weight, bias = (tensors[name].to(backbone.device) for name in ("weight", "bias"))
        return cls(backbone, about.class_names, weight, bias)


def load_model(
    path: str | Path, *, backbone: Backbone | None = None, device: str = "auto"
) -> PromptModel | LinearModel:
    """Load what a run trained, whichever it is.

    Args:
        path: a run's folder, or one of its model files.
        backbone, device: as for :meth:`PromptModel.load`.

    Raises:
        UserError: as :meth:`PromptModel.load`.
    """
    file = Path(path)
    linear = file.name == HEAD_FILE or (file / HEAD_FILE).is_file()
    return (LinearModel if linear else PromptModel).load(path, backbone=backbone, device=device)


class _AboutPrompt(AboutModel):
    prompt: PromptConfig

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the context vectors, but for their width."""
        classes = (len(self.class_names),) if self.prompt.class_specific else ()
        return {"context": (*classes, self.prompt.n_ctx or 0, -1)}


PROMPT_FORMAT = ModelFormat("dspt-prompt", _AboutPrompt, _AboutPrompt.shapes)
HEAD_FORMAT = ModelFormat(
    "dspt-head",
    AboutModel,
    lambda told: {"weight": (len(told.class_names), -1), "bias": (len(told.class_names),)},
)
