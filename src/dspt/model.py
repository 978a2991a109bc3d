"""A trained prompt with the model it belongs to: what predicts."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from dspt.backbones import Backbone, load_backbone
from dspt.configuration import PromptConfig
from dspt.errors import UserError
from dspt.files import atomic_path
from dspt.run_folder import PROMPT_FILE

FORMAT = "dspt-prompt-1"


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first."""

    image: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.labels[0]


@dataclass(frozen=True)
class PromptModel:
    """A classifier: frozen backbone, class names and trained context vectors.

    Attributes:
        backbone: the model that the prompt was trained for.
        class_names: C names.
        prompt: layout of the prompt, ``n_ctx`` filled in.
        context: [M, W] or [C, M, W], fp32.
    """

    backbone: Backbone
    class_names: tuple[str, ...]
    prompt: PromptConfig
    context: Tensor

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
            return engine(self.context[None])[0]

    def logits(self, features: Tensor) -> Tensor:
        """Image features [n, D] -> scaled logits [n, C]."""
        return self.backbone.logit_scale * features @ self.class_features.t()

    def predict(
        self, images: Sequence[str | Path], top: int = 1, batch_size: int = 32
    ) -> list[Prediction]:
        """Classify picture files.

        Args:
            images: paths.
            top: how many classes to return for each.
            batch_size: pictures per forward pass.

        Raises:
            UserError: when a picture cannot be read.
        """
        return list(self.iter_predict(images, top, batch_size))

    def iter_predict(
        self,
        images: Iterable[str | Path],
        top: int = 1,
        batch_size: int = 32,
        on_unreadable: Callable[[str], None] | None = None,
    ) -> Iterator[Prediction]:
        """As :meth:`predict`, one batch in memory at a time.

        With ``on_unreadable``, a picture that cannot be read is left out and the function is told
        why, instead of an error.
        """
        top = min(top, len(self.class_names))
        stream = iter(images)
        while paths := [Path(image) for image in itertools.islice(stream, batch_size)]:
            read: list[tuple[Path, Tensor]] = []
            for path in paths:
                try:
                    read.append((path, self._read(path)))
                except UserError as error:
                    if on_unreadable is None:
                        raise
                    on_unreadable(str(error))
            if not read:
                continue
            features = self.backbone.encode_image(torch.stack([tensor for _, tensor in read]))
            probabilities, classes = self.logits(features).softmax(dim=-1).topk(top, dim=-1)
            for (path, _), p, c in zip(read, probabilities.tolist(), classes.tolist(), strict=True):
                yield Prediction(str(path), tuple(self.class_names[k] for k in c), tuple(p))

    def _read(self, path: Path) -> Tensor:
        from dspt.data import open_image

        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        return self.backbone.preprocess(open_image(data, str(path)))

    def save(self, path: Path) -> None:
        """Write the context vectors as safetensors, with everything needed to use them."""
        from safetensors.torch import save_file

        context = self.context.detach().cpu().contiguous()
        about = {
            "class_names": list(self.class_names),
            "prompt": self.prompt.model_dump(),
            "backbone": {
                "name": self.backbone.name,
                "pretrained": self.backbone.pretrained,
                "precision": self.backbone.precision,
                "fingerprint": self.backbone.fingerprint,
            },
            "sha256": context_fingerprint(context),
        }
        # One entry: safetensors writes several in random order, and equal prompts are equal files.
        header = {FORMAT: json.dumps(about, sort_keys=True)}
        with atomic_path(path) as temporary:
            save_file({"context": context}, temporary, metadata=header)

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
            UserError: when the file is missing, damaged or of another format, or the backbone's
                weights are not those that the prompt was trained for.
        """
        file = Path(path)
        if file.is_dir():
            file = file / PROMPT_FILE
        about, context = _read(file)
        wanted = about.backbone
        if backbone is None:
            backbone = load_backbone(
                wanted.name, wanted.pretrained, device=device, precision=wanted.precision
            )
        if backbone.fingerprint != wanted.fingerprint:
            raise UserError(
                f"{file} was trained for {wanted.name} with weights "
                f"{wanted.fingerprint[:12]}, "
                f"but the weights of {backbone.name} are {backbone.fingerprint[:12]}; "
                "use the same weights or train again"
            )
        return cls(
            backbone=backbone,
            class_names=about.class_names,
            prompt=about.prompt,
            context=context.to(backbone.device),
        )


def context_fingerprint(context: Tensor) -> str:
    """SHA-256 over the bytes of the context vectors (little-endian fp32)."""
    return hashlib.sha256(context.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()


class _BackboneReference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    pretrained: str | None
    precision: str
    fingerprint: str


class _About(BaseModel):
    """What a prompt file says of itself; files come from anywhere, so it is checked."""

    model_config = ConfigDict(extra="forbid")

    class_names: tuple[str, ...] = Field(min_length=2)
    prompt: PromptConfig
    backbone: _BackboneReference
    sha256: str

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of the context vectors, but for their width."""
        classes = (len(self.class_names),) if self.prompt.class_specific else ()
        return (*classes, self.prompt.n_ctx)


def _read(file: Path) -> tuple[_About, Tensor]:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UserError(f"{file} does not exist; `dspt fit` writes it at the end of a run")
    try:
        with safe_open(file, framework="pt") as stored:
            header = stored.metadata() or {}
            if FORMAT not in header:
                raise UserError(
                    f"{file} is no prompt of this version (no {FORMAT!r} in its header); train "
                    "again with `dspt fit`"
                )
            about = _About.model_validate_json(header[FORMAT])
            context = stored.get_tensor("context")
        damaged = tuple(context.shape[:-1]) != about.shape or (
            context_fingerprint(context) != about.sha256
        )
    except UserError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its header"
        raise UserError(
            f"{file} is damaged ({where}: {first['msg']}); train again with `dspt fit`"
        ) from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}); train again with `dspt fit`") from None
    if damaged:
        raise UserError(f"{file} is damaged (its checksum differs); train again with `dspt fit`")
    return about, context
