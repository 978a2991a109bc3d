"""A trained prompt before other class names: base-to-new and cross-dataset.

Source: CoCoOp, Zhou et al., "Conditional Prompt Learning for Vision-Language Models", CVPR 2022,
sections 4.1 and 4.2.
"""

from __future__ import annotations

from pathlib import Path

import torch

from dspt.configuration import FitConfig
from dspt.data import load_dataset
from dspt.errors import UserError
from dspt.evaluation import evaluate
from dspt.features import extract_features
from dspt.methods import HEADS, LabelledFeatures
from dspt.model import LinearModel, PromptModel
from dspt.progress import Progress
from dspt.result import NEW, Transfer
from dspt.training_set import load_configured


def measure_transfers(
    config: FitConfig,
    model: PromptModel | LinearModel,
    cache: Path | None,
    progress: Progress,
) -> list[Transfer]:
    """Test a model on what ``config.transfer`` names.

    Raises:
        UserError: when a data set cannot be read or has no test pictures.
    """
    return [_measure(target, config, model, cache, progress) for target in config.transfer]


def _measure(
    target: str,
    config: FitConfig,
    model: PromptModel | LinearModel,
    cache: Path | None,
    progress: Progress,
) -> Transfer:
    if target == NEW:
        dataset = load_configured(config.model_copy(update={"classes": NEW}))
    else:
        dataset = load_dataset(target, root=config.data_root)
    if "test" not in dataset.splits:
        raise UserError(f"transfer: {dataset.source} has no test pictures")
    backbone, names = model.backbone, dataset.class_names
    template = config.template or dataset.template
    with progress.task(f"image features of {dataset.name}") as advance:
        found = extract_features(
            backbone,
            dataset.images,
            dataset.splits["test"],
            cache=cache,
            on_progress=advance,
            dtype=config.feature_precision,
            on_note=progress.note,
        )
    if not found.readable.any():
        raise UserError(f"transfer: none of the pictures of {dataset.source} could be read")
    features = found.values[torch.from_numpy(found.readable).to(found.values.device), 0]
    labels = torch.from_numpy(dataset.labels[dataset.splits["test"][found.readable]])
    labels = labels.to(features.device)
    if isinstance(model, PromptModel):
        logits = model.with_classes(names).logits(features)
    else:
        nothing = LabelledFeatures(features[:0], labels[:0], names, template, backbone, config.seed)
        head = HEADS[config.method](**config.method_options)(nothing)
        logits = features @ head.weight.t() + head.bias
    untrained = backbone.logit_scale * backbone.zero_shot_features(names, template).t()
    return Transfer(
        data=dataset.name,
        target=target,
        n_classes=len(names),
        zero_shot=evaluate(features @ untrained, labels),
        tuned=evaluate(logits, labels),
    )


def harmonic_mean(first: float, second: float) -> float:
    """Of two accuracies; 0 when one of them is 0."""
    return 2 * first * second / (first + second) if first and second else 0.0
