"""The first table: CE and DSPT on Caltech-101 under symmetric noise, from both starts.

    python tools/first_results.py CALTECH --out runs/first --jobs 2

runs ``dspt fit`` for every cell (each cell is a run folder: stop at any time, start again, and only
what is missing is done) and writes docs/results/first.md from the result.json files.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dspt.result import RunResult

PAGE = Path(__file__).parent.parent / "docs" / "results" / "first.md"
STARTS = {"random": "random (16 vectors, N(0, 0.02))", "a photo of a": 'template ("a photo of a")'}
LOSSES = ("ce", "dspt")
NOISES = ("none", "symmetric:0.5", "symmetric:0.75")
SEEDS = (1, 2, 3)
COMMITS_FILE = "commits.txt"

Cell = tuple[str, str, str, int]


def folder(out: Path, cell: Cell) -> Path:
    """Where a cell's run lies."""
    start, loss, noise, seed = cell
    return out / f"{start.replace(' ', '-')}_{loss}_{noise.replace(':', '')}_seed{seed}"


def fit(caltech: Path, out: Path, cell: Cell) -> None:
    """Run one cell with the command that a user would type."""
    start, loss, noise, seed = cell
    call = [sys.executable, "-m", "dspt", "fit", str(caltech), "--shots", "16", "--quiet"]
    call += ["--init", start, "--loss", loss, "--noise", noise, "--seed", str(seed)]
    call += ["--out", str(folder(out, cell))]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(call)}\n{done.stderr}")
    print(folder(out, cell).name, flush=True)


def commit() -> str:
    """Short hash of the code that ran, marked when files were changed."""
    root = Path(__file__).parent
    call = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(call, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def commits(out: Path) -> str:
    """The code that the runs in the folder were made with, in order."""
    lines = (out / COMMITS_FILE).read_text(encoding="utf-8").split()
    return ", ".join(f"`{name}`" for name in dict.fromkeys(lines))


def page(out: Path, jobs: int) -> str:
    """The page as Markdown, from the finished runs."""
    results = {
        cell: RunResult.read(folder(out, cell) / "result.json")
        for cell in itertools.product(STARTS, LOSSES, NOISES, SEEDS)
    }
    one = next(iter(results.values()))
    assert one.zero_shot.test is not None
    zero = one.zero_shot.test
    low, high = zero.interval
    lines = [
        "# First results: Caltech-101 with the packaged model",
        "",
        f"Top-1 accuracy in % on the {zero.n} test pictures of CoOp's split "
        f"({len(one.data.class_names)} classes), 16 labels per class, mean ± standard deviation "
        f"over seeds {', '.join(map(str, SEEDS))} (each its own draw, noise, start and order). "
        "Noise: exactly that share of all training labels is replaced by a uniformly random other "
        'class (the "flip" protocol). In brackets: points above or below zero-shot.',
        "",
        f"Zero-shot, `{one.zero_shot.template}`: **{100 * zero.accuracy:.1f}** "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f}).",
    ]
    for start, title in STARTS.items():
        untrained = [
            100 * results[start, "ce", "none", s].epochs[0].accuracy_test
            for s in SEEDS  # type: ignore[operator]
        ]
        lines += [
            "",
            f"## Start: {title}",
            "",
            f"Before training: {_mean_std(untrained)}.",
            "",
            "| loss | " + " | ".join(f"{_rate(n)} wrong" for n in NOISES) + " |",
            "| --- | " + " | ".join("---:" for _ in NOISES) + " |",
        ]
        for loss in LOSSES:
            cells = []
            for noise in NOISES:
                values = [100 * _accuracy(results[start, loss, noise, s]) for s in SEEDS]
                gain = statistics.fmean(values) - 100 * zero.accuracy
                cells.append(f"{_mean_std(values)} ({gain:+.1f})")
            lines.append(f"| {loss} | " + " | ".join(cells) + " |")
        gaps = []
        for noise in NOISES:
            paired = [
                100 * _accuracy(results[start, "dspt", noise, s])
                - 100 * _accuracy(results[start, "ce", noise, s])
                for s in SEEDS
            ]
            gaps.append(f"{statistics.fmean(paired):+.1f} ± {statistics.stdev(paired):.1f}")
        lines.append("| dspt − ce, paired | " + " | ".join(gaps) + " |")
        for loss in LOSSES:
            errors = [
                f"{statistics.fmean(_calibration(results[start, loss, n, s]) for s in SEEDS):.2f}"
                for n in NOISES
            ]
            lines.append(f"| calibration error, {loss} | " + " | ".join(errors) + " |")
    seconds = [r.time.training for r in results.values()]
    lines += [
        "",
        "## How it was made",
        "",
        f"- Command: `python tools/first_results.py CALTECH --out runs/first --jobs {jobs}`; every "
        "cell is `dspt fit CALTECH --shots 16 --init START --loss LOSS --noise NOISE --seed SEED`.",
        f"- Code: commit {commits(out)}; {_environment(one)}.",
        f"- Backbone: `{one.backbone.name}`, weights `{one.backbone.fingerprint[:12]}`, logit "
        f"scale {one.backbone.logit_scale:.2f}; recipe: the defaults (SGD 0.002, momentum 0.9, "
        "weight decay 5e-4, cosine, one warm-up epoch at 1e-5, batch 32, 50 epochs, last epoch).",
        f"- Training time of one run: median {statistics.median(seconds):.0f} s, one thread each, "
        f"{jobs} runs at once.",
        "",
    ]
    return "\n".join(lines)


def _accuracy(result: RunResult) -> float:
    assert result.final is not None
    return result.final.accuracy


def _calibration(result: RunResult) -> float:
    assert result.final is not None
    return result.final.calibration_error


def _mean_std(values: list[float]) -> str:
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def _rate(noise: str) -> str:
    return "0 %" if noise == "none" else f"{float(noise.split(':')[1]):.0%}".replace("%", " %")


def _environment(result: RunResult) -> str:
    e = result.environment
    return (
        f"torch {e.torch}, open_clip {e.open_clip}, Python {e.python}, "
        f"{platform.machine()}, {e.processor_count} CPU cores"
    )


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("caltech", type=Path, help="Caltech-101 in CoOp's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    cells = list(itertools.product(STARTS, LOSSES, NOISES, SEEDS))
    # Seeds in the outer place: an early stop leaves whole tables of fewer seeds.
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / COMMITS_FILE).open("a", encoding="utf-8") as file:
        file.write(commit() + "\n")
    cells.sort(key=lambda cell: cell[3])
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for _ in pool.map(lambda cell: fit(arguments.caltech, arguments.out, cell), cells):
            pass
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(arguments.out, arguments.jobs), encoding="utf-8")


if __name__ == "__main__":
    main()
