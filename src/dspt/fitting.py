"""The main job: pictures and labels in, trained prompt and result out.

The flow is one way: draw shots and noise (:func:`_draw`), image features, training, evaluation
(:func:`_finish`), files (:func:`_write`). :func:`fit` runs it once, with a checkpoint every epoch;
:func:`fit_many` trains several configurations side by side.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dspt import __version__
from dspt.backbones import Backbone, load_backbone
from dspt.configuration import FitConfig, build_config
from dspt.data import ImageDataset, draw_shots, load_dataset
from dspt.errors import UserError
from dspt.evaluation import evaluate, share
from dspt.features import extract_features
from dspt.files import write_text
from dspt.losses import PerSampleLoss, per_sample_loss
from dspt.model import PromptModel, context_fingerprint
from dspt.noise import apply_noise, transition_counts
from dspt.progress import Progress, Silent
from dspt.prompts import initial_context, text_engine
from dspt.result import (
    DataInfo,
    Environment,
    NoiseInfo,
    RunResult,
    Suspect,
    Timing,
    ZeroShot,
)
from dspt.run_folder import (
    CHECKPOINT_FILE,
    LABELS_FILE,
    METRICS_FILE,
    PROMPT_FILE,
    REPORT_FILE,
    RESULT_FILE,
    SUSPECTS_FILE,
    claim,
    read_suspects,
    refuse_other_run,
    release,
    write_labels,
    write_suspects,
)
from dspt.suspects import rank_suspects
from dspt.training.checkpoint import load_checkpoint, save_checkpoint
from dspt.training.loop import TrainingRun, TrainingState, train


@dataclass(frozen=True)
class FittedRun:
    """A finished run.

    Attributes:
        result: everything measured.
        model: the trained prompt, ready to predict.
        suspects: training samples, the most suspicious label first.
        dataset: what it was trained on.
        folder: where the files are, None when they were not asked for.
    """

    result: RunResult
    model: PromptModel
    suspects: list[Suspect]
    dataset: ImageDataset
    folder: Path | None


def fit(
    data: str | Path | ImageDataset,
    backbone: str | Backbone = "default",
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **settings: Any,
) -> FittedRun:
    """Train a prompt on pictures whose labels may be wrong.

    Args:
        data: a folder, manifest or split file (see :func:`dspt.load_dataset`), ``"demo"``, or an
            already loaded data set.
        backbone: a name for :func:`dspt.load_backbone`, or a loaded model.
        out: folder for the run's files. An unfinished run in it is continued; a finished one of the
            same settings is returned as it is.
        overwrite: start anew even if ``out`` holds a run.
        cache: folder for image features; None for the user's cache folder.
        device: for loading the backbone.
        progress: where to report to.
        **settings: fields of :class:`dspt.configuration.FitConfig`, for example ``loss="dspt"``,
            ``shots=16``, ``noise="symmetric:0.5"``, ``seed=1``, ``recipe={"epochs": 50}``.

    Returns:
        The finished run.

    Raises:
        UserError: when a setting or the data is wrong, in one line that says how to mend it.
    """
    progress = progress or Silent()
    if isinstance(data, ImageDataset):
        settings["data"] = data.source
    else:
        settings["data"] = str(data)
    if isinstance(backbone, Backbone):
        settings |= {
            "backbone": backbone.name,
            "pretrained": backbone.pretrained,
            "precision": backbone.precision,
        }
    else:
        settings["backbone"] = backbone
    config = build_config(**settings)
    per_sample_loss(config.loss, config.loss_options)
    folder = None if out is None else Path(out)
    if folder is not None and not overwrite:
        refuse_other_run(folder, config)
    dataset = data if isinstance(data, ImageDataset) else _load(config)
    if not isinstance(backbone, Backbone):
        with progress.task("loading the backbone") as advance:
            backbone = load_backbone(
                config.backbone, config.pretrained, device=device, precision=config.precision
            )
            advance(1, 1)
    if backbone.text_note:
        progress.note(backbone.text_note)
    if folder is None:
        return fit_many([config], dataset, backbone, cache=cache, progress=progress)[0]
    new = claim(folder, config, overwrite=overwrite)
    if (folder / RESULT_FILE).is_file():
        return _finished(folder, dataset, backbone)
    try:
        (run,) = fit_many(
            [config],
            dataset,
            backbone,
            folders=[folder],
            checkpoint=folder / CHECKPOINT_FILE,
            cache=cache,
            progress=progress,
        )
    except UserError:
        if new:  # or the call would be refused as another run's settings once it is mended
            release(folder)
        raise
    return run


def fit_many(
    configs: Sequence[FitConfig],
    dataset: ImageDataset,
    backbone: Backbone,
    *,
    folders: Sequence[Path | None] | None = None,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[FittedRun]:
    """Train several prompts side by side on one data set and one backbone.

    The configurations may differ in loss, noise, seeds and start, but must agree in what the
    prompts look like and how they are trained (``prompt`` but for ``init``, ``recipe``, ``views``).

    Args:
        configs: one per run.
        dataset: loaded once.
        backbone: loaded once.
        folders: where each run's files go, None for nowhere.
        checkpoint: file that keeps the unfinished training of all runs after every epoch; a call
            with the same runs goes on from it. None for no such file.
        cache: folder for image features.
        progress: where to report to.

    Raises:
        UserError: as :func:`fit`; also when the runs cannot train side by side.
    """
    progress = progress or Silent()
    began = time.perf_counter()
    places = list(folders) if folders is not None else [None] * len(configs)
    features = _Features(backbone, dataset, configs[0].views, cache, progress)
    test = dataset.splits.get("test", np.zeros(0, dtype=np.int64))
    test = test[features.take(test, "image features of the test pictures", plain=True)]
    draws = [_draw(config, dataset, features) for config in configs]
    features_seconds = time.perf_counter() - began

    runs = [_training_run(d, dataset, backbone, features, test) for d in draws]
    engine = _engine(configs, dataset, backbone, runs)
    identity = _identity(draws, dataset, backbone)

    def save(state: TrainingState) -> None:
        for place, records in zip(places, state.metrics, strict=True):
            if place is not None:
                lines = "".join(record.model_dump_json() + "\n" for record in records)
                write_text(place / METRICS_FILE, lines)
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, identity)

    state = load_checkpoint(checkpoint, identity, backbone.device) if checkpoint else None
    for place, drawn in zip(places, draws, strict=True):
        if place is not None:
            write_labels(place / LABELS_FILE, dataset, drawn.indices, drawn.given, drawn.true, test)
    began_training = time.perf_counter()
    what = "training" if len(configs) == 1 else f"training {len(configs)} prompts side by side"
    with progress.task(what) as advance:
        state = train(
            engine,
            backbone.logit_scale,
            runs,
            configs[0].recipe,
            state=state,
            on_epoch=save,
            on_step=advance,
        )
    timing = Timing(
        image_features=features_seconds,
        training=time.perf_counter() - began_training,
        total=time.perf_counter() - began,
        device=str(backbone.device),
        threads=torch.get_num_threads(),
    )
    fitted = []
    for number, (drawn, run, place) in enumerate(zip(draws, runs, places, strict=True)):
        one = _finish(drawn, run, state, number, dataset, backbone, timing, features.problems)
        if place is not None:
            _write(one, place)
            one = FittedRun(one.result, one.model, one.suspects, dataset, place)
        fitted.append(one)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return fitted


@dataclass(frozen=True)
class _Draw:
    """Which pictures a run trains on, and under which labels."""

    config: FitConfig
    loss: PerSampleLoss
    indices: np.ndarray
    given: np.ndarray
    true: np.ndarray | None
    warnings: list[str]


class _Features:
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


def _load(config: FitConfig) -> ImageDataset:
    return load_dataset(
        config.data,
        image_column=config.image_column,
        label_column=config.label_column,
        split_column=config.split_column,
        holdout=config.holdout,
    )


def _draw(config: FitConfig, dataset: ImageDataset, features: _Features) -> _Draw:
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
    return _Draw(config, loss, drawn, given, labels if known else None, warnings)


def _training_run(
    drawn: _Draw,
    dataset: ImageDataset,
    backbone: Backbone,
    features: _Features,
    test: np.ndarray,
) -> TrainingRun:
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


def _engine(
    configs: Sequence[FitConfig],
    dataset: ImageDataset,
    backbone: Backbone,
    runs: Sequence[TrainingRun],
) -> Any:
    shapes = {
        (
            run.context.shape,
            config.prompt.position,
            config.prompt.class_specific,
            config.recipe,
            config.views,
            len(run.given),
        )
        for run, config in zip(runs, configs, strict=True)
    }
    if len(shapes) > 1:
        raise UserError(
            "runs trained side by side must agree in prompt (n_ctx, position, class_specific), "
            "recipe, views and number of training pictures; fit them one by one"
        )
    prompt = configs[0].prompt
    return text_engine(
        backbone,
        dataset.class_names,
        runs[0].context.shape[-2],
        position=prompt.position,
        class_specific=prompt.class_specific,
    )


def _identity(draws: Sequence[_Draw], dataset: ImageDataset, backbone: Backbone) -> str:
    """Hash of everything that decides the outcome of training."""
    digest = hashlib.sha256(backbone.fingerprint.encode())
    digest.update(json.dumps(dataset.class_names).encode())
    for drawn in draws:
        digest.update(drawn.config.model_dump_json().encode())
        digest.update(json.dumps(dataset.keys(drawn.indices)).encode())
        digest.update(drawn.given.tobytes())
    return digest.hexdigest()


def _finish(
    drawn: _Draw,
    run: TrainingRun,
    state: TrainingState,
    number: int,
    dataset: ImageDataset,
    backbone: Backbone,
    timing: Timing,
    problems: list[str],
) -> FittedRun:
    """Measure a trained prompt."""
    config = drawn.config
    context = state.context[number]
    prompt = config.prompt.model_copy(update={"n_ctx": context.shape[-2]})
    model = PromptModel(backbone, dataset.class_names, prompt, context)
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
        backbone=backbone.info(),
        data=DataInfo(
            name=dataset.name,
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
        epochs=state.metrics[number],
        final=final,
        context_fingerprint=context_fingerprint(context),
        warnings=warnings,
        time=timing,
        environment=_environment(),
    )
    suspects = rank_suspects(logits, zero_logits, run.given, run.true, dataset.keys(drawn.indices))
    return FittedRun(result, model, suspects, dataset, None)


def _collapse_warnings(
    logits: Tensor, zero_logits: Tensor, names: Sequence[str], final: Any, zero_test: Any
) -> list[str]:
    warnings = []
    predicted = torch.bincount(logits.argmax(1), minlength=len(names))
    share = float(predicted.max() / predicted.sum())
    if share > max(0.5, 3 / len(names)):
        warnings.append(
            f"label collapse: {share:.0%} of the training pictures are predicted as "
            f"{names[int(predicted.argmax())]!r}"
        )
    if final is not None and final.interval[1] < zero_test.interval[0]:
        warnings.append(
            f"the tuned prompt ({final.accuracy:.1%}) is clearly worse than zero-shot "
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


def _finished(folder: Path, dataset: ImageDataset, backbone: Backbone) -> FittedRun:
    """A run that was completed before."""
    result = RunResult.read(folder / RESULT_FILE)
    model = PromptModel.load(folder, backbone=backbone)
    return FittedRun(result, model, read_suspects(folder, result), dataset, folder)


def _write(run: FittedRun, folder: Path) -> None:
    """Write a finished run; result.json comes last, so that its presence means completeness."""
    from dspt.report import render_run
    from dspt.thumbnails import thumbnailer

    run.model.save(folder / PROMPT_FILE)
    write_suspects(folder / SUSPECTS_FILE, run.suspects, run.result.data.class_names)
    html = render_run(run.result, run.suspects, thumbnailer(run.dataset))
    write_text(folder / REPORT_FILE, html)
    run.result.write(folder / RESULT_FILE)
