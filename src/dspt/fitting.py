"""The main job: pictures and labels in, trained prompt and result out.

The flow is one way: the training set with its labels and features (``training_set.py``), training
(``training/``), what it is worth (``outcome.py``), files (``run_folder.py``). :func:`fit` runs it
for one configuration, :func:`fit_many` for several side by side.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dspt.backbones import Backbone, load_backbone
from dspt.configuration import FitConfig, build_config
from dspt.data import ImageDataset, load_dataset
from dspt.errors import UserError
from dspt.files import write_text
from dspt.losses import per_sample_loss
from dspt.model import PromptModel
from dspt.outcome import FittedRun, measure_outcome
from dspt.progress import Progress, Silent
from dspt.prompts import TextEngine, text_engine
from dspt.result import RunResult, Timing
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
from dspt.training.checkpoint import load_checkpoint, save_checkpoint
from dspt.training.loop import TrainingRun, TrainingState, train
from dspt.training_set import FeatureTable, TrainingSet, draw_training_set, training_run

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
    features = FeatureTable(backbone, dataset, configs[0].views, cache, progress)
    test = dataset.splits.get("test", np.zeros(0, dtype=np.int64))
    test = test[features.take(test, "image features of the test pictures", plain=True)]
    draws = [draw_training_set(config, dataset, features) for config in configs]
    features_seconds = time.perf_counter() - began

    runs = [training_run(d, dataset, backbone, features, test) for d in draws]
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
        one = measure_outcome(
            drawn, run, state, number, dataset, backbone, timing, features.problems
        )
        if place is not None:
            _write(one, place)
            one = replace(one, folder=place)
        fitted.append(one)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return fitted


def _load(config: FitConfig) -> ImageDataset:
    return load_dataset(
        config.data,
        image_column=config.image_column,
        label_column=config.label_column,
        split_column=config.split_column,
        holdout=config.holdout,
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
        runs=len(runs),
    )


def _identity(draws: Sequence[TrainingSet], dataset: ImageDataset, backbone: Backbone) -> str:
    """Hash of everything that decides the outcome of training."""
    digest = hashlib.sha256(backbone.fingerprint.encode())
    digest.update(json.dumps(dataset.class_names).encode())
    for drawn in draws:
        digest.update(drawn.config.model_dump_json().encode())
        digest.update(json.dumps(dataset.keys(drawn.indices)).encode())
        digest.update(drawn.given.tobytes())
    return digest.hexdigest()


def _finished(folder: Path, dataset: ImageDataset, backbone: Backbone) -> FittedRun:
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
