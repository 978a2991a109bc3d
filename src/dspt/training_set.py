"""What a run trains on: the drawn pictures, their features and the labels that training sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dspt.backbones import Backbone
from dspt.configuration import FitConfig
from dspt.data import ImageDataset, draw_shots
from dspt.errors import UserError
from dspt.features import extract_features
from dspt.losses import PerSampleLoss, per_sample_loss
from dspt.noise import apply_noise
from dspt.progress import Progress
from dspt.prompts import initial_context
from dspt.training.loop import TrainingRun


@dataclass(frozen=True)
class TrainingSet:
    """Which pictures a run trains on, and under which labels.

    Attributes:
        config: of the run.
        loss: per-sample loss.
        indices: of the pictures in the data set, [N].
        given: labels that training sees, [N].
        true: where they are known, [N].
        warnings: what the user should know.
    """

    config: FitConfig
    loss: PerSampleLoss
    indices: np.ndarray
    given: np.ndarray
    true: np.ndarray | None
    warnings: list[str]


class FeatureTable:
    """Image features of the pictures asked for so far."""

    def __init__(
        self,
        backbone: Backbone,
        dataset: ImageDataset,
        views: int,
        cache: Path | None,
        progress: Progress,
    ) -> None:
        self._backbone, self._dataset, self._views = backbone, dataset, views
        self._cache, self._progress = cache, progress
        self._rows: dict[int, Tensor] = {}
        self._unreadable: dict[int, str] = {}

    @property
    def problems(self) -> list[str]:
        """One line per picture that could not be read."""
        return list(self._unreadable.values())

    def take(self, indices: np.ndarray, what: str, *, plain: bool = False) -> np.ndarray:
        """Extract what is not there yet; says which pictures could be read, [n] of bool."""
        missing = [int(i) for i in indices if i not in self._rows and i not in self._unreadable]
        if missing:
            with self._progress.task(what) as advance:
                found = extract_features(
                    self._backbone,
                    self._dataset.images,
                    missing,
                    views=0 if plain else self._views,
                    cache=self._cache,
                    on_progress=advance,
                )
            problems = iter(found.unreadable)
            for index, row, readable in zip(missing, found.values, found.readable, strict=True):
                if readable:
                    self._rows[index] = row
                else:
                    self._unreadable[index] = next(problems)
        return np.array([int(i) in self._rows for i in indices], dtype=bool)

    def stack(self, indices: np.ndarray) -> Tensor:
        """Features of readable pictures, [n, V, D]."""
        return torch.stack([self._rows[int(i)] for i in indices])


def draw_training_set(
    config: FitConfig, dataset: ImageDataset, features: FeatureTable
) -> TrainingSet:
    """Draw the shots, then the noise; unreadable pictures are left out before the noise is drawn.

    Raises:
        UserError: when no picture can be read, or the draw or the noise is impossible.
    """
    loss = per_sample_loss(config.loss, config.loss_options)
    pool = dataset.splits["train"]
    drawn = draw_shots(
        dataset.labels,
        pool,
        config.shots,
        config.draw_seed,
        dataset.keys(pool),
        dataset.class_names,
    )
    warnings = []
    readable = features.take(drawn, "image features of the training pictures")
    if not readable.all():
        warnings.append(
            f"{int((~readable).sum())} training pictures could not be read and are left out"
        )
    drawn = drawn[readable]
    if not len(drawn):
        raise UserError(f"{dataset.source}: none of the training pictures could be read")
    labels = dataset.labels[drawn]
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    if config.shots is not None and (counts < config.shots).any():
        few = [
            f"{name} ({n})"
            for name, n in zip(dataset.class_names, counts, strict=True)
            if n < config.shots
        ]
        warnings.append(f"fewer than {config.shots} training pictures: {', '.join(few[:10])}")
    given = apply_noise(
        labels,
        config.noise,
        len(dataset.class_names),
        config.noise_seed,
        dataset.keys(drawn),
        {name: column[drawn] for name, column in dataset.columns.items()},
    )
    known = config.noise.kind != "none"
    return TrainingSet(config, loss, drawn, given, labels if known else None, warnings)


def training_run(
    drawn: TrainingSet,
    dataset: ImageDataset,
    backbone: Backbone,
    features: FeatureTable,
    test: np.ndarray,
) -> TrainingRun:
    """The same as tensors, with the context vectors to start from."""
    config, device = drawn.config, backbone.device
    return TrainingRun(
        features=features.stack(drawn.indices),
        given=torch.from_numpy(drawn.given).to(device),
        true=None if drawn.true is None else torch.from_numpy(drawn.true).to(device),
        test_features=(
            features.stack(test)[:, 0] if len(test) else torch.zeros(0, backbone.embed_dim)
        ),
        test_labels=torch.from_numpy(dataset.labels[test]).to(device),
        context=initial_context(backbone, config.prompt, len(dataset.class_names), config.seed),
        loss=drawn.loss,
        seed=config.seed,
    )
