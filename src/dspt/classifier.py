"""What predicts: a frozen backbone with what was trained for it. The base of all trained models."""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from dspt.backbones import Backbone, load_backbone
from dspt.backbones.devices import clear_memory_errors
from dspt.errors import UserError
from dspt.files import write_tensors


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

        Raises:
            UserError: as :meth:`predict`; also when ``top`` or ``batch_size`` is below 1.
        """
        if top < 1 or batch_size < 1:
            raise UserError(f"top and batch_size must be at least 1, not {top} and {batch_size}")
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
        from dspt.data.stores import read_picture

        return self.backbone.preprocess(open_image(read_picture(path, str(path)), str(path)))


def tensors_fingerprint(*tensors: Tensor) -> str:
    """SHA-256 over the bytes of tensors (little-endian fp32)."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


class BackboneReference(BaseModel):
    """The model that a file was trained for.

    Attributes:
        name, pretrained, precision: as given to :func:`dspt.load_backbone`.
        fingerprint: of the weights.
        behaviour: of all else that decides what it computes, :meth:`Backbone.behaviour`; empty in
            files of format 1.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    pretrained: str | None
    precision: str
    fingerprint: str
    behaviour: dict[str, str] = {}

    @classmethod
    def of(cls, backbone: Backbone, class_names: Sequence[str] = ()) -> BackboneReference:
        """Describe a loaded backbone, and how it reads the class names."""
        return cls(
            name=backbone.name,
            pretrained=backbone.pretrained,
            precision=backbone.precision,
            fingerprint=backbone.fingerprint,
            behaviour=backbone.behaviour(class_names),
        )

    def find(
        self, file: Path, loaded: Backbone | None, device: str, class_names: Sequence[str] = ()
    ) -> Backbone:
        """Load the backbone, or check that a loaded one is it.

        Args:
            file: named in errors.
            loaded: to be checked.
            device: where to load it otherwise.
            class_names: as for :meth:`of`.

        Raises:
            UserError: when weights, structure, preprocessing or tokenizer are others.
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
        found = backbone.behaviour(class_names)
        for part, told in self.behaviour.items():
            if found.get(part, told) != told:
                raise UserError(
                    f"{file} was trained for {self.name} with {part} {told[:12]}, but the {part} "
                    f"of {backbone.name} is {found[part][:12]} (with equal weights); use the "
                    "model as it was or train again"
                )
        return backbone


class AboutModel(BaseModel):
    """What a model file says of itself; files come from anywhere, so it is checked."""

    model_config = ConfigDict(extra="forbid")

    class_names: tuple[str, ...] = Field(min_length=2)
    backbone: BackboneReference

    @field_validator("class_names")
    @classmethod
    def _check_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("two classes have the same name")
        return value


About = TypeVar("About", bound=AboutModel)

LARGEST_FILE = 4 * 2**30
"""Bytes of a model file that are still believed; 20,000 classes with contexts of their own fit."""


@dataclass(frozen=True)
class ModelFormat(Generic[About]):
    """A kind of model file.

    Attributes:
        name: of the kind; with the version it is the header's only key.
        about: type of the header.
        shapes: of the tensors by name, all fp32, -1 where any size is right.
    """

    name: str
    about: type[About]
    shapes: Callable[[About], dict[str, tuple[int, ...]]]

    VERSION: ClassVar[int] = 2
    """Version 1 had a checksum over the tensors alone, in ``about.sha256``; it is still read."""


def write_model(
    path: str | Path, form: ModelFormat[About], about: About, tensors: dict[str, Tensor]
) -> None:
    """Write tensors atomically with what they are and a checksum over both.

    Args:
        path: a safetensors file.
        form: of the file.
        about: goes into the header.
        tensors: by name.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = json.dumps(about.model_dump(), sort_keys=True)
    # One entry: safetensors writes several in random order, and equal models are equal files.
    entry = json.dumps({"checksum": _checksum(told, stored), "about": told})
    write_tensors(Path(path), stored, {f"{form.name}-{form.VERSION}": entry})


def read_model(file: Path, form: ModelFormat[About]) -> tuple[About, dict[str, Tensor]]:
    """Read what :func:`write_model` wrote, in this version or an older one.

    Raises:
        UserError: when the file is missing, damaged or of another format.
    """
    from safetensors import SafetensorError, safe_open

    def refusal(why: str) -> UserError:
        return UserError(f"{file} is damaged ({why}); train again with `dspt fit`")

    if not file.is_file():
        raise UserError(f"{file} does not exist; `dspt fit` writes it at the end of a run")
    if file.stat().st_size > LARGEST_FILE:
        raise UserError(f"{file} is larger than {LARGEST_FILE >> 30} GiB: no model of ours is")
    try:
        with safe_open(file, framework="pt") as stored:
            entry, version = _entry(file, form.name, stored.metadata() or {})
            told, checksum = _unpacked(entry, version)
            about = form.about.model_validate_json(told)
            wanted = form.shapes(about)
            for name, shape in wanted.items():  # before anything is taken into memory
                view = stored.get_slice(name)
                found = view.get_shape()
                if view.get_dtype() != "F32" or len(found) != len(shape):
                    raise refusal(f"{name} has another type or shape than it says")
                if any(n not in (-1, m) for n, m in zip(shape, found, strict=True)):
                    raise refusal(f"{name} has another shape than it says")
            tensors = {name: stored.get_tensor(name) for name in wanted}
    except UserError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its header"
        raise refusal(f"{where}: {first['msg']}") from None
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise refusal(str(error).splitlines()[0] if str(error) else "its header") from None
    right = (
        tensors_fingerprint(*tensors.values()) if version == 1 else _checksum(told, tensors)
    ) == checksum
    if not right:
        raise refusal("its checksum differs")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise refusal("it holds numbers that are not finite")
    return about, tensors


def _entry(file: Path, name: str, header: dict[str, str]) -> tuple[str, int]:
    """The header's entry and its version.

    Raises:
        UserError: when there is none that can be read.
    """
    for version in range(1, ModelFormat.VERSION + 1):
        if f"{name}-{version}" in header:
            return header[f"{name}-{version}"], version
    others = [key for key in header if key.startswith(f"{name}-")]
    if others:
        raise UserError(
            f"{file} is of format {others[0][:40]!r}, and this dspt reads up to "
            f"{name}-{ModelFormat.VERSION}; update dspt"
        )
    raise UserError(
        f"{file} is no model of this version (no '{name}-{ModelFormat.VERSION}' in its header); "
        "train again with `dspt fit`"
    )


def _unpacked(entry: str, version: int) -> tuple[str, str]:
    """Text of the header proper, and the checksum."""
    fields = json.loads(entry)
    if version == 1:
        checksum = fields.pop("sha256")
        return json.dumps(fields), checksum
    if fields.keys() != {"checksum", "about"}:
        raise ValueError("its header has other fields")
    return fields["about"], fields["checksum"]


def _checksum(told: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over a header and named fp32 tensors."""
    digest = hashlib.sha256(told.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
