"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspt.errors import UserError

_MODEL = "Model"
_DATA = "Data"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders, a CSV / TSV / Parquet manifest or a folder of them, "
        "a folder in CoOp's layout, 'demo', or a name of `dspt data list`.",
        show_default=False,
    ),
]
Backbone = Annotated[
    str,
    typer.Option(
        help="'default' (ships with dspt), a model name of open_clip, hf-hub:ORG/MODEL, "
        "local-dir:FOLDER or a model folder.",
        rich_help_panel=_MODEL,
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        help="Weights for a model name: a tag, a checkpoint file, or 'none' for random ones.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
Precision = Annotated[
    str, typer.Option(help="Of the towers: fp32, fp16 or bf16.", rich_help_panel=_MODEL)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...", rich_help_panel=_MODEL)]
Template = Annotated[
    str | None,
    typer.Option(
        help="Zero-shot prompt with {} for the class name. \\[default: the data set's own]",
        show_default=False,
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        help="Manifest column with paths or image bytes.", rich_help_panel=_DATA, show_default=False
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Manifest column with labels.", rich_help_panel=_DATA, show_default=False),
]
SplitColumn = Annotated[
    str | None,
    typer.Option(
        help="Manifest column with train / val / test.", rich_help_panel=_DATA, show_default=False
    ),
]
Holdout = Annotated[
    float,
    typer.Option(
        help="Share held out for testing when the data has no test split; 0 for none.",
        rich_help_panel=_DATA,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Where data sets known by name lie (`dspt data list`). \\[default: $DSPT_DATA]",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
FeaturePrecision = Annotated[
    str,
    typer.Option(
        help="Of image features: fp32, or fp16 for half the cache.", rich_help_panel=_DATA
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder for image features. \\[default: $DSPT_CACHE or ~/.cache/dspt]",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no notes.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def method_options(pairs: list[str]) -> dict[str, float | str]:
    """Options of a method from ``name=value`` texts; what reads as a number is one.

    Raises:
        UserError: for a text without "=".
    """
    options: dict[str, float | str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name or not value:
            raise UserError(f"method-option: must look like q=0.5, not {pair!r}")
        try:
            options[name] = float(value)
        except ValueError:
            options[name] = value
    return options
