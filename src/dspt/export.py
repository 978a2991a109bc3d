"""What a run trained in forms that other programs read: plain numbers, and an ONNX file.

Once the prompt is trained, a classifier is one matrix: class embeddings that the image feature is
multiplied with. That, class names and preprocessing are all that open_clip's users need; the ONNX
file holds the image tower as well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dspt import __version__
from dspt.backbones import Backbone
from dspt.classifier import BackboneReference
from dspt.errors import UserError
from dspt.files import write_tensors, write_text
from dspt.model import LinearModel, PromptModel

EMBEDDINGS_FILE = "classifier.safetensors"
ABOUT_FILE = "classifier.json"
ONNX_FILE = "classifier.onnx"
FORMAT = "dspt-classifier-1"
FORMULA = "softmax(logit_scale * normalize(encode_image(pixels)) @ weight.T + bias)"

ONNX_TOLERANCE = 1e-4
"""Largest difference in a probability or a feature that an exported file may have from ours."""

ONE_FILE_BYTES = 1_900_000_000
"""An ONNX file is one protobuf message, which ends at 2 GB; larger weights lie beside it."""


@dataclass(frozen=True)
class ClassEmbeddings:
    """A classifier on L2-normalised image features x: logits ``logit_scale * x @ weight.T + bias``.

    Attributes:
        weight: [C, D] fp32; of a prompt, the normalised class features.
        bias: [C] fp32; zeros for a prompt.
        logit_scale: the backbone's for a prompt, 1 for a linear head.
    """

    weight: Tensor
    bias: Tensor
    logit_scale: float

    def logits(self, features: Tensor) -> Tensor:
        """Of normalised features [n, D], in their precision and on their device, [n, C]."""
        weight, bias = self.weight.to(features), self.bias.to(features)
        return self.logit_scale * features @ weight.t() + bias


def class_embeddings(model: PromptModel | LinearModel) -> ClassEmbeddings:
    """The classifier that a trained model is, without its backbone."""
    if isinstance(model, LinearModel):
        return ClassEmbeddings(model.weight, model.bias, 1.0)
    weight = model.class_features
    return ClassEmbeddings(weight, weight.new_zeros(len(weight)), model.backbone.logit_scale)


def export_embeddings(model: PromptModel | LinearModel, folder: Path) -> list[Path]:
    """Write class embeddings as safetensors, and beside them what is needed to use them as JSON.

    Args:
        model: what a run trained.
        folder: gets ``classifier.safetensors`` (``weight`` [C, D] and ``bias`` [C], fp32) and
            ``classifier.json``; see ``docs/export.md``.

    Returns:
        The files.

    Raises:
        UserError: when the backbone has random weights, which nobody could load again, or the
            folder cannot be written.
    """
    text = json.dumps(describe(model), indent=1, ensure_ascii=False) + "\n"
    embeddings = class_embeddings(model)
    tensors = {
        name: getattr(embeddings, name).detach().cpu().contiguous() for name in ("weight", "bias")
    }
    write_tensors(folder / EMBEDDINGS_FILE, tensors, {"format": FORMAT})
    write_text(folder / ABOUT_FILE, text)
    return [folder / EMBEDDINGS_FILE, folder / ABOUT_FILE]


def describe(model: PromptModel | LinearModel) -> dict[str, Any]:
    """Everything beside the embeddings: names, scale, backbone, preprocessing.

    Raises:
        UserError: as :func:`export_embeddings`.
    """
    backbone, embeddings = model.backbone, class_embeddings(model)
    return {
        "format": FORMAT,
        "formula": FORMULA,
        "class_names": list(model.class_names),
        "embed_dim": embeddings.weight.shape[1],
        "logit_scale": embeddings.logit_scale,
        "backbone": BackboneReference.of(backbone, model.class_names).model_dump(),
        "open_clip": open_clip_call(backbone),
        "preprocessing": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in backbone.preprocess_config.items()
        },
        "dspt": __version__,
    }


def open_clip_call(backbone: Backbone) -> dict[str, Any]:
    """Keyword arguments with which ``open_clip.create_model_from_pretrained`` loads the model.

    Raises:
        UserError: for random weights.
    """
    from open_clip.transformer import QuickGELU

    from dspt.backbones import NO_WEIGHTS, default_model_directory

    name, pretrained = backbone.name, backbone.pretrained
    if pretrained == NO_WEIGHTS:
        raise UserError(
            f"{name} has random weights (pretrained none), which nobody can load again; export a "
            "run of a trained backbone"
        )
    folder = name.removeprefix("local-dir:")
    if name == "default":
        name = f"local-dir:{default_model_directory()}"
    elif os.path.isdir(folder):
        name = f"local-dir:{Path(folder).resolve()}"
    if pretrained is not None and os.path.isfile(pretrained):
        pretrained = str(Path(pretrained).resolve())
    return {
        "model_name": name,
        "pretrained": pretrained,
        "precision": backbone.precision,
        # A tag may ask for it while the model's own name does not.
        "force_quick_gelu": any(isinstance(part, QuickGELU) for part in backbone.model.modules()),
    }


def export_onnx(model: PromptModel | LinearModel, folder: Path) -> tuple[Path, float]:
    """Write image tower and classifier as ONNX, and compare what onnxruntime makes of it with ours.

    The file takes preprocessed ``pixels`` [n, 3, H, W] fp32 for any n and gives ``probabilities``
    [n, C] and ``features`` [n, D] (normalised). It computes in fp32, whatever the backbone's
    precision is. Its metadata, key ``dspt``, hold the content of ``classifier.json``.

    Args:
        model: what a run trained.
        folder: gets ``classifier.onnx``, and ``classifier.onnx.data`` with weights of more than
            1.9 GB.

    Returns:
        The file, and the largest difference from what the same tower gives in PyTorch on random
        pixels.

    Raises:
        UserError: when onnx, onnxscript or onnxruntime is not installed, the tower has parts that
            ONNX has not, the folder cannot be written, or the difference exceeds
            :data:`ONNX_TOLERANCE`.
    """
    runtime = _need_onnx()
    about = json.dumps(describe(model), ensure_ascii=False)
    graph = _ImageClassifier(model).eval()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{ONNX_FILE}.", dir=folder) as place:
            written = Path(place) / ONNX_FILE
            _write_onnx(graph, model.backbone.image_size, about, written)
            difference = _difference(runtime, written, graph)
            # The weights first: where the graph is, they are.
            for file in sorted(Path(place).iterdir(), reverse=True):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise UserError(f"cannot write {folder / ONNX_FILE}: {error.strerror or error}") from error
    return folder / ONNX_FILE, difference


def _write_onnx(graph: nn.Module, size: tuple[int, int], about: str, file: Path) -> None:
    """The module as ONNX, with ``about`` in its metadata; the number of pictures is left open."""
    try:
        with torch.no_grad(), _warnings_of_exporters_silenced():
            program = torch.onnx.export(
                graph,
                (torch.zeros(2, 3, *size),),
                dynamo=True,
                input_names=["pixels"],
                output_names=["probabilities", "features"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever a tower's code may raise
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:200]
        raise UserError(
            f"this image tower cannot be written as ONNX ({type(cause).__name__}: {reason}); "
            "export without --onnx"
        ) from error
    assert program is not None
    program.model.metadata_props["dspt"] = about
    stored = (value.const_value for value in program.model.graph.initializers.values())
    weights = sum(tensor.nbytes for tensor in stored if tensor is not None)
    program.save(file, external_data=weights > ONE_FILE_BYTES)


@contextlib.contextmanager
def _warnings_of_exporters_silenced() -> Iterator[None]:
    """They tell of steps that they skip; what counts is compared afterwards."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


class _ImageClassifier(nn.Module):
    """Image tower and classifier in fp32 on the CPU: pixels -> (probabilities, features)."""

    def __init__(self, model: PromptModel | LinearModel) -> None:
        super().__init__()
        embeddings = class_embeddings(model)
        self.tower = deepcopy(model.backbone.model).cpu().float()
        self.logit_scale = embeddings.logit_scale
        self.weight = nn.Parameter(embeddings.weight.detach().cpu().float(), requires_grad=False)
        self.bias = nn.Parameter(embeddings.bias.detach().cpu().float(), requires_grad=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = F.normalize(self.tower.encode_image(pixels), dim=-1)  # type: ignore[operator]
        logits = self.logit_scale * features @ self.weight.t() + self.bias
        return logits.softmax(dim=-1), features


def _difference(onnxruntime: Any, file: Path, graph: nn.Module) -> float:
    """Largest absolute difference of the file's outputs from the module's, for 1 and 3 pictures.

    Raises:
        UserError: when it exceeds the tolerance.
    """
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    _, _, height, width = session.get_inputs()[0].shape
    largest = 0.0
    for n in (1, 3):
        pixels = torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            ours = graph(pixels)
        theirs = session.run(["probabilities", "features"], {"pixels": pixels.numpy()})
        for mine, other in zip(ours, theirs, strict=True):
            largest = max(largest, float((mine - torch.from_numpy(other)).abs().max()))
    if not largest <= ONNX_TOLERANCE:
        raise UserError(
            f"the ONNX file's outputs differ by {largest:.1e} from ours; it was not written: "
            "please report the backbone"
        )
    return largest


def _need_onnx() -> Any:
    """The runtime, once it is sure that everything for an export is there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--onnx needs {error.name or 'onnx'}, which is not installed: pip install 'dspt[onnx]'"
        ) from None
    return onnxruntime


__all__ = [
    "ClassEmbeddings",
    "class_embeddings",
    "describe",
    "export_embeddings",
    "export_onnx",
    "open_clip_call",
]
