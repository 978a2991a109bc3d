"""What a run trains on: the drawn pictures, their features and the labels that training sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dspt.backbones import Backbone
from dspt.configuration import FitConfig
from dspt.data import ImageDataset, draw_shots, load_dataset
from dspt.errors import UserError
from dspt.feature_cache import FeatureType
from dspt.features import extract_features
from dspt.methods import build_objective
from dspt.noise import apply_noise
from dspt.progress import Progress
from dspt.prompts import initial_context
from dspt.training.run import TrainingRun

NAMED = 20  # unreadable pictures


@dataclass(frozen=True)
class TrainingSet:
    """Which pictures a run trains on, and under which labels.

    Attributes:
        config: of the run.
        indices: of the pictures in the data set, [N].
        given: labels that training sees, [N].
        true: where they are known, [N].
        warnings: what the user should know.
        problems: one line per picture of the draw that could not be read.
    """

    config: FitConfig
    indices: np.ndarray
    given: np.ndarray
    true: np.ndarray | None
    warnings: list[str]
    problems: list[str]


@dataclass(frozen=True)
class RunTensors:
    """The same as tensors, with the test pictures.

    Attributes:
        features: of the training pictures, [N, V, D]; view 0 is the plain picture.
        given: labels that training sees, [N].
        true: where they are known, [N].
        test_features: [n, D]; n may be 0.
        test_labels: [n].
    """

    features: Tensor
    given: Tensor
    true: Tensor | None
    test_features: Tensor
    test_labels: Tensor


class FeatureTable:
    """Image features of the pictures asked for so far."""

    def __init__(
        self,
        backbone: Backbone,
        dataset: ImageDataset,
        views: int,
        cache: Path | None,
        progress: Progress,
        precision: FeatureType = "fp32",
        strict: bool = False,
    ) -> None:
        self._backbone, self._dataset, self._views = backbone, dataset, views
        self._precision, self._strict = precision, strict
        self._cache, self._progress = cache, progress
        self._rows: dict[int, Tensor] = {}
        self._unreadable: dict[int, str] = {}

    def problems(self, indices: np.ndarray) -> list[str]:
        """One line per picture of these that could not be read."""
        return [self._unreadable[int(i)] for i in indices if int(i) in self._unreadable]

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
                    dtype=self._precision,
                    on_note=self._progress.note,
                    strict=self._strict,
                )
            for problem in found.unreadable[:NAMED]:
                self._progress.note(problem)
            if len(found.unreadable) > NAMED:
                self._progress.note(f"and {len(found.unreadable) - NAMED} more unreadable pictures")
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


def feature_table(
    config: FitConfig,
    dataset: ImageDataset,
    backbone: Backbone,
    cache: Path | None,
    progress: Progress,
    strict: bool = False,
) -> FeatureTable:
    """An empty table with the views and the precision that a run asks for."""
    return FeatureTable(
        backbone, dataset, config.views, cache, progress, config.feature_precision, strict
    )


def load_configured(config: FitConfig) -> ImageDataset:
    """The data set that a configuration names.

    Raises:
        UserError: when it cannot be read.
    """
    return load_dataset(
        config.data,
        root=config.data_root,
        classes=config.classes,
        image_column=config.image_column,
        label_column=config.label_column,
        split_column=config.split_column,
        holdout=config.holdout,
    )


def draw_training_set(
    config: FitConfig, dataset: ImageDataset, features: FeatureTable
) -> TrainingSet:
    """Draw the shots, then the noise; unreadable pictures are left out before the noise is drawn.

    Raises:
        UserError: when no picture can be read, or the draw or the noise is impossible.
    """
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
    problems = features.problems(drawn)
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
        features=lambda: features.stack(drawn)[:, 0].cpu().numpy(),
    )
    if config.noise.rate and (given == labels).all():
        warnings.append(f"noise {config.noise} changes no label of so few pictures")
    known = config.noise.kind != "none"
    return TrainingSet(config, drawn, given, labels if known else None, warnings, problems)


def training_set_tensors(
    drawn: TrainingSet,
    dataset: ImageDataset,
    backbone: Backbone,
    features: FeatureTable,
    test: np.ndarray,
) -> RunTensors:
    """The drawn pictures and the test pictures as tensors on the backbone's device."""
    device = backbone.device
    return RunTensors(
        features=features.stack(drawn.indices),
        given=torch.from_numpy(drawn.given).to(device),
        true=None if drawn.true is None else torch.from_numpy(drawn.true).to(device),
        test_features=(
            features.stack(test)[:, 0]
            if len(test)
            else torch.zeros(0, backbone.embed_dim, device=device)
        ),
        test_labels=torch.from_numpy(dataset.labels[test]).to(device),
    )


def training_run(
    drawn: TrainingSet, tensors: RunTensors, dataset: ImageDataset, backbone: Backbone
) -> TrainingRun:
    """A prompt to train on them: its start and its objective."""
    config, names = drawn.config, dataset.class_names
    zero_shot = None
    if config.evidence:
        untrained = backbone.zero_shot_features(names, config.template or dataset.template)
        zero_shot = (tensors.features[:, 0] @ untrained.t()).argmax(dim=1)
    return TrainingRun(
        features=tensors.features,
        given=tensors.given,
        true=tensors.true,
        test_features=tensors.test_features,
        test_labels=tensors.test_labels,
        context=initial_context(backbone, config.prompt, len(names), config.seed),
        objective=build_objective(
            config.method, config.method_options, tensors.given, len(names), config.seed
        ),
        seed=config.seed,
        zero_shot=zero_shot,
    )
