"""The job behind ``dspt audit``: labels in, ranking, page and record out."""

from __future__ import annotations

import csv
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from dspt.audit import Audit, audit_labels
from dspt.audit.page import audit_page
from dspt.audit.quality import measure_quality
from dspt.audit.record import (
    CHECKPOINT_FILE,
    PAGE_FILE,
    RECORD_FILE,
    TABLE_FILE,
    AuditRecord,
    AuditReport,
    AuditSettings,
    ClassFindings,
    Finding,
    Split,
    read_report,
    write_findings,
)
from dspt.backbones import Backbone, load_backbone
from dspt.configuration import build_config
from dspt.data import ImageDataset
from dspt.data.dataset import SPLITS
from dspt.errors import UserError
from dspt.files import write_text
from dspt.outcome import MAX_TRANSITION_CLASSES, backbone_info, environment_info
from dspt.progress import Progress, Silent
from dspt.report import render_audit
from dspt.result import RunResult
from dspt.run_folder import CONFIG_FILE, LABELS_FILE, RESULT_FILE, sole_writer
from dspt.thumbnails import thumbnailer
from dspt.training_set import TrainingSet, draw_training_set, feature_table, load_configured


def is_run(place: str) -> bool:
    """Whether a path is the folder of a run rather than data.

    Raises:
        UserError: when the run in it is not finished.
    """
    folder = Path(place).expanduser()
    if (folder / RESULT_FILE).is_file():
        return True
    if (folder / CONFIG_FILE).is_file() and (folder / LABELS_FILE).is_file():
        raise UserError(
            f"{place}: the run in this folder is not finished; give `dspt fit` the same settings "
            "again, or audit the data itself"
        )
    return False


def run_settings(run: Path, seed: int | None = None) -> AuditSettings:
    """To audit the training labels as a finished run saw them.

    Args:
        run: its folder.
        seed: of the audit; None for the run's own.

    Raises:
        UserError: when there is no finished run.
    """
    config = RunResult.read(run / RESULT_FILE).config
    return AuditSettings(config=config, seed=config.seed if seed is None else seed)


def data_settings(
    data: str, *, split: str = "train", seed: int = 1, **fields: Any
) -> AuditSettings:
    """To audit the labels of a data set.

    Args:
        data: as for :func:`dspt.load_dataset`. Nothing is held out for testing.
        split: "train", "val", "test" or "all".
        seed: of the audit, the draw and the noise.
        **fields: further fields of :class:`dspt.configuration.FitConfig`; all pictures unless
            ``shots`` is given.

    Raises:
        UserError: naming the field that is wrong.
    """
    if split not in get_args(Split):
        raise UserError(f"split: must be {', '.join(get_args(Split))}, not {split!r}")
    config = build_config(**{"shots": None, **fields, "data": data, "seed": seed, "holdout": 0.0})
    return AuditSettings(config=config, split=split, seed=seed)


def audit(
    settings: AuditSettings,
    *,
    run: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Rank labels by how probably each is wrong; writes ``audit.csv``, ``.html`` and ``.json``.

    Args:
        settings: of :func:`run_settings` or :func:`data_settings`.
        run: folder of the run, if it is a run's labels.
        out: folder for the files; None for ``audit`` in the run's folder, or ``audit-NAME``. A
            finished audit of the same settings in it is returned as it is, an unfinished one goes
            on.
        overwrite: replace an audit in ``out``.
        device: for the model.
        cache: folder for image features.
        progress: where to report to.

    Raises:
        UserError: when data or model have changed since the run or the audit was made, ``out``
            holds another audit, or the pictures are too few.
    """
    progress = progress or Silent()
    config = settings.config
    try:
        dataset = load_configured(config)
    except UserError as error:
        raise UserError(f"the data of the run in {run}: {error}") if run else error from None
    result = None if run is None else RunResult.read(run / RESULT_FILE)
    if result is not None:
        what = f"the run in {run} was made; fit again, or audit the data itself"
        _refuse_change("data", result.data.fingerprint, dataset.fingerprint, what)
    if out is None:
        name = re.sub(r"[^\w.-]+", "-", dataset.name).strip("-")
        out = Path(f"audit-{name}") if run is None else run / "audit"
    if out.exists() and not out.is_dir():
        raise UserError(f"out: {out} is a file; name a folder")
    if not overwrite:
        _refuse_other_audit(out, settings)
    with progress.task("loading the backbone") as advance:
        backbone = load_backbone(
            config.backbone, config.pretrained, device=device, precision=config.precision
        )
        advance(1, 1)
    if result is not None:
        _refuse_change("backbone", result.backbone.fingerprint, backbone.fingerprint, what)
    with sole_writer(out, progress.note):
        if overwrite:
            (out / CHECKPOINT_FILE).unlink(missing_ok=True)
        if not overwrite and (out / RECORD_FILE).is_file():
            report = _finished(out, settings, dataset, backbone)
        else:
            report = _compute(settings, dataset, backbone, run, out, cache, progress)
        (out / CHECKPOINT_FILE).unlink(missing_ok=True)
    return report


def _compute(
    settings: AuditSettings,
    dataset: ImageDataset,
    backbone: Backbone,
    run: Path | None,
    out: Path,
    cache: Path | None,
    progress: Progress,
) -> AuditReport:
    began = time.perf_counter()
    config = settings.config.model_copy(update={"views": 0})  # the plain pictures are judged
    features = feature_table(config, dataset, backbone, cache, progress)
    drawn = draw_training_set(config, _pool(dataset, settings.split), features)
    if run is not None:
        _refuse_other_labels(run, drawn, dataset)
    template = config.template or dataset.template
    found = audit_labels(
        backbone,
        dataset.class_names,
        features.stack(drawn.indices)[:, 0],
        torch.from_numpy(drawn.given).to(backbone.device),
        template,
        seed=settings.seed,
        progress=progress,
        checkpoint=out / CHECKPOINT_FILE,
    )
    findings = _findings(found, drawn, dataset)
    channel = found.correction
    small = len(dataset.class_names) <= MAX_TRANSITION_CLASSES
    record = AuditRecord(
        settings=settings,
        name=dataset.name,
        data_fingerprint=dataset.fingerprint,
        class_names=list(dataset.class_names),
        backbone=backbone_info(backbone),
        template=template,
        n=len(findings),
        n_suspects=sum(finding.suspect for finding in findings),
        unreadable=drawn.problems,
        noise_rate=channel.noise_rate,
        noise_interval=channel.interval,
        informed=channel.informed,
        transition=channel.transition.round(6).tolist() if small else None,
        classes=_by_class(findings, dataset.class_names),
        quality=(
            None if drawn.true is None else measure_quality(found.scores, drawn.given, drawn.true)
        ),
        warnings=drawn.warnings + ([backbone.text_note] if backbone.text_note else []),
        seconds=time.perf_counter() - began,
        environment=environment_info(),
    )
    page = audit_page(record, findings, channel.transition.tolist())
    html = render_audit(page, thumbnailer(dataset))
    (out / RECORD_FILE).unlink(missing_ok=True)  # it says that the others are complete
    write_findings(out / TABLE_FILE, findings, dataset.class_names)
    write_text(out / PAGE_FILE, html)
    write_text(out / RECORD_FILE, record.model_dump_json(indent=1) + "\n")
    return AuditReport(record, findings, out)


def _pool(dataset: ImageDataset, split: str) -> ImageDataset:
    """The data set with the pictures to audit in the place of its training pictures."""
    if split not in ("all", *dataset.splits):
        raise UserError(
            f"split: {dataset.source} has no {split!r}; it has {', '.join(dataset.splits)}"
        )
    chosen = [dataset.splits[s] for s in SPLITS if s in dataset.splits and split in ("all", s)]
    return replace(dataset, splits={"train": np.concatenate(chosen)})


def _findings(found: Audit, drawn: TrainingSet, dataset: ImageDataset) -> list[Finding]:
    """One per label, the most suspicious first."""
    split_of = {int(i): split for split, indices in dataset.splits.items() for i in indices}
    keys = dataset.keys(drawn.indices)
    return [
        Finding(
            image=keys[i],
            split=split_of[int(drawn.indices[i])],
            given=int(drawn.given[i]),
            proposed=int(found.proposed[i]),
            confidence=float(found.confidence[i]),
            scores={name: float(score[i]) for name, score in found.scores.items()},
            true=None if drawn.true is None else int(drawn.true[i]),
        )
        for i in found.order()
    ]


def _by_class(findings: list[Finding], names: tuple[str, ...]) -> list[ClassFindings]:
    given = np.array([finding.given for finding in findings])
    suspect = np.array([finding.suspect for finding in findings])
    doubt = np.array([finding.scores["doubt"] for finding in findings])
    return [
        ClassFindings(
            name=name,
            n=int((given == c).sum()),
            suspects=int(suspect[given == c].sum()),
            expected_wrong=float(doubt[given == c].sum()),
        )
        for c, name in enumerate(names)
    ]


def _refuse_change(what: str, then: str, now: str, since: str) -> None:
    if then != now:
        raise UserError(
            f"audit: the {what} has changed ({then[:12]} then, {now[:12]} now) since {since}"
        )


def _refuse_other_labels(run: Path, drawn: TrainingSet, dataset: ImageDataset) -> None:
    """A picture that has become readable, or no longer is, changes what the noise does."""
    names = dataset.class_names
    now = list(zip(dataset.keys(drawn.indices), [names[g] for g in drawn.given], strict=True))
    try:
        with (run / LABELS_FILE).open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
        then = [(row["image"], row["given_label"]) for row in rows]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {run / LABELS_FILE} ({error}); fit again") from None
    if then != now:
        raise UserError(
            f"audit: the training labels are not those in {run / LABELS_FILE}; has a picture "
            "become unreadable, or readable, since? mend it, or audit the data itself"
        )


def _refuse_other_audit(out: Path, settings: AuditSettings) -> None:
    if not (out / RECORD_FILE).is_file():
        return
    held = read_report(out).record.settings
    pairs = [(name, getattr(held, name), getattr(settings, name)) for name in ("split", "seed")]
    for name in type(held.config).model_fields:
        pairs.append((name, getattr(held.config, name), getattr(settings.config, name)))
    differing = [f"{name}: {then} there, {now} here" for name, then, now in pairs if then != now]
    if differing:
        raise UserError(
            f"out: {out} holds an audit with other settings ({'; '.join(differing)}); choose "
            "another folder or use --overwrite"
        )


def _finished(
    out: Path, settings: AuditSettings, dataset: ImageDataset, backbone: Backbone
) -> AuditReport:
    """An audit that was completed before, if what it was made from is still the same."""
    _refuse_other_audit(out, settings)
    report = read_report(out)
    since = f"the audit in {out} was made; use another folder or --overwrite"
    _refuse_change("data", report.record.data_fingerprint, dataset.fingerprint, since)
    _refuse_change("backbone", report.record.backbone.fingerprint, backbone.fingerprint, since)
    return report
