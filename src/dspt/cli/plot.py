"""``dspt plot``: results as figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspt.cli import console
from dspt.cli.table import Folders


def command(
    folders: Folders,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .png or .svg; without a suffix, both.", show_default=False
        ),
    ],
    dark: Annotated[bool, typer.Option("--dark", help="Light lines on a dark card.")] = False,
) -> None:
    """Draw test accuracy against the share of wrong labels, with the zero-shot line.

    One panel for every data set, model, number of shots and kind of noise. Error bars are one
    standard deviation over seeds.

    \b
    [bold]Examples[/]
    dspt plot runs --out accuracy
    dspt plot runs --out figure1.svg
    """
    from dspt.bench.plots import check_target, noise_figure, write_figure
    from dspt.report.collect import collect

    check_target(out)
    found = collect(folders)
    written = write_figure(noise_figure(found), out, dark=dark)
    for line in found.skipped:
        console.err.print(f"warning: left out: {line}", soft_wrap=True, markup=False)
    for path in written:
        console.out.print(str(path), soft_wrap=True, markup=False)
