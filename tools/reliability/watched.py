"""``dspt`` that notes what it computes: ``python -m tools.reliability.watched LOG OUT ERR ...``.

One line in LOG for every batch of pictures that went through an image tower, and one for every
epoch when its checkpoint is on disk. What is printed goes to OUT and ERR. Nothing else is changed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dspt.backbones import Backbone
from dspt.cli import main
from dspt.training import checkpoint


def run(given: Sequence[str]) -> None:
    """Run the command ``given[3:]``; the others are LOG, OUT and ERR."""
    # A shell lets what it starts in the background ignore Ctrl-C, and children do as their parents.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for path, number in zip(given[1:3], (1, 2), strict=True):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    _watch(os.open(given[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    main(list(given[3:]))


def _watch(log: int) -> None:
    encode, save = Backbone.encode_image, checkpoint.save_checkpoint

    def encoding(self: Backbone, images: Tensor) -> Tensor:
        made = encode(self, images)
        count = int(images.flatten(1).any(dim=1).sum())  # batches are filled up with zeros
        os.write(log, f"pictures {count}\n".encode())
        return made

    def saving(path: Path, state: Any, identity: str) -> None:
        save(path, state, identity)
        os.write(log, f"epoch {path.name} {state.epoch}\n".encode())

    Backbone.encode_image = encoding  # type: ignore[method-assign]
    for module in ("dspt.training.checkpoint", "dspt.fitting", "dspt.audit.prompts"):
        if module in sys.modules:
            sys.modules[module].save_checkpoint = saving  # type: ignore[attr-defined]


if __name__ == "__main__":
    run(sys.argv[1:])
