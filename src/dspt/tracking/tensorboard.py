"""Epochs as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping

from dspt.errors import UserError
from dspt.tracking import TrackedRun

FOLDER = "tensorboard"
"""In a run's folder; ``tensorboard --logdir`` finds it from any folder above."""


class TensorBoardLog:
    """The event file of one run.

    An interrupted run's is replaced: all epochs so far are written again, each once.

    Raises:
        UserError: when the run has no folder, or it cannot be written.
    """

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if run.folder is None:
            raise UserError("tensorboard: the event files lie in the run's folder; give out=...")
        place = run.folder / FOLDER
        try:
            for earlier in place.glob("events.out.tfevents.*"):
                earlier.unlink()
            self._writer = SummaryWriter(str(place))
        except OSError as error:
            raise UserError(f"tensorboard: cannot write {place}: {error.strerror}") from None
        self._writer.add_text("config", f"```\n{run.config.model_dump_json(indent=1)}\n```")

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add the numbers of an epoch."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()  # for one who watches

    def close(self, finished: bool) -> None:
        """End the file."""
        self._writer.close()
