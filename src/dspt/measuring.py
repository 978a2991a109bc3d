"""Measuring without training: a saved prompt, or the untrained model, on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from dspt.backbones import load_backbone
from dspt.classifier import Classifier
from dspt.data import ImageDataset, load_dataset
from dspt.errors import UserError
from dspt.evaluation import evaluate
from dspt.features import extract_features
from dspt.model import load_model
from dspt.progress import Progress, Silent
from dspt.result import Evaluation, RunResult
from dspt.run_folder import RESULT_FILE
from dspt.training_set import load_configured

if TYPE_CHECKING:
    from torch import Tensor

    from dspt.backbones import Backbone


class Measurement(BaseModel):
    """Accuracy of zero-shot and, where there is one, of a tuned prompt on the same pictures."""

    model_config = ConfigDict(extra="forbid")

    data: str
    split: str
    class_names: list[str]
    backbone: str
    logit_scale: float
    template: str
    zero_shot: Evaluation
    tuned: Evaluation | None = None
    unreadable: list[str] = []


def measure_zero_shot(
    data: str | Path,
    backbone: str = "default",
    *,
    pretrained: str | None = None,
    precision: str = "fp32",
    device: str = "auto",
    template: str | None = None,
    split: str = "test",
    cache: Path | None = None,
    progress: Progress | None = None,
    **reading: Any,
) -> Measurement:
    """Accuracy of the untrained model under one template.

    Args:
        data: as for :func:`dspt.load_dataset`.
        backbone, pretrained, precision, device: as for :func:`dspt.load_backbone`.
        template: with ``{}`` for the class name; None for the data set's own.
        split: "train", "val" or "test".
        cache: folder for image features.
        progress: where to report to.
        **reading: further arguments of :func:`dspt.load_dataset`.

    Raises:
        UserError: when the data, the model or the split is wrong.
    """
    dataset = load_dataset(data, **reading)
    if template is not None and template.count("{}") != 1:
        raise UserError(f'template: must hold "{{}}" exactly once, not {template!r}')
    model = load_backbone(backbone, pretrained, device=device, precision=precision)
    return _measure(model, dataset, split, template or dataset.template, None, cache, progress)


def measure_run(
    run: Path,
    data: str | None = None,
    *,
    split: str = "test",
    device: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
    **reading: Any,
) -> Measurement:
    """Accuracy of a saved prompt, on its own data or on other pictures of the same classes.

    Args:
        run: folder of a finished run.
        data: as for :func:`dspt.load_dataset`; None for what the run was trained on.
        split, device, cache, progress, reading: as for :func:`measure_zero_shot`.

    Raises:
        UserError: when the run is unfinished, or the classes are not the run's.
    """
    result = RunResult.read(run / RESULT_FILE)
    config = result.config
    if data is None:
        dataset = load_configured(config)
    else:
        dataset = load_dataset(data, **reading)
    model = load_model(run, device=device)
    template = result.zero_shot.template
    return _measure(model.backbone, dataset, split, template, model, cache, progress)


def _measure(
    backbone: Backbone,
    dataset: ImageDataset,
    split: str,
    template: str,
    model: Classifier | None,
    cache: Path | None,
    progress: Progress | None,
) -> Measurement:
    if split not in dataset.splits:
        raise UserError(
            f"split: {dataset.source} has no {split!r}; it has {', '.join(dataset.splits)}"
        )
    names = dataset.class_names if model is None else model.class_names
    position = {name: i for i, name in enumerate(names)}
    foreign = [name for name in dataset.class_names if name not in position]
    if foreign:
        raise UserError(
            f"{dataset.source} has classes that the run does not know ({', '.join(foreign[:5])}); "
            f"the run's are {', '.join(names[:5])}, ..."
        )
    recode = np.array([position[name] for name in dataset.class_names])
    indices = dataset.splits[split]
    progress = progress or Silent()
    with progress.task("image features") as advance:
        found = extract_features(
            backbone,
            dataset.images,
            indices,
            cache=cache,
            on_progress=advance,
            on_note=progress.note,
        )
    if not found.readable.any():
        raise UserError(f"{dataset.source}: none of the {len(indices)} pictures could be read")
    features = found.values[:, 0]
    if not found.readable.all():  # or it would be a copy, of what may be larger than memory
        features = features[torch.from_numpy(found.readable).to(features.device)]
    labels = torch.from_numpy(recode[dataset.labels[indices[found.readable]]]).to(features.device)

    def measured(logits: Tensor) -> Evaluation:
        return evaluate(logits, labels)

    untrained = backbone.logit_scale * backbone.zero_shot_features(names, template).t()
    return Measurement(
        data=dataset.name,
        split=split,
        class_names=list(names),
        backbone=backbone.name,
        logit_scale=backbone.logit_scale,
        template=template,
        zero_shot=measured(features @ untrained),
        tuned=None if model is None else measured(model.logits(features)),
        unreadable=found.unreadable,
    )
