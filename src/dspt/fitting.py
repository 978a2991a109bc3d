"""The main job: pictures and labels in, trained prompt and result out.

The flow is one way: the training set with its labels and features (``training_set.py``), training
(``training/``), what it is worth (``outcome.py``), files (``run_folder.py``). :func:`fit` runs it
for one configuration, :func:`fit_many` for several side by side.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dspt.backbones import Backbone, load_backbone
from dspt.backbones.devices import clear_memory_errors
from dspt.configuration import FitConfig, build_config
from dspt.correction import Correction
from dspt.data import ImageDataset
from dspt.errors import UserError
from dspt.files import WriteError, write_text
from dspt.methods import check_method, trains_prompt
from dspt.model import LinearModel, PromptModel, load_model
from dspt.outcome import FittedRun, head_model, measure_outcome, prompt_model
from dspt.progress import Progress, Silent
from dspt.prompts import TextEngine, text_engine
from dspt.result import NEW, EpochMetrics, RunResult, Timing
from dspt.run_folder import (
    CHECKPOINT_FILE,
    HEAD_FILE,
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
    sole_writer,
    write_labels,
    write_suspects,
)
from dspt.tracking import TrackedRun, Tracker, tracked
from dspt.training.checkpoint import load_checkpoint, save_checkpoint, training_identity
from dspt.training.loop import TrainingState, train
from dspt.training.run import TrainingRun
from dspt.training_set import (
    FeatureTable,
    TrainingSet,
    draw_training_set,
    feature_table,
    load_configured,
    training_run,
    training_set_tensors,
)
from dspt.transfer import measure_transfers

__all__ = ["FittedRun", "fit", "fit_many"]


def fit(
    data: str | Path | ImageDataset,
    backbone: str | Backbone = "default",
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    trackers: Sequence[Tracker] = (),
    strict: bool = False,
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
        trackers: where every epoch's numbers go besides ``metrics.jsonl``; see
            :mod:`dspt.tracking`.
        strict: stop at the first picture that cannot be read, instead of leaving it out.
        **settings: fields of :class:`dspt.configuration.FitConfig`, for example ``method="dspt"``,
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
    check_settings(config)
    folder = None if out is None else Path(out)
    if folder is not None and not overwrite:
        refuse_other_run(folder, config)
    dataset = data if isinstance(data, ImageDataset) else load_configured(config)
    if not isinstance(backbone, Backbone):
        with progress.task("loading the backbone") as advance:
            backbone = load_backbone(
                config.backbone, config.pretrained, device=device, precision=config.precision
            )
            advance(1, 1)
    if backbone.text_note:
        progress.note(backbone.text_note)
    if trackers and not trains_prompt(config.method):
        progress.note(f"{config.method} has no epochs, so there is nothing to track")
    if folder is None:
        return fit_many(
            [config],
            dataset,
            backbone,
            cache=cache,
            progress=progress,
            trackers=trackers,
            strict=strict,
        )[0]
    if not overwrite and (folder / RESULT_FILE).is_file():
        return _finished(folder, dataset, backbone, trackers, progress)
    with sole_writer(folder, progress.note):
        new = claim(folder, config, overwrite=overwrite)
        if (folder / RESULT_FILE).is_file():  # by the process that was waited for
            return _finished(folder, dataset, backbone, trackers, progress)
        try:
            (run,) = fit_many(
                [config],
                dataset,
                backbone,
                folders=[folder],
                checkpoint=folder / CHECKPOINT_FILE,
                cache=cache,
                progress=progress,
                trackers=trackers,
                strict=strict,
            )
        except WriteError:  # a full disk, say; what there is, is gone on with
            raise
        except UserError:
            if new:  # or the call would be refused as another run's settings once it is mended
                release(folder)
            raise
    return run


def check_settings(config: FitConfig) -> None:
    """Refuse what cannot be run, before data or model are loaded.

    Raises:
        UserError: for an unknown method or option, or settings that exclude each other.
    """
    check_method(config.method, config.method_options)
    if not config.transfer:
        return
    if config.prompt.class_specific and trains_prompt(config.method):
        raise UserError("transfer: class-specific context vectors cannot name other classes")
    if config.method in ("linear-probe", "auto"):
        raise UserError(f"transfer: {config.method} knows no other classes; leave transfer out")
    if NEW in config.transfer and config.classes != "base":
        raise UserError('transfer: "new" needs classes "base", the half that is trained on')


def fit_many(
    configs: Sequence[FitConfig],
    dataset: ImageDataset,
    backbone: Backbone,
    *,
    folders: Sequence[Path | None] | None = None,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    features: FeatureTable | None = None,
    reports: bool = True,
    trackers: Sequence[Tracker] = (),
    strict: bool = False,
) -> list[FittedRun]:
    """Run several configurations on one data set and one backbone; prompts train side by side.

    The configurations may differ in method, noise, seeds and start, but those that train a prompt
    must agree in what it looks like and how it is trained (``prompt`` but for ``init``,
    ``recipe``), and all of them in ``views`` and ``feature_precision``.

    Args:
        configs: one per run.
        dataset: loaded once.
        backbone: loaded once.
        folders: where each run's files go, None for nowhere.
        checkpoint: file that keeps the unfinished training of all runs after every epoch; a call
            with the same runs goes on from it. None for no such file.
        cache: folder for image features.
        progress: where to report to.
        features: of this data set and backbone, to be shared among calls.
        reports: whether to write a page with pictures for every run.
        strict: as for :func:`fit`; without effect on given ``features``.
        trackers: as for :func:`fit`; methods without epochs have nothing to track.

    Raises:
        UserError: as :func:`fit`; also when the runs cannot train side by side.
    """
    progress = progress or Silent()
    began = time.perf_counter()
    places = list(folders) if folders is not None else [None] * len(configs)
    if len({(config.views, config.feature_precision) for config in configs}) > 1:
        raise UserError("runs side by side must agree in views and feature_precision")
    if features is None:
        features = feature_table(configs[0], dataset, backbone, cache, progress, strict)
    test = dataset.splits.get("test", np.zeros(0, dtype=np.int64))
    readable = features.take(test, "image features of the test pictures", plain=True)
    test_problems, test = features.problems(test), test[readable]
    draws = [draw_training_set(config, dataset, features) for config in configs]
    features_seconds = time.perf_counter() - began
    if any(drawn.config.evidence and drawn.true is None for drawn in draws):
        progress.note(
            "evidence: the true labels are unknown, so clean and mislabelled pictures are not told "
            "apart"
        )

    for place, drawn in zip(places, draws, strict=True):
        if place is not None:
            write_labels(place / LABELS_FILE, dataset, drawn.indices, drawn.given, drawn.true, test)
    began_training = time.perf_counter()
    runs = [training_set_tensors(d, dataset, backbone, features, test) for d in draws]
    tuned = [i for i, config in enumerate(configs) if trains_prompt(config.method)]
    models: dict[int, PromptModel | LinearModel] = {}
    corrections: dict[int, Correction | None] = {}
    for i in range(len(configs)):
        if i not in tuned:
            models[i], corrections[i] = head_model(draws[i], runs[i], dataset, backbone, progress)
    metrics: dict[int, list[EpochMetrics]] = {}
    if tuned:
        state = _train(
            [draws[i] for i in tuned],
            [training_run(draws[i], runs[i], dataset, backbone) for i in tuned],
            dataset,
            backbone,
            [places[i] for i in tuned],
            checkpoint,
            progress,
            trackers,
        )
        for number, i in enumerate(tuned):
            models[i] = prompt_model(configs[i], state.context[number], dataset, backbone)
            metrics[i] = state.metrics[number]
    timing = Timing(
        image_features=features_seconds,
        training=time.perf_counter() - began_training,
        total=time.perf_counter() - began,
        device=str(backbone.device),
        threads=torch.get_num_threads(),
        side_by_side=len(configs),
    )
    fitted = []
    for i, place in enumerate(places):
        one = measure_outcome(
            draws[i],
            runs[i],
            models[i],
            metrics.get(i, []),
            dataset,
            timing,
            test_problems + draws[i].problems,
            measure_transfers(configs[i], models[i], cache, progress),
            corrections.get(i),
        )
        if place is not None:
            _write(one, place, reports)
            one = replace(one, folder=place)
        fitted.append(one)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return fitted


def _train(
    draws: Sequence[TrainingSet],
    runs: Sequence[TrainingRun],
    dataset: ImageDataset,
    backbone: Backbone,
    places: Sequence[Path | None],
    checkpoint: Path | None,
    progress: Progress,
    trackers: Sequence[Tracker],
) -> TrainingState:
    """Train the prompts side by side, keeping what is unfinished in ``checkpoint``."""
    configs = [drawn.config for drawn in draws]
    engine = _engine(configs, dataset, backbone, runs)
    identity = _identity(draws, runs, dataset, backbone)
    state = (
        load_checkpoint(checkpoint, identity, backbone.device, progress.note)
        if checkpoint
        else None
    )
    followed = [
        TrackedRun(config, place, resumed=state is not None)
        for config, place in zip(configs, places, strict=True)
    ]

    def save(state: TrainingState) -> None:
        for place, records in zip(places, state.metrics, strict=True):
            if place is not None:
                lines = "".join(record.model_dump_json() + "\n" for record in records)
                write_text(place / METRICS_FILE, lines)
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, identity)
        track(state.metrics)

    what = "training" if len(runs) == 1 else f"training {len(runs)} prompts side by side"
    mend = "fit fewer runs side by side, or take --device cpu"
    with (
        tracked(trackers, followed, progress) as track,
        progress.task(what) as advance,
        clear_memory_errors("training", mend),
    ):
        if state is not None:
            track(state.metrics)
        return train(
            engine,
            backbone.logit_scale,
            runs,
            configs[0].recipe,
            state=state,
            on_epoch=save,
            on_step=advance,
        )


def _engine(
    configs: Sequence[FitConfig],
    dataset: ImageDataset,
    backbone: Backbone,
    runs: Sequence[TrainingRun],
) -> TextEngine:
    shapes = {
        (
            run.context.shape,
            config.prompt.position,
            config.prompt.class_specific,
            config.recipe,
            len(run.given),
        )
        for run, config in zip(runs, configs, strict=True)
    }
    if len(shapes) > 1:
        raise UserError(
            "runs trained side by side must agree in prompt (n_ctx, position, class_specific), "
            "recipe and number of training pictures; fit them one by one"
        )
    prompt = configs[0].prompt
    return text_engine(
        backbone,
        dataset.class_names,
        runs[0].context.shape[-2],
        position=prompt.position,
        class_specific=prompt.class_specific,
        runs=len(runs),
    )


def _identity(
    draws: Sequence[TrainingSet],
    runs: Sequence[TrainingRun],
    dataset: ImageDataset,
    backbone: Backbone,
) -> str:
    parts: list[str | np.ndarray | Tensor] = []
    for drawn, run in zip(draws, runs, strict=True):
        parts += [drawn.config.model_dump_json(), run.features, run.test_features]
        parts += [json.dumps(dataset.keys(drawn.indices)), drawn.given]
    return training_identity(backbone, dataset.class_names, parts)


def _finished(
    folder: Path,
    dataset: ImageDataset,
    backbone: Backbone,
    trackers: Sequence[Tracker],
    progress: Progress,
) -> FittedRun:
    """A run that was completed before, if what it was made from is still the same.

    Raises:
        UserError: when the data or the model has changed since.
    """
    result = RunResult.read(folder / RESULT_FILE)
    for what, then, now in (
        ("data", result.data.fingerprint, dataset.fingerprint),
        ("backbone", result.backbone.fingerprint, backbone.fingerprint),
    ):
        if then != now:
            raise UserError(
                f"out: the {what} has changed since the run in {folder} was made "
                f"({then[:12]} then, {now[:12]} now); use another folder or --overwrite"
            )
    model = load_model(folder, backbone=backbone)
    if model.fingerprint != result.context_fingerprint:
        raise UserError(
            f"out: the model in {folder} is not the one that its {RESULT_FILE} measured; use "
            "another folder or --overwrite"
        )
    with contextlib.suppress(OSError):  # of a process that was killed between the last two files
        (folder / CHECKPOINT_FILE).unlink()
    if result.epochs:
        with tracked(trackers, [TrackedRun(result.config, folder, True)], progress) as track:
            track([result.epochs])
    return FittedRun(result, model, read_suspects(folder, result), dataset, folder)


def _write(run: FittedRun, folder: Path, report: bool) -> None:
    """Write a finished run; result.json comes last, so that its presence means completeness."""
    from dspt.report import render_run
    from dspt.thumbnails import thumbnailer

    run.model.save(folder / (PROMPT_FILE if isinstance(run.model, PromptModel) else HEAD_FILE))
    write_suspects(folder / SUSPECTS_FILE, run.suspects, run.result.data.class_names)
    if report:
        html = render_run(run.result, run.suspects, thumbnailer(run.dataset))
        write_text(folder / REPORT_FILE, html)
    run.result.write(folder / RESULT_FILE)
