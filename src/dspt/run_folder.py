"""The files of a run: who may write into a folder, and what lies in it."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dspt.configuration import FitConfig
from dspt.data.dataset import ImageDataset
from dspt.errors import UserError
from dspt.files import atomic_path, locked, write_text
from dspt.result import RunResult, Suspect

PROMPT_FILE = "prompt.safetensors"
HEAD_FILE = "head.safetensors"
CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"
LABELS_FILE = "labels.csv"
SUSPECTS_FILE = "suspects.csv"
REPORT_FILE = "report.html"
CHECKPOINT_FILE = "checkpoint.safetensors"
TRACKERS_FILE = "trackers.json"
LOCK_FILE = ".lock"
RUN_FILES = (
    CONFIG_FILE,
    RESULT_FILE,
    METRICS_FILE,
    LABELS_FILE,
    SUSPECTS_FILE,
    REPORT_FILE,
    CHECKPOINT_FILE,
    TRACKERS_FILE,
    PROMPT_FILE,
    HEAD_FILE,
)


def refuse_other_run(folder: Path, config: FitConfig) -> None:
    """Leave alone a folder that holds a run of other settings.

    Raises:
        UserError: naming what differs.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out: {folder} is a file; name a folder")
    stored = folder / CONFIG_FILE
    if not stored.is_file():
        return
    try:
        held = FitConfig.model_validate_json(stored.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"out: {stored} is damaged; use --overwrite or another folder") from None
    differing = [
        f"{name}: {getattr(held, name)} there, {getattr(config, name)} here"
        for name in FitConfig.model_fields
        if getattr(held, name) != getattr(config, name)
    ]
    if differing:
        raise UserError(
            f"out: {folder} holds a run with other settings ({'; '.join(differing)}); "
            "choose another folder or use --overwrite"
        )


@contextlib.contextmanager
def sole_writer(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Compute in the folder alone; waits for another process that is at it.

    Args:
        folder: of the run; made when it is not there, and removed when nothing comes to be in it.
        note: told when there is something to wait for.

    Raises:
        UserError: when the folder cannot be written.
    """
    path = folder / LOCK_FILE
    try:
        with contextlib.ExitStack() as held:
            if not held.enter_context(locked(path, blocking=False)):
                note(f"another process is computing the run in {folder}; waiting for it to end")
                held.enter_context(locked(path))
            yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def claim(folder: Path, config: FitConfig, *, overwrite: bool) -> bool:
    """Make the folder this run's own; with ``overwrite``, what another run left is removed.

    Returns:
        Whether the run is new there, that is, nothing of it is to be continued.

    Raises:
        UserError: when the folder holds a run of other settings, or cannot be written.
    """
    if overwrite:
        release(folder)
    refuse_other_run(folder, config)
    new = not (folder / CONFIG_FILE).is_file()
    if new:
        write_text(folder / CONFIG_FILE, config.model_dump_json(indent=1) + "\n")
    return new


def release(folder: Path) -> None:
    """Remove the files of a run."""
    try:
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"out: cannot empty {folder}: {error}; choose another folder") from None


def write_labels(
    path: Path,
    dataset: ImageDataset,
    train: np.ndarray,
    given: np.ndarray,
    true: np.ndarray | None,
    test: np.ndarray,
) -> None:
    """The draw and the labels as they were used: picture, split, given and true label."""
    names = dataset.class_names
    rows: list[list[str]] = [["image", "split", "given_label", "true_label"]]
    for i, key in enumerate(dataset.keys(train)):
        truth = "" if true is None else names[true[i]]
        rows.append([key, "train", names[given[i]], truth])
    for index, key in zip(test, dataset.keys(test), strict=True):
        rows.append([key, "test", names[dataset.labels[index]], ""])
    _write_csv(path, rows)


def write_suspects(path: Path, suspects: Sequence[Suspect], names: Sequence[str]) -> None:
    """The ranking as a table, the most suspicious label first."""
    header = [
        "rank",
        "image",
        "given_label",
        "proposed_label",
        "zero_shot_label",
        "true_label",
        "probability_given",
        "probability_proposed",
        "suppression",
    ]
    rows = [header]
    for rank, s in enumerate(suspects, 1):
        rows.append(
            [
                str(rank),
                s.id,
                names[s.given],
                names[s.proposed],
                names[s.zero_shot],
                "" if s.true is None else names[s.true],
                repr(s.probability_given),
                repr(s.probability_proposed),
                repr(s.suppression),
            ]
        )
    _write_csv(path, rows)


def read_suspects(folder: Path, result: RunResult) -> list[Suspect]:
    """The ranking that a finished run wrote.

    Raises:
        UserError: when the file is missing or does not fit the result.
    """
    index = {name: i for i, name in enumerate(result.data.class_names)}
    path = folder / SUSPECTS_FILE
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                Suspect(
                    id=row["image"],
                    given=index[row["given_label"]],
                    proposed=index[row["proposed_label"]],
                    zero_shot=index[row["zero_shot_label"]],
                    true=index[row["true_label"]] if row["true_label"] else None,
                    probability_given=float(row["probability_given"]),
                    probability_proposed=float(row["probability_proposed"]),
                    suppression=float(row["suppression"]),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error}); run again with --overwrite") from None


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(
            text.getvalue(), encoding="utf-8", errors="surrogateescape", newline=""
        )
