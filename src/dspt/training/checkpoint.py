"""A training state on disk, so that an interrupted run goes on to the identical result."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from dspt.files import atomic_path
from dspt.result import EpochMetrics
from dspt.training.loop import TrainingState

FORMAT = "dspt-checkpoint-2"


def save_checkpoint(path: Path, state: TrainingState, identity: str) -> None:
    """Write the state atomically.

    Args:
        path: a safetensors file.
        state: of one or many runs.
        identity: hash of everything that decides the outcome; a checkpoint of another one is not
            used.
    """
    from safetensors.torch import save_file

    metrics = [[record.model_dump() for record in run] for run in state.metrics]
    header = {
        "format": FORMAT,
        "identity": identity,
        "epoch": str(state.epoch),
        "metrics": json.dumps(metrics),
    }
    tensors = {"context": state.context.cpu(), "momentum": state.momentum.cpu()}
    for number, memory in enumerate(state.memory):
        for name, tensor in memory.items():
            tensors[f"memory/{number}/{name}"] = tensor.cpu().contiguous()
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_checkpoint(path: Path, identity: str, device: torch.device) -> TrainingState | None:
    """The saved state, or None when there is none that belongs to this run.

    A file that cannot be read counts as none: it is only ever a shortcut, and the run starts anew.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata() or {}
            if header.get("format") != FORMAT or header.get("identity") != identity:
                return None
            metrics = [
                [EpochMetrics.model_validate(record) for record in run]
                for run in json.loads(header["metrics"])
            ]
            memory: list[dict[str, Tensor]] = [{} for _ in metrics]
            for key in stored.keys():  # noqa: SIM118 - no mapping
                kind, _, rest = key.partition("/")
                if kind == "memory":
                    number, _, name = rest.partition("/")
                    memory[int(number)][name] = stored.get_tensor(key).to(device)
            return TrainingState(
                epoch=int(header["epoch"]),
                context=stored.get_tensor("context").to(device),
                momentum=stored.get_tensor("momentum").to(device),
                memory=memory,
                metrics=metrics,
            )
    except (SafetensorError, OSError, KeyError, IndexError, ValueError, TypeError):
        return None
