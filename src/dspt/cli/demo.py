"""``dspt demo``: see it work."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspt.cli import console, options

if TYPE_CHECKING:
    from dspt.demo import Demo


def command(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path(
        "dspt-demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs per setting, with seeds 1, 2, ...")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training.")] = 50,
    open_report: Annotated[
        bool, typer.Option("--open", help="Open the report in the browser.")
    ] = False,
    cache: options.Cache = None,
    quiet: options.Quiet = False,
) -> None:
    """Tune a prompt on real pictures with wrong labels: cross-entropy against DSPT.

    Uses the model and the pictures that ship with dspt; no network. Prints a table and writes an
    HTML report.

    \b
    [bold]Examples[/]
    dspt demo
    dspt demo --seeds 3 --out demo3 --open
    """
    from dspt.demo import run_demo

    again = "dspt demo" + ("" if seeds == 1 else f" --seeds {seeds}")
    demo = run_demo(
        out,
        seeds=tuple(range(1, seeds + 1)),
        epochs=epochs,
        cache=cache,
        progress=console.BarProgress(quiet),
        command=again,
    )
    for line in table(demo):
        console.out.print(line, soft_wrap=True, markup=False)
    console.out.print(f"report: {demo.report}", soft_wrap=True, markup=False)
    if open_report:
        typer.launch(demo.report.resolve().as_uri())


def table(demo: Demo) -> list[str]:
    """Accuracy on the test pictures by method and noise rate, against zero-shot, as lines."""
    from dspt.demo import METHODS, RATES

    first = demo.runs[0].result
    assert first.zero_shot.test is not None
    zero = first.zero_shot.test.accuracy
    lines = [
        f"Top-1 accuracy on {first.data.n_test} test pictures, "
        f"{len(first.data.class_names)} classes, {first.data.shots} labels per class",
        "",
        f"{'wrong labels':<14}" + "".join(f"{rate:>16.0%}" for rate in RATES),
        f"{'zero-shot':<14}" + f"{100 * zero:>15.1f} " * len(RATES),
    ]
    for method in METHODS:
        cells = []
        for rate in RATES:
            accuracies = [
                run.result.final.accuracy
                for run in demo.runs
                if run.result.config.method == method
                and run.result.config.noise.rate == rate
                and run.result.final is not None
            ]
            mean = statistics.fmean(accuracies)
            cells.append(f"{100 * mean:>8.1f} ({100 * (mean - zero):+5.1f})")
        lines.append(f"{method:<14}" + "".join(cells))
    lines += ["", "In brackets: points above or below zero-shot."]
    return lines
