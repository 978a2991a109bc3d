"""``dspt fit``: train a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspt.cli import console, options
from dspt.errors import UserError

if TYPE_CHECKING:
    from dspt.result import RunResult

_PROMPT = "Prompt"
_RECIPE = "Training recipe (defaults: CoOp's)"


def _recipe(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=_RECIPE)


def command(
    data: options.Data,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the run. An unfinished run in it is continued.", show_default=False
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "--loss",
            help="A loss (dspt, ce, gce, ...) or more: see `dspt methods`.",
            autocompletion=options.offer(options.method_words),
        ),
    ] = "dspt",
    method_option: Annotated[
        list[str] | None,
        typer.Option(
            "--method-option",
            "--loss-option",
            help="A method's own setting, as q=0.5 for gce.",
            show_default=False,
        ),
    ] = None,
    shots: Annotated[str, typer.Option(help="Training pictures per class, or 'all'.")] = "16",
    noise: Annotated[
        str,
        typer.Option(
            help="Wrong labels to make: none; symmetric, asymmetric, pair, replace, replace-pair "
            "or instance, each with a rate as in symmetric:0.5; matrix:FILE; or column:NAME to "
            "train on labels that the data itself brings.",
            autocompletion=options.offer(options.noise_words),
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Of the draw, the noise, the start and the order.")] = 1,
    draw_seed: Annotated[
        int | None, typer.Option(help="Of the draw alone.", show_default=False)
    ] = None,
    noise_seed: Annotated[
        int | None, typer.Option(help="Of the noise alone.", show_default=False)
    ] = None,
    classes: Annotated[
        str, typer.Option(help="all, base or new (halves of the classes), or first:N.")
    ] = "all",
    transfer: Annotated[
        list[str] | None,
        typer.Option(
            help="Test the prompt elsewhere too: 'new' (with --classes base) or another data set.",
            show_default=False,
        ),
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="Measure every epoch what the gradient does."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew in --out.")] = False,
    backbone: options.Backbone = "default",
    pretrained: options.Pretrained = None,
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    n_ctx: Annotated[
        int | None,
        typer.Option(
            help="Context vectors. \\[default: 16, or as many as --init has tokens]",
            rich_help_panel=_PROMPT,
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            help="'random', or words to start from, as 'a photo of a'.", rich_help_panel=_PROMPT
        ),
    ] = "random",
    class_specific: Annotated[
        bool,
        typer.Option(
            "--class-specific", help="Own context vectors for every class.", rich_help_panel=_PROMPT
        ),
    ] = False,
    position: Annotated[
        str,
        typer.Option(
            help="Class name at the end, middle or front.",
            rich_help_panel=_PROMPT,
            autocompletion=options.one_of(("end", "middle", "front")),
        ),
    ] = "end",
    epochs: Annotated[int, _recipe("Passes over the training pictures.")] = 50,
    batch_size: Annotated[int, _recipe("Pictures per step.")] = 32,
    lr: Annotated[float, _recipe("Learning rate at its highest.")] = 0.002,
    momentum: Annotated[float, _recipe("Of SGD.")] = 0.9,
    weight_decay: Annotated[float, _recipe("Of SGD.")] = 5e-4,
    schedule: Annotated[
        str,
        typer.Option(
            help="Of the learning rate: cosine or constant.",
            rich_help_panel=_RECIPE,
            autocompletion=options.one_of(("cosine", "constant")),
        ),
    ] = "cosine",
    warmup_epochs: Annotated[int, _recipe("Epochs at --warmup-lr before the schedule.")] = 1,
    warmup_lr: Annotated[float, _recipe("Learning rate of these epochs.")] = 1e-5,
    views: Annotated[
        int,
        typer.Option(
            help="Augmented views per picture to train on; 0 for the picture itself.",
            rich_help_panel=_RECIPE,
        ),
    ] = 0,
    feature_precision: options.FeaturePrecision = "fp32",
    template: options.Template = None,
    root: options.Root = None,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    split_column: options.SplitColumn = None,
    holdout: options.Holdout = 0.2,
    cache: options.Cache = None,
    tensorboard: options.Tensorboard = False,
    wandb: options.Wandb = None,
    mlflow: options.Mlflow = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first unreadable picture.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a prompt on pictures whose labels may be wrong.

    The folder --out gets the prompt, the result, the suspicious labels and a report to look at.

    \b
    [bold]Examples[/]
    dspt fit my_pictures --out run
    dspt fit labels.csv --label-column tag --shots all --out run
    dspt fit caltech-101 --noise symmetric:0.5 --method ce --seed 2 --out run-ce
    dspt fit cifar-10n --noise column:worse_label --out run-human
    dspt fit my_pictures --backbone ViT-B-16 --pretrained openai --init "a photo of a" --out run
    dspt fit my_pictures --out runs/first --tensorboard
    """
    from dspt.fitting import fit

    trackers = options.trackers(tensorboard, wandb, mlflow)

    fields: dict[str, Any] = {
        "method": method,
        "method_options": options.method_options(method_option or []),
        "shots": _shots(shots),
        "noise": noise,
        "seed": seed,
        "pretrained": pretrained,
        "precision": precision,
        "prompt": {
            "n_ctx": n_ctx,
            "init": init,
            "class_specific": class_specific,
            "position": position,
        },
        "recipe": {
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "schedule": schedule,
            "warmup_epochs": warmup_epochs,
            "warmup_lr": warmup_lr,
        },
        "views": views,
        "feature_precision": feature_precision,
        "classes": classes,
        "data_root": None if root is None else str(root),
        "transfer": tuple(transfer or ()),
        "evidence": evidence,
        "template": template,
        "image_column": image_column,
        "label_column": label_column,
        "split_column": split_column,
        "holdout": holdout,
    }
    if draw_seed is not None:
        fields["draw_seed"] = draw_seed
    if noise_seed is not None:
        fields["noise_seed"] = noise_seed
    run = fit(
        data,
        backbone,
        out=out,
        overwrite=overwrite,
        cache=cache,
        device=device,
        progress=console.BarProgress(quiet),
        strict=strict,
        trackers=trackers,
        **fields,
    )
    print_result(run.result)
    console.out.print(f"report: {out / 'report.html'}", soft_wrap=True, markup=False)


def print_result(result: RunResult) -> None:
    """The run in a few lines."""
    percent = console.percent
    noise = result.noise
    wrong = "" if noise.n_wrong is None else f", {noise.n_wrong} of them wrong ({noise.spec})"
    lines = [
        f"{result.data.name}: {len(result.data.class_names)} classes, "
        f"{result.data.n_train} training labels{wrong}"
    ]
    if result.final is not None and result.zero_shot.test is not None:
        zero, final = result.zero_shot.test, result.final
        low, high = final.interval
        lines += [
            f"zero-shot  {percent(zero.accuracy)}  "
            f"(calibration error {percent(zero.calibration_error)})",
            f"{result.config.method:<9}  {percent(final.accuracy)}  "
            f"(calibration error {percent(final.calibration_error)}; 95 % interval "
            f"{percent(low)} to {percent(high)} on {final.n} test pictures)",
        ]
    else:
        lines.append("no test pictures, so no accuracy is reported")
    for line in lines:
        console.out.print(line, soft_wrap=True, markup=False)
    for warning in result.warnings:
        console.err.print(f"warning: {warning}", soft_wrap=True, markup=False)


def _shots(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"shots: must be a whole number or 'all', not {text!r}") from None
