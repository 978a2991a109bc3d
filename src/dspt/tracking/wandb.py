"""Epochs as a run of Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping

from dspt.errors import UserError
from dspt.tracking import TrackedRun, need


class WandbLog:
    """One run in a project.

    An interrupted run goes on under its id. Online, the service says which steps it has; offline,
    all epochs so far are written again into a new file of that id.

    Raises:
        UserError: when W&B refuses, for example because nobody is logged in.
    """

    def __init__(self, run: TrackedRun, project: str) -> None:
        wandb = need("wandb")
        service = f"wandb {project}"
        known = run.known_id(service)
        try:
            self._run = wandb.init(
                project=project,
                id=known,
                resume=None if known is None else "allow",
                name=run.name,
                config=run.config.model_dump(mode="json"),
                reinit="create_new",  # several runs train side by side
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise UserError(f"wandb: {reason}; WANDB_MODE=offline needs no account") from None
        self._next = self._run.starting_step
        run.remember_id(service, self._run.id)

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add the numbers of an epoch."""
        if epoch >= self._next:
            self._run.log(dict(values), step=epoch)

    def close(self, finished: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=0 if finished else 1)
