"""``dspt table``: results as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from dspt.cli import console, options

Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER...",
        help="Folders of runs, or folders that hold some at any depth, such as a bench's.",
        show_default=False,
    ),
]


def command(
    folders: Folders,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="markdown, csv or latex.",
            autocompletion=options.one_of(("markdown", "csv", "latex")),
        ),
    ] = "markdown",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. \\[default: standard output]", show_default=False),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            help="The method that is compared with every other one.",
            autocompletion=options.offer(options.method_words),
        ),
    ] = "dspt",
    metric: Annotated[
        str,
        typer.Option(
            help="What the tables hold: accuracy or calibration (its error).",
            autocompletion=options.one_of(("accuracy", "calibration")),
        ),
    ] = "accuracy",
    published: Annotated[
        bool,
        typer.Option("--published", help="Add published numbers, in rows marked as such."),
    ] = False,
) -> None:
    """Turn results into the field's tables: mean and spread over seeds, best in bold.

    One table for every data set, model and number of shots, with methods as rows and noise as
    columns, and below it the paired difference of DSPT to every other method with its interval.

    \b
    [bold]Examples[/]
    dspt table runs
    dspt table runs --format latex --out tables.tex
    dspt table runs --against ce --metric calibration
    """
    from dspt.bench.published import read_published
    from dspt.bench.tables import FORMATS, Format, render_tables
    from dspt.files import write_text
    from dspt.report.collect import collect
    from dspt.report.summary import METRICS, Metric

    options.check_choice("format", form, FORMATS)
    options.check_choice("metric", metric, METRICS)
    found = collect(folders)
    text = render_tables(
        found,
        cast(Format, form),
        against=against,
        metric=cast(Metric, metric),
        published=read_published() if published else None,
    )
    for line in found.skipped:
        console.err.print(f"warning: left out: {line}", soft_wrap=True, markup=False)
    if out is None:
        console.out.print(text, end="", soft_wrap=True, markup=False)
    else:
        write_text(out, text)
