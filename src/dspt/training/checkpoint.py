"""A training state on disk, so that an interrupted run goes on to the identical result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dspt.files import write_tensors
from dspt.result import EpochMetrics
from dspt.training.loop import TrainingState

if TYPE_CHECKING:
    from dspt.backbones import Backbone

FORMAT = "dspt-checkpoint-3"
OLDER = ("dspt-checkpoint-1", "dspt-checkpoint-2")


def training_identity(
    backbone: Backbone, class_names: Sequence[str], parts: Iterable[str | np.ndarray | Tensor]
) -> str:
    """Hash of everything that decides the outcome of training.

    Args:
        backbone: with all that it makes of the names.
        class_names: C names.
        parts: settings, labels and features, in an order of their own. The features stand for the
            pictures' content, the image tower and its preprocessing.
    """
    digest = hashlib.sha256(backbone.fingerprint.encode())
    digest.update(json.dumps(class_names).encode())
    behaviour = backbone.behaviour(tuple(class_names))
    digest.update(json.dumps(behaviour, sort_keys=True).encode())
    for part in parts:
        if isinstance(part, Tensor):
            part = part.cpu().numpy()
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data)
    return digest.hexdigest()


def save_checkpoint(path: Path, state: TrainingState, identity: str) -> None:
    """Write the state atomically, with a checksum over all of it.

    Args:
        path: a safetensors file.
        state: of one or many runs.
        identity: of :func:`training_identity`; a checkpoint of another one is not used.
    """
    metrics = [[record.model_dump() for record in run] for run in state.metrics]
    header = {
        "format": FORMAT,
        "identity": identity,
        "epoch": str(state.epoch),
        "metrics": json.dumps(metrics),
    }
    tensors = {"context": state.context, "momentum": state.momentum}
    for number, memory in enumerate(state.memory):
        for name, tensor in memory.items():
            tensors[f"memory/{number}/{name}"] = tensor
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, tensors, {**header, "sha256": _checksum(header, tensors)})


def load_checkpoint(
    path: Path,
    identity: str,
    device: torch.device,
    note: Callable[[str], None] | None = None,
) -> TrainingState | None:
    """The saved state, or None when there is none that belongs to this run.

    A file that is damaged or of an older version counts as none, since it is only ever a shortcut:
    the run starts anew.

    Args:
        path, identity: as for :func:`save_checkpoint`.
        device: gets the tensors.
        note: told in one line why a file of this run is not used.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        checksum = header.pop("sha256", None)
        if header.get("format") in OLDER and checksum is None:
            raise ValueError("it is of an older version, without a checksum")
        if checksum != _checksum(header, tensors):
            raise ValueError("it is damaged, its checksum differs")
        if header["format"] != FORMAT or header["identity"] != identity:
            return None
        metrics = [
            [EpochMetrics.model_validate(record) for record in run]
            for run in json.loads(header["metrics"])
        ]
        memory: list[dict[str, Tensor]] = [{} for _ in metrics]
        for key, tensor in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "memory":
                number, _, name = rest.partition("/")
                memory[int(number)][name] = tensor.to(device)
        return TrainingState(
            epoch=int(header["epoch"]),
            context=tensors["context"].to(device),
            momentum=tensors["momentum"].to(device),
            memory=memory,
            metrics=metrics,
        )
    except (
        *(SafetensorError, OSError, RecursionError),
        *(KeyError, IndexError, ValueError, TypeError, AttributeError),
    ) as error:
        if note:
            reason = (str(error).splitlines() or ["it is damaged"])[0]
            note(f"{path} cannot be continued ({reason}); training starts from the beginning")
        return None


def _checksum(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and contents, in an order of their own."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
