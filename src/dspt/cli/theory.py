"""``dspt theory``: the losses drawn from their formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspt.cli import console, options


def command(
    out: Annotated[Path, typer.Option(help="Folder for the page and the pictures.")] = Path(
        "dspt-theory"
    ),
    quiet: options.Quiet = False,
) -> None:
    """Draw what each loss does to a label, from the formulas alone.

    Writes one HTML page, complete in itself, and every picture as PNG and SVG. Needs no data, no
    model and no network.

    \b
    [bold]Examples[/]
    dspt theory
    dspt theory --out pictures
    """
    from dspt.files import write_bytes, write_text
    from dspt.theory.page import render_theory
    from dspt.theory.pictures import all_pictures

    drawings = all_pictures()
    with console.BarProgress(quiet).task("drawing") as advance:
        for done, drawing in enumerate(drawings):
            advance(done, len(drawings) + 1)
            write_bytes(out / f"{drawing.name}.png", drawing.png())
            write_text(out / f"{drawing.name}.svg", drawing.svg())
        advance(len(drawings), len(drawings) + 1)
        page = out / "theory.html"
        write_text(page, render_theory())
        advance(len(drawings) + 1, len(drawings) + 1)
    console.out.print(f"pictures: {len(drawings)}, as PNG and SVG", soft_wrap=True, markup=False)
    console.out.print(f"page: {page}", soft_wrap=True, markup=False)
