"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspt.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from dspt.tracking import Tracker

_MODEL = "Model"
_DATA = "Data"
_TRACKING = "Tracking (metrics.jsonl in the run's folder is always written)"


def offer(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What the shell offers for a value, as ``autocompletion`` of an option or argument."""

    def matching(incomplete: str) -> list[str]:
        return [word for word in words() if word.startswith(incomplete)]

    return matching


def one_of(words: Sequence[str]) -> Callable[[str], list[str]]:
    """As :func:`offer`, for a fixed list."""
    return offer(lambda: words)


def method_words() -> list[str]:
    """Names of the methods."""
    from dspt.methods import method_names

    return method_names()


def noise_words() -> list[str]:
    """One example of every kind of noise that needs no name."""
    from dspt.noise.spec import RATED

    return ["none", *(f"{kind}:0.5" for kind in RATED)]


def data_words() -> list[str]:
    """Data sets known by name; for anything else the shell offers files."""
    from dspt.data.registry import CARDS

    return ["demo", *(card.name for card in CARDS)]


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders, a CSV / TSV / Parquet manifest or a folder of them, "
        "a Hugging Face datasets folder, one in CoOp's layout, 'demo', or a name of "
        "`dspt data list`.",
        show_default=False,
        autocompletion=offer(data_words),
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
    str,
    typer.Option(
        help="Of the towers: fp32, fp16 or bf16.",
        rich_help_panel=_MODEL,
        autocompletion=one_of(("fp32", "fp16", "bf16")),
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:1, ...",
        rich_help_panel=_MODEL,
        autocompletion=one_of(("auto", "cpu", "cuda")),
    ),
]
Split = Annotated[
    str,
    typer.Option(help="train, val or test.", autocompletion=one_of(("train", "val", "test"))),
]
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
        help="Of image features: fp32, or fp16 for half the cache.",
        rich_help_panel=_DATA,
        autocompletion=one_of(("fp32", "fp16")),
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
Tensorboard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Event files in the folder `tensorboard` of every run.",
        rich_help_panel=_TRACKING,
    ),
]
Wandb = Annotated[
    str | None,
    typer.Option(
        metavar="PROJECT",
        help="A project of Weights & Biases; WANDB_MODE=offline keeps it on this disk.",
        rich_help_panel=_TRACKING,
        show_default=False,
    ),
]
Mlflow = Annotated[
    str | None,
    typer.Option(
        metavar="EXPERIMENT",
        help="An experiment of MLflow, at $MLFLOW_TRACKING_URI or on this disk.",
        rich_help_panel=_TRACKING,
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no notes.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def check_choice(option: str, given: str, allowed: Collection[str]) -> None:
    """Refuse a value that is not among the allowed ones.

    Raises:
        UserError: naming them.
    """
    if given not in allowed:
        hint = did_you_mean(given, allowed)
        raise UserError(f"{option}: must be one of {', '.join(allowed)}, not {given!r}{hint}")


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


def trackers(tensorboard: bool, wandb: str | None, mlflow: str | None) -> list[Tracker]:
    """What the three options ask for.

    Raises:
        UserError: when a package that is needed is not installed.
    """
    if not (tensorboard or wandb or mlflow):
        return []
    from dspt import tracking

    asked = [tracking.to_wandb(wandb)] if wandb else []
    asked += [tracking.to_mlflow(mlflow)] if mlflow else []
    asked += [tracking.to_tensorboard()] if tensorboard else []  # last: it writes into the folder
    return asked
