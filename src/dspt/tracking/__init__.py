"""Where the epochs of a run go besides ``metrics.jsonl``: TensorBoard, Weights & Biases, MLflow.

A tracker is a function that opens a log for one run; the log takes the numbers of one epoch at a
time. :func:`tracked` brings them together: it is told of all records there are and hands on those
that a log has not seen, so a run that was interrupted is told once and with the same steps.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dspt.configuration import FitConfig
from dspt.errors import UserError
from dspt.files import write_text
from dspt.progress import Progress
from dspt.result import EpochMetrics
from dspt.run_folder import TRACKERS_FILE


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker learns of a run.

    Attributes:
        config: its settings.
        folder: of its files; None when it has none.
        resumed: whether it goes on from an earlier call, or was finished by one.
    """

    config: FitConfig
    folder: Path | None
    resumed: bool

    @property
    def name(self) -> str:
        """How a person tells the run from others."""
        if self.folder is not None:
            return self.folder.resolve().name
        return f"{self.config.method} {self.config.noise} seed {self.config.seed}"

    def known_id(self, service: str) -> str | None:
        """The id under which an earlier call began to track this run, if it goes on from there."""
        return self._ids().get(service) if self.resumed else None

    def remember_id(self, service: str, identity: str) -> None:
        """Keep the id for a later call."""
        if self.folder is not None:
            ids = {**self._ids(), service: identity}
            write_text(self.folder / TRACKERS_FILE, json.dumps(ids, indent=1) + "\n")

    def _ids(self) -> dict[str, str]:
        if self.folder is None or not (self.folder / TRACKERS_FILE).is_file():
            return {}
        path = self.folder / TRACKERS_FILE
        try:
            ids = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            ids = None
        if not isinstance(ids, dict) or not all(isinstance(value, str) for value in ids.values()):
            raise UserError(f"{path} is damaged; delete it, and the run is tracked as a new one")
        return ids


class Log(Protocol):
    """One run in a tracker."""

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add the numbers of an epoch; one that is there already stays as it is."""

    def close(self, finished: bool) -> None:
        """End; not ``finished`` when training was interrupted or failed."""


Tracker = Callable[[TrackedRun], Log]
"""Opens the log of a run.

Raises:
    UserError: when the service cannot be reached or refuses.
"""


def to_tensorboard() -> Tracker:
    """Event files in the folder ``tensorboard`` of every run.

    Raises:
        UserError: when tensorboard is not installed.
    """
    need("tensorboard")
    from dspt.tracking.tensorboard import TensorBoardLog

    return TensorBoardLog


def to_wandb(project: str) -> Tracker:
    """Weights & Biases; its environment variables hold, for example WANDB_MODE=offline.

    Raises:
        UserError: when wandb is not installed.
    """
    need("wandb")
    from dspt.tracking.wandb import WandbLog

    return lambda run: WandbLog(run, project)


def to_mlflow(experiment: str) -> Tracker:
    """MLflow, at MLFLOW_TRACKING_URI or where it keeps its data otherwise.

    Raises:
        UserError: when mlflow is not installed.
    """
    need("mlflow")
    from dspt.tracking.mlflow import MlflowLog

    return lambda run: MlflowLog(run, experiment)


def need(package: str) -> Any:
    """An optional package, imported; the extra that installs it has its name.

    Raises:
        UserError: with the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"--{package} needs {error.name or package}, which is not installed: "
            f"pip install 'dspt[{package}]'"
        ) from None


@contextlib.contextmanager
def tracked(
    trackers: Sequence[Tracker], runs: Sequence[TrackedRun], progress: Progress
) -> Iterator[Callable[[Sequence[Sequence[EpochMetrics]]], None]]:
    """Open every tracker's log of every run, and close them at the end.

    A log that fails is told of and left; training does not depend on it.

    Yields:
        A function that takes, for each run, all records so far.

    Raises:
        UserError: when a log cannot be opened.
    """
    opened: list[list[Log]] = [[] for _ in runs]
    told = [0] * len(runs)

    def attempt(number: int, log: Log, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a service raises what it likes
            reason = " ".join(str(error).split())[:300]
            opened[number].remove(log)
            progress.note(
                f"tracking of {runs[number].name} ends here ({type(error).__name__}: {reason}); "
                "the same command, once more, brings what is missing"
            )

    def write(metrics: Sequence[Sequence[EpochMetrics]]) -> None:
        for number, records in enumerate(metrics):
            for record in records[told[number] :]:
                values = scalars(record.model_dump(exclude={"epoch"}))
                for log in list(opened[number]):
                    attempt(number, log, partial(log.write, record.epoch, values))
            told[number] = len(records)

    finished = False
    try:
        for number, run in enumerate(runs):
            for tracker in trackers:
                opened[number].append(tracker(run))
        yield write
        finished = True
    finally:
        for number, logs in enumerate(opened):
            for log in list(logs):
                attempt(number, log, partial(log.close, finished))


def scalars(fields: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers among nested fields by their path, as ``evidence/clean/gradient_norm``."""
    found: dict[str, float] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = float(value)
    return found
