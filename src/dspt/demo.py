"""The demonstration: real pictures, wrong labels, plain prompt tuning against DSPT.

Everything is computed when asked for, from the pictures and the model that ship with the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dspt.backbones import load_backbone
from dspt.configuration import build_config
from dspt.data import load_dataset
from dspt.files import write_bytes, write_text
from dspt.fitting import fit_many
from dspt.outcome import FittedRun
from dspt.progress import Progress, Silent
from dspt.report import Gallery, render_comparison
from dspt.report.figures import accuracy_against_noise
from dspt.run_folder import CHECKPOINT_FILE, REPORT_FILE, claim
from dspt.thumbnails import thumbnailer

METHODS = ("ce", "dspt")
RATES = (0.0, 0.25, 0.5, 0.75)
GALLERY_RATE = 0.5
FIGURE_FILE = "accuracy.png"


@dataclass(frozen=True)
class Demo:
    """What the demonstration made.

    Attributes:
        runs: one per method, noise rate and seed, in that order.
        report: the page.
    """

    runs: list[FittedRun]
    report: Path


def run_demo(
    out: Path,
    *,
    seeds: tuple[int, ...] = (1,),
    epochs: int = 50,
    cache: Path | None = None,
    progress: Progress | None = None,
    command: str = "dspt demo",
) -> Demo:
    """Tune the packaged model on the packaged pictures with cross-entropy and with DSPT.

    Every run gets a folder of its own below ``out``, as ``dspt fit`` writes it, beside one page
    that compares them.

    Args:
        out: folder for the results.
        seeds: one run per seed, each with its own draw, noise and start.
        epochs: of training.
        cache: folder for image features.
        progress: where to report to.
        command: what the page names as the way to make it again.

    Raises:
        UserError: when ``out`` cannot be written.
    """
    progress = progress or Silent()
    with progress.task("loading the packaged model") as advance:
        backbone = load_backbone("default")
        advance(1, 1)
    dataset = load_dataset("demo")
    configs = [
        build_config(
            data="demo",
            method=method,
            noise="none" if rate == 0 else f"symmetric:{rate}",
            seed=seed,
            recipe={"epochs": epochs},
        )
        for method in METHODS
        for rate in RATES
        for seed in seeds
    ]
    folders = [
        out / "runs" / f"{c.method}-{c.noise}-seed{c.seed}".replace(":", "") for c in configs
    ]
    for config, folder in zip(configs, folders, strict=True):
        claim(folder, config, overwrite=True)
    runs = fit_many(
        configs,
        dataset,
        backbone,
        folders=folders,
        checkpoint=out / CHECKPOINT_FILE,
        cache=cache,
        progress=progress,
    )
    shown = {
        run.result.config.method: run
        for run in reversed(runs)
        if run.result.config.noise.rate == GALLERY_RATE
    }
    gallery = Gallery(
        title="Wrong labels that DSPT refused to learn",
        caption=(
            "Training pictures whose label was replaced by a random other one "
            f"({GALLERY_RATE:.0%} of all labels were), and what the tuned prompts say."
        ),
        suspects=shown["dspt"].suspects,
        class_names=dataset.class_names,
        rivals={"CE": shown["ce"].suspects},
    )
    page = render_comparison(
        title="Prompt tuning with wrong labels",
        intro=(
            f"{len(dataset.class_names)} kinds of emoji, drawn by a vendor whose pictures the "
            "model never saw. A part of the training labels is replaced by wrong ones; then a "
            "prompt is tuned on them, once with cross-entropy as CoOp does it, once with DSPT's "
            "double softmax. Nothing else differs."
        ),
        results=[run.result for run in runs],
        galleries=[gallery],
        thumbnail=thumbnailer(dataset),
        command=command,
    )
    write_bytes(out / FIGURE_FILE, accuracy_against_noise([run.result for run in runs]).png())
    write_text(out / REPORT_FILE, page)
    return Demo(runs, out / REPORT_FILE)
