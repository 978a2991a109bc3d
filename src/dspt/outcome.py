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
from dspt.correction import Correction
from dspt.data import ImageDataset
from dspt.evaluation import evaluate, share
from dspt.methods import HEADS, CorrectedHead, LabelledFeatures
from dspt.model import LinearModel, PromptModel
from dspt.noise import transition_counts
from dspt.progress import Progress
from dspt.result import (
    BackboneInfo,
    DataInfo,
    Environment,
    EpochMetrics,
    Evaluation,
    NoiseEstimate,
    NoiseInfo,
    RunResult,
    Suspect,
    Timing,
    Transfer,
    ZeroShot,
)
from dspt.suspects import rank_suspects
from dspt.training_set import RunTensors, TrainingSet

MAX_TRANSITION_CLASSES = 200  # above, result.json would hold nothing else


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


def head_model(
    drawn: TrainingSet,
    run: RunTensors,
    dataset: ImageDataset,
    backbone: Backbone,
    progress: Progress,
) -> tuple[LinearModel, Correction | None]:
    """What a method without a prompt makes of the training set, and of its labels."""
    config = drawn.config
    with progress.task(config.method) as advance:
        head = HEADS[config.method](**config.method_options)(
            LabelledFeatures(
                features=run.features[:, 0],
                given=run.given,
                class_names=dataset.class_names,
                template=config.template or dataset.template,
                backbone=backbone,
                seed=config.seed,
                on_progress=advance,
            )
        )
    model = LinearModel(backbone, dataset.class_names, head.weight, head.bias)
    return model, head.correction if isinstance(head, CorrectedHead) else None


def measure_outcome(
    drawn: TrainingSet,
    run: RunTensors,
    model: PromptModel | LinearModel,
    metrics: list[EpochMetrics],
    dataset: ImageDataset,
    timing: Timing,
    problems: list[str],
    transfers: list[Transfer],
    correction: Correction | None = None,
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
        correction: what the method found out about the labels.
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
    if correction is not None and not correction.informed:
        warnings.append(
            "zero-shot says nothing about the given labels, so wrong ones cannot be told from "
            "right ones; check the class names and the template"
        )
    warnings += _collapse_warnings(logits, zero_logits, run.given, names, final, zero_test)
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
        noise_estimate=None if correction is None else _noise_estimate(correction),
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
        environment=environment_info(),
    )
    suspects = rank_suspects(
        logits,
        zero_logits,
        run.given,
        run.true,
        dataset.keys(drawn.indices),
        None if correction is None else torch.from_numpy(correction.posterior).to(logits.device),
    )
    return FittedRun(result, model, suspects, dataset, None)


def _noise_estimate(correction: Correction) -> NoiseEstimate:
    heads = (f"{kind} {s:g}" for kind in ("head", "free head") for s in correction.strengths)
    names = ("zero-shot", *heads)
    small = len(correction.transition) <= MAX_TRANSITION_CLASSES
    return NoiseEstimate(
        rate=correction.noise_rate,
        interval=correction.interval,
        transition=correction.transition.round(6).tolist() if small else None,
        weights=dict(zip(names, correction.classifier.weights.tolist(), strict=True)),
        informed=correction.informed,
    )


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


def collapsed_class(predicted: Tensor, given: Tensor, num_classes: int) -> int | None:
    """The class that nearly everything is predicted as, if there is one.

    It is one when more than half of the pictures are predicted as this class and the other classes
    are predicted less than half as often as they are given: with many classes beyond 50 %, with two
    equal ones beyond 75 %, with one that has 90 % of the labels beyond 95 %.

    Args:
        predicted: classes, [n].
        given: labels, [n].
        num_classes: C.

    Returns:
        The class, or None; None for fewer than 8 pictures, where chance does the same.
    """
    n = len(predicted)
    counts = torch.bincount(predicted, minlength=num_classes)
    most = int(counts.argmax())
    others, others_given = n - int(counts[most]), int((given != most).sum())
    return most if n >= 8 and 2 * others < n and 2 * others < others_given else None


def _collapse_warnings(
    logits: Tensor,
    zero_logits: Tensor,
    given: Tensor,
    names: Sequence[str],
    final: Evaluation | None,
    zero_test: Evaluation | None,
) -> list[str]:
    warnings = []
    predicted = logits.argmax(1)
    collapsed = collapsed_class(predicted, given, len(names))
    if collapsed is not None:
        most = share(predicted == collapsed)
        warnings.append(
            f"label collapse: {most:.0%} of the training pictures are predicted as "
            f"{names[collapsed]!r}"
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


def environment_info() -> Environment:
    """Versions and machine, for results."""
    import open_clip

    return Environment(
        dspt=__version__,
        torch=torch.__version__,
        open_clip=open_clip.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        processor_count=os.cpu_count() or 1,
    )
