"""What a trained prompt is worth: its result, measured against zero-shot and the true labels."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dspt import __version__
from dspt.backbones import Backbone
from dspt.configuration import FitConfig
from dspt.data import ImageDataset
from dspt.evaluation import evaluate, share
from dspt.methods import BOUNDS, LabelledFeatures
from dspt.model import LinearModel, PromptModel
from dspt.noise import transition_counts
from dspt.result import (
    BackboneInfo,
    DataInfo,
    Environment,
    EpochMetrics,
    Evaluation,
    NoiseInfo,
    RunResult,
    Suspect,
    Timing,
    Transfer,
    ZeroShot,
)
from dspt.suspects import rank_suspects
from dspt.training_set import RunTensors, TrainingSet


@dataclass(frozen=True)
class FittedRun:
    """A finished run.

    Attributes:
        result: everything measured.
        model: the trained prompt (or linear head of a bound), ready to predict.
        suspects: training samples, the most suspicious label first.
        dataset: what it was trained on.
        folder: where the files are, None when they were not asked for.
    """

    result: RunResult
    model: PromptModel | LinearModel
    suspects: list[Suspect]
    dataset: ImageDataset
    folder: Path | None


def prompt_model(
    config: FitConfig, context: Tensor, dataset: ImageDataset, backbone: Backbone
) -> PromptModel:
    """Trained context vectors as a classifier."""
    prompt = config.prompt.model_copy(update={"n_ctx": context.shape[-2]})
    return PromptModel(backbone, dataset.class_names, prompt, context)


def bound_model(
    drawn: TrainingSet, run: RunTensors, dataset: ImageDataset, backbone: Backbone
) -> LinearModel:
    """What a method without a prompt makes of the training set."""
    config = drawn.config
    head = BOUNDS[config.method](**config.method_options)(
        LabelledFeatures(
            features=run.features[:, 0],
            given=run.given,
            class_names=dataset.class_names,
            template=config.template or dataset.template,
            backbone=backbone,
            seed=config.seed,
        )
    )
    return LinearModel(backbone, dataset.class_names, head.weight, head.bias)


def measure_outcome(
    drawn: TrainingSet,
    run: RunTensors,
    model: PromptModel | LinearModel,
    metrics: list[EpochMetrics],
    dataset: ImageDataset,
    timing: Timing,
    problems: list[str],
    transfers: list[Transfer],
) -> FittedRun:
    """Measure what one run trained.

    Args:
        drawn: what it was trained on.
        run: the same as tensors.
        model: what was trained.
        metrics: one record per epoch; none for a method without a prompt.
        dataset: for names and ids.
        timing: of the whole call.
        problems: one line per unreadable picture.
        transfers: accuracy on other classes or data.
    """
    config, backbone = drawn.config, model.backbone
    template = config.template or dataset.template
    names = dataset.class_names
    untrained = backbone.logit_scale * backbone.zero_shot_features(names, template).t()
    plain = run.features[:, 0]
    zero_logits, logits = plain @ untrained, model.logits(plain)
    zero_test = final = None
    if len(run.test_labels):
        zero_test = evaluate(run.test_features @ untrained, run.test_labels)
        final = evaluate(model.logits(run.test_features), run.test_labels)
    warnings = list(drawn.warnings)
    if problems:
        warnings.append(f"{len(problems)} unreadable pictures, the first: {problems[0]}")
    if backbone.text_note:
        warnings.append(backbone.text_note)
    warnings += _collapse_warnings(logits, zero_logits, names, final, zero_test)
    counts = None if drawn.true is None else transition_counts(drawn.true, drawn.given, len(names))
    wrong = None if drawn.true is None else int((drawn.true != drawn.given).sum())
    result = RunResult(
        config=config,
        backbone=backbone_info(backbone),
        data=DataInfo(
            name=dataset.name,
            fingerprint=dataset.fingerprint,
            class_names=list(names),
            shots=config.shots,
            n_train=len(drawn.indices),
            n_test=len(run.test_labels),
            train_per_class=np.bincount(
                dataset.labels[drawn.indices], minlength=len(names)
            ).tolist(),
            test_source=dataset.test_source if len(run.test_labels) else "none",
        ),
        noise=NoiseInfo(
            spec=str(config.noise),
            true_labels_known=drawn.true is not None,
            n_wrong=wrong,
            realised_rate=None if wrong is None else wrong / len(drawn.given),
            transition=None if counts is None else counts.tolist(),
        ),
        zero_shot=ZeroShot(
            template=template,
            test=zero_test,
            train_accuracy_given=share(zero_logits.argmax(1) == run.given),
            train_accuracy_true=(
                None if run.true is None else share(zero_logits.argmax(1) == run.true)
            ),
        ),
        epochs=metrics,
        final=final,
        transfers=transfers,
        context_fingerprint=model.fingerprint,
        warnings=warnings,
        time=timing,
        environment=_environment(),
    )
    suspects = rank_suspects(logits, zero_logits, run.given, run.true, dataset.keys(drawn.indices))
    return FittedRun(result, model, suspects, dataset, None)


def backbone_info(backbone: Backbone) -> BackboneInfo:
    """What a result says of its model."""
    return BackboneInfo(
        name=backbone.name,
        pretrained=backbone.pretrained,
        fingerprint=backbone.fingerprint,
        embed_dim=backbone.embed_dim,
        image_size=backbone.image_size,
        context_length=backbone.context_length,
        logit_scale=backbone.logit_scale,
        precision=backbone.precision,
        text_path="shared-prefix" if backbone.text_tower is not None else "open_clip",
    )


def _collapse_warnings(
    logits: Tensor,
    zero_logits: Tensor,
    names: Sequence[str],
    final: Evaluation | None,
    zero_test: Evaluation | None,
) -> list[str]:
    warnings = []
    predicted = torch.bincount(logits.argmax(1), minlength=len(names))
    most = float(predicted.max() / predicted.sum())
    if most > max(0.5, 3 / len(names)):
        warnings.append(
            f"label collapse: {most:.0%} of the training pictures are predicted as "
            f"{names[int(predicted.argmax())]!r}"
        )
    if final is not None and zero_test is not None and final.interval[1] < zero_test.interval[0]:
        warnings.append(
            f"what was trained ({final.accuracy:.1%}) is clearly worse than zero-shot "
            f"({zero_test.accuracy:.1%}); do not use it"
        )
    never = (torch.bincount(zero_logits.argmax(1), minlength=len(names)) == 0).nonzero()[:, 0]
    if len(never):
        listed = ", ".join(repr(names[int(i)]) for i in never[:8])
        more = ", ..." if len(never) > 8 else ""
        warnings.append(
            f"zero-shot never predicts {len(never)} of {len(names)} classes ({listed}{more}); "
            "a class that the prior does not know is hard to learn"
        )
    return warnings


def _environment() -> Environment:
    import open_clip

    return Environment(
        dspt=__version__,
        torch=torch.__version__,
        open_clip=open_clip.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        processor_count=os.cpu_count() or 1,
    )
