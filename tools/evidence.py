"""Why it works, measured: whose gradient moves the prompt, and what it learns, by method.

    python tools/evidence.py DATA --noise symmetric:0.5 --out DIR

trains a prompt with cross-entropy, GCE, MAE and DSPT side by side for each seed, with evidence, and
writes DIR/evidence.html (a page), DIR/evidence.md (a table) and every figure as PNG and SVG. DATA
is anything that `dspt fit` reads; without it, the pictures that ship with the package. Stopped, the
same command goes on; finished, it only draws again. `--images docs/images` also writes the pictures
of docs/understanding-dspt.md.

    python tools/evidence.py --cost

prints what measuring costs instead.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from dspt.backbones import Backbone, load_backbone
from dspt.cli.console import BarProgress
from dspt.configuration import FitConfig, build_config
from dspt.data import ImageDataset
from dspt.errors import UserError
from dspt.files import write_bytes, write_text
from dspt.fitting import fit_many
from dspt.prompts import text_engine
from dspt.report import render_comparison
from dspt.report.evidence import evidence_section, evidence_table
from dspt.result import RunResult
from dspt.run_folder import CHECKPOINT_FILE, RESULT_FILE, claim, refuse_other_run
from dspt.theory.pictures import all_pictures
from dspt.training.loop import train
from dspt.training_set import (
    draw_training_set,
    feature_table,
    load_configured,
    training_run,
    training_set_tensors,
)

METHODS = ("ce", "gce", "mae", "dspt")
PAGE_FILE = "evidence.html"
TABLE_FILE = "evidence.md"
THEORY_PICTURES = ("loss-and-gradient", "saturation-three-classes")
COST_EPOCHS = 8
COST_PAIRS = 5


def trained(out: Path, configs: Sequence[FitConfig], device: str) -> list[RunResult]:
    """The runs' results, made now unless all are there."""
    folders = [out / "runs" / f"{c.method}-seed{c.seed}" for c in configs]
    for folder, config in zip(folders, configs, strict=True):
        refuse_other_run(folder, config)
        claim(folder, config, overwrite=False)
    if not all((folder / RESULT_FILE).is_file() for folder in folders):
        fit_many(
            configs,
            load_configured(configs[0]),
            load_backbone(configs[0].backbone, configs[0].pretrained, device=device),
            folders=folders,
            checkpoint=out / CHECKPOINT_FILE,
            progress=BarProgress(),
        )
    return [RunResult.read(folder / RESULT_FILE) for folder in folders]


def write_pages(out: Path, results: Sequence[RunResult], command: str) -> None:
    """The page, the table and the figures."""
    figures = evidence_section(results)
    header, rows, note = evidence_table(results)
    data, noise = results[0].data, results[0].noise
    page = render_comparison(
        title=f"Whose gradient moves the prompt: {data.name}",
        intro=(
            f"The same training pictures, {noise.n_wrong} of {data.n_train} with a wrong label, "
            "tuned with each loss. After every epoch it was measured what clean and what "
            "mislabelled pictures do to the prompt, and the prompt to them."
        ),
        results=results,
        galleries=[],
        thumbnail=lambda key: None,
        command=command,
    )
    write_text(out / PAGE_FILE, page)
    lines = [
        f"{data.name}, {data.n_train} training pictures, {len(data.class_names)} classes, noise "
        f"{noise.spec}: {note}",
        "",
        "| " + " | ".join(header) + " |",
        "| --- |" + " ---: |" * (len(header) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    write_text(out / TABLE_FILE, "\n".join(lines) + "\n")
    for figure in figures:
        write_bytes(out / f"{figure.drawing.name}.png", figure.drawing.png())
        write_text(out / f"{figure.drawing.name}.svg", figure.drawing.svg())


def write_images(folder: Path, results: Sequence[RunResult]) -> None:
    """The pictures of the documentation, with few colours so that they are small."""
    drawings = [figure.drawing for figure in evidence_section(results)]
    drawings += [one for one in all_pictures() if one.name in THEORY_PICTURES]
    for drawing in drawings:
        picture = Image.open(io.BytesIO(drawing.png())).convert("RGBA")
        small = io.BytesIO()
        picture.quantize(128, method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
        name = drawing.name.removeprefix("evidence-")
        write_bytes(folder / f"evidence-{name}.png", small.getvalue())


def cost(config: FitConfig, dataset: ImageDataset, backbone: Backbone) -> str:
    """Time of training with evidence against without, in turns, on one prompt."""
    features = feature_table(config, dataset, backbone, None, BarProgress(quiet=True))
    test = dataset.splits["test"]
    test = test[features.take(test, "image features", plain=True)]
    drawn = draw_training_set(config, dataset, features)
    run = training_run(
        drawn, training_set_tensors(drawn, dataset, backbone, features, test), dataset, backbone
    )
    engine = text_engine(backbone, dataset.class_names, run.context.shape[-2])
    recipe = config.recipe.model_copy(update={"epochs": COST_EPOCHS})
    # The processor's own time says the same however busy the machine is; a GPU has only a clock.
    clock = time.process_time if backbone.device.type == "cpu" else time.perf_counter
    seconds: list[tuple[float, float]] = []
    for _ in range(COST_PAIRS):
        pair = []
        for one in (replace(run, zero_shot=None), run):
            began = clock()
            train(engine, backbone.logit_scale, [one], recipe)
            pair.append(clock() - began)
        seconds.append((pair[0], pair[1]))
    ratios = sorted(100 * (with_it / without - 1) for without, with_it in seconds)
    least = [min(column) for column in zip(*seconds, strict=True)]
    return (
        f"{config.method}, {dataset.name}: {len(drawn.given)} pictures, {COST_EPOCHS} epochs, "
        f"{torch.get_num_threads()} threads: evidence adds {ratios[len(ratios) // 2]:.1f} % "
        f"(median of {COST_PAIRS} pairs, {ratios[0]:.1f} to {ratios[-1]:.1f} %; least times "
        f"{least[0]:.2f} s without, {least[1]:.2f} s with)"
    )


def main() -> None:
    """Train what is missing, then draw; or measure the cost."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", nargs="?", default="demo", help="as for `dspt fit`")
    parser.add_argument("--noise", default="symmetric:0.5")
    parser.add_argument("--out", type=Path, default=Path("dspt-evidence"))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 1")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--backbone", default="default")
    parser.add_argument("--pretrained", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=Path, help="folder for the documentation's pictures")
    parser.add_argument("--cost", action="store_true", help="print what measuring costs")
    arguments = parser.parse_args()
    settings = {
        name: getattr(arguments, name)
        for name in ("data", "noise", "shots", "backbone", "pretrained")
    }
    configs = [
        build_config(
            **settings,
            method=method,
            seed=seed,
            evidence=True,
            recipe={"epochs": arguments.epochs},
        )
        for method in METHODS
        for seed in range(1, arguments.seeds + 1)
    ]
    if arguments.cost:
        config = configs[-1]
        backbone = load_backbone(config.backbone, config.pretrained, device=arguments.device)
        print(cost(config, load_configured(config), backbone))
        return
    results = trained(arguments.out, configs, arguments.device)
    command = (
        f"python tools/evidence.py {arguments.data} --noise {arguments.noise} "
        f"--shots {arguments.shots} --seeds {arguments.seeds} --epochs {arguments.epochs} --out DIR"
    )
    write_pages(arguments.out, results, command)
    if arguments.images is not None:
        write_images(arguments.images, results)
    print((arguments.out / TABLE_FILE).read_text(encoding="utf-8"))
    print(f"page: {arguments.out / PAGE_FILE}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"evidence: {error}") from None
