"""``dspt export``: a trained classifier for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspt.cli import console, options


def command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a finished run, or a saved prompt."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files. \\[default: RUN/export]", show_default=False),
    ] = None,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx",
            help="Also image tower and classifier as one ONNX file; needs `pip install "
            "'dspt\\[onnx]'`.",
        ),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write what a run trained for open_clip and, with --onnx, for onnxruntime.

    classifier.safetensors holds the class embeddings, classifier.json the class names, the logit
    scale, the backbone and its preprocessing.

    \b
    [bold]Examples[/]
    dspt export run
    dspt export run --onnx --out classifier/
    """
    from dspt.export import export_embeddings, export_onnx
    from dspt.model import load_model

    progress = console.BarProgress(quiet)
    model = load_model(run, device="cpu")
    folder = out or (run if run.is_dir() else run.parent) / "export"
    with progress.task("exporting") as advance:
        # The ONNX file first: what it needs may be missing, and then nothing is written.
        in_onnx = export_onnx(model, folder) if onnx else None
        advance(int(onnx), 1 + onnx)
        files = export_embeddings(model, folder)
        advance(1 + onnx, 1 + onnx)
    if in_onnx is not None:
        files.append(in_onnx[0])
        progress.note(f"onnxruntime's outputs agree with ours to {in_onnx[1]:.0e}")
    for file in files:
        console.out.print(str(file), soft_wrap=True, markup=False)
