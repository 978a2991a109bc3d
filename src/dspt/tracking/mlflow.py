"""Epochs as a run of MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dspt.errors import UserError
from dspt.tracking import TrackedRun, need

ALWAYS = "accuracy_given"
"""A number that every epoch has."""


class MlflowLog:
    """One run in an experiment, which is made when it does not exist.

    An interrupted run goes on under its id, with the epochs that are not there yet.

    Raises:
        UserError: when MLflow's store cannot be used.
    """

    def __init__(self, run: TrackedRun, experiment: str) -> None:
        mlflow = need("mlflow")
        self._metric = mlflow.entities.Metric
        service = f"mlflow {experiment}"
        known = run.known_id(service)
        try:
            self._client = mlflow.MlflowClient()
            self._next = 0
            if known is not None:
                history = self._client.get_metric_history(known, ALWAYS)
                self._next = 1 + max((point.step for point in history), default=-1)
                self._client.update_run(known, status="RUNNING")
                self._id = known
                return
            found = self._client.get_experiment_by_name(experiment)
            place = self._client.create_experiment(experiment) if found is None else None
            made = self._client.create_run(place or found.experiment_id, run_name=run.name)
            self._id = made.info.run_id
            settings = _settings(run.config.model_dump(mode="json"))
            params = [mlflow.entities.Param(name, text) for name, text in settings.items()]
            self._client.log_batch(self._id, params=params)
        except (mlflow.exceptions.MlflowException, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"mlflow: {reason} (store: {mlflow.get_tracking_uri()})") from None
        run.remember_id(service, self._id)

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add the numbers of an epoch."""
        if epoch >= self._next:
            now = time.time_ns() // 1_000_000
            metrics = [self._metric(name, value, now, epoch) for name, value in values.items()]
            self._client.log_batch(self._id, metrics=metrics)

    def close(self, finished: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


def _settings(fields: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings by their path, as ``recipe.epochs``."""
    found: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= _settings(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)
    return found
