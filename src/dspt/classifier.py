"""What predicts: a frozen backbone with what was trained for it. The base of all trained models."""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from dspt.backbones import Backbone, load_backbone
from dspt.backbones.devices import clear_memory_errors
from dspt.errors import UserError
from dspt.files import atomic_path


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
class Classifier(ABC):
    """A frozen backbone and class names.

    Attributes:
        backbone: the model that it was trained for.
        class_names: C names.
    """

    backbone: Backbone
    class_names: tuple[str, ...]

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of what was trained."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """L2-normalised image features [n, D] -> logits [n, C]."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write what was trained as safetensors, with everything needed to use it."""

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
            with clear_memory_errors("predicting", "take --device cpu"):
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


def tensors_fingerprint(*tensors: Tensor) -> str:
    """SHA-256 over the bytes of tensors (little-endian fp32)."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


class BackboneReference(BaseModel):
    """The model that a file was trained for."""

    model_config = ConfigDict(extra="forbid")

    name: str
    pretrained: str | None
    precision: str
    fingerprint: str

    @classmethod
    def of(cls, backbone: Backbone) -> BackboneReference:
        """Describe a loaded backbone."""
        return cls(
            name=backbone.name,
            pretrained=backbone.pretrained,
            precision=backbone.precision,
            fingerprint=backbone.fingerprint,
        )

    def find(self, file: Path, loaded: Backbone | None, device: str) -> Backbone:
        """Load the backbone, or check that a loaded one is it.

        Raises:
            UserError: when the weights are others.
        """
        backbone = loaded or load_backbone(
            self.name, self.pretrained, device=device, precision=self.precision
        )
        if backbone.fingerprint != self.fingerprint:
            raise UserError(
                f"{file} was trained for {self.name} with weights {self.fingerprint[:12]}, "
                f"but the weights of {backbone.name} are {backbone.fingerprint[:12]}; "
                "use the same weights or train again"
            )
        return backbone


class AboutModel(BaseModel):
    """What a model file says of itself; files come from anywhere, so it is checked."""

    model_config = ConfigDict(extra="forbid")

    class_names: tuple[str, ...] = Field(min_length=2)
    backbone: BackboneReference
    sha256: str


About = TypeVar("About", bound=AboutModel)


def write_model(path: str | Path, form: str, about: AboutModel, tensors: dict[str, Tensor]) -> None:
    """Write tensors atomically with what they are.

    Args:
        path: a safetensors file.
        form: name of the format; the header's only key.
        about: goes into the header.
        tensors: by name.
    """
    from safetensors.torch import save_file

    # One entry: safetensors writes several in random order, and equal models are equal files.
    header = {form: json.dumps(about.model_dump(), sort_keys=True)}
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(Path(path)) as temporary:
        save_file(stored, temporary, metadata=header)


def read_model(
    file: Path, form: str, about: type[About], shapes: Callable[[About], dict[str, tuple[int, ...]]]
) -> tuple[About, dict[str, Tensor]]:
    """Read what :func:`write_model` wrote.

    Args:
        file: a safetensors file.
        form: name of the format.
        about: type of the header.
        shapes: by tensor name, -1 where any size is right.

    Raises:
        UserError: when the file is missing, damaged or of another format.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UserError(f"{file} does not exist; `dspt fit` writes it at the end of a run")
    try:
        with safe_open(file, framework="pt") as stored:
            header = stored.metadata() or {}
            if form not in header:
                raise UserError(
                    f"{file} is no model of this version (no {form!r} in its header); train "
                    "again with `dspt fit`"
                )
            told = about.model_validate_json(header[form])
            wanted = shapes(told)
            tensors = {name: stored.get_tensor(name) for name in wanted}
        damaged = tensors_fingerprint(*tensors.values()) != told.sha256 or any(
            len(tensors[name].shape) != len(shape)
            or any(n not in (-1, m) for n, m in zip(shape, tensors[name].shape, strict=True))
            for name, shape in wanted.items()
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
    return told, tensors
