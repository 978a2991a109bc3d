"""``dspt zeroshot``: what the untrained model knows."""

from __future__ import annotations

from dspt.cli import console, options
from dspt.cli.evaluate import print_measurement


def command(
    data: options.Data,
    split: options.Split = "test",
    backbone: options.Backbone = "default",
    pretrained: options.Pretrained = None,
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    template: options.Template = None,
    root: options.Root = None,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    split_column: options.SplitColumn = None,
    holdout: options.Holdout = 0.2,
    cache: options.Cache = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the untrained model with a hand-written prompt.

    \b
    [bold]Examples[/]
    dspt zeroshot my_pictures
    dspt zeroshot caltech-101 --template "a picture of a {}." --json
    dspt zeroshot my_pictures --backbone ViT-B-32 --pretrained laion2b_s34b_b79k
    """
    from dspt.measuring import measure_zero_shot

    measured = measure_zero_shot(
        data,
        backbone,
        pretrained=pretrained,
        precision=precision,
        device=device,
        template=template,
        split=split,
        root=root,
        image_column=image_column,
        label_column=label_column,
        split_column=split_column,
        holdout=holdout,
        cache=cache,
        progress=console.BarProgress(quiet),
    )
    print_measurement(measured.model_dump_json(indent=1) if json else measured)
