"""``dspt audit``: which labels are probably wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspt.cli import console, options
from dspt.errors import UserError

if TYPE_CHECKING:
    from dspt.audit.record import AuditReport

_CLASSES_SHOWN = 5
_UNREADABLE_SHOWN = 10
_RUN_OPTIONS = {
    *("source", "out", "overwrite", "seed", "apply", "confidence", "top", "json", "quiet"),
    *("device", "cache"),
}
_SPLITS = ("train", "val", "test", "all")


def command(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_DATA",
            help="Folder of a finished run, whose training labels are audited as the run saw them; "
            "or any data that `dspt fit` takes.",
            show_default=False,
            autocompletion=options.offer(options.data_words),
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the audit. \\[default: audit in the run's folder, or audit-NAME]",
            show_default=False,
        ),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a manifest with corrected labels: a new .csv, .tsv or .parquet file.",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(min=0, max=1, help="What --apply asks of a proposal to replace a label."),
    ] = 0.7,
    split: Annotated[
        str,
        typer.Option(
            help="Of DATA: train, val, test or all. Nothing is held out, so own data without "
            "splits is audited completely.",
            autocompletion=options.one_of(_SPLITS),
        ),
    ] = "train",
    shots: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures per class. \\[default: all]", show_default=False),
    ] = None,
    noise: Annotated[
        str,
        typer.Option(
            help="Make labels of DATA wrong first, as `dspt fit` does, and say how many of them "
            "the audit finds; column:NAME audits labels that the data itself brings.",
            autocompletion=options.offer(options.noise_words),
        ),
    ] = "none",
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the audit; of DATA also of the draw and the noise. \\[default: the run's, "
            "or 1]",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        str, typer.Option(help="all, base or new (halves of the classes), or first:N.")
    ] = "all",
    top: Annotated[int, typer.Option(min=0, help="How many suspects to print.")] = 10,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an audit in --out.")
    ] = False,
    backbone: options.Backbone = "default",
    pretrained: options.Pretrained = None,
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    template: options.Template = None,
    root: options.Root = None,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    split_column: options.SplitColumn = None,
    feature_precision: options.FeaturePrecision = "fp32",
    cache: options.Cache = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank labels by how probably each is wrong, and propose better ones.

    The folder --out gets audit.html to look at, audit.csv with every label and audit.json. Nothing
    of the data is changed.

    \b
    [bold]Examples[/]
    dspt audit my_pictures
    dspt audit labels.csv --label-column tag --apply corrected.csv --confidence 0.9
    dspt audit run --top 30
    dspt audit caltech101 --shots 16 --noise symmetric:0.25
    """
    from dspt.audit.corrected import CorrectedManifest
    from dspt.audit.job import audit, data_settings, is_run, run_settings

    if apply is None and _given(context, "confidence"):
        raise UserError("confidence: is asked of proposals by --apply FILE; give both")
    run = Path(source).expanduser() if is_run(source) else None
    if run is not None:
        for name in context.params:
            if name not in _RUN_OPTIONS and _given(context, name):
                option = name.replace("_", "-")
                raise UserError(
                    f"{option}: chooses from DATA; {source} is a run, audited as it was; leave it "
                    "out"
                )
        settings = run_settings(run, seed)
    else:
        settings = data_settings(
            source,
            split=split,
            seed=1 if seed is None else seed,
            shots=shots,
            noise=noise,
            classes=classes,
            backbone=backbone,
            pretrained=pretrained,
            precision=precision,
            template=template,
            data_root=None if root is None else str(root),
            image_column=image_column,
            label_column=label_column,
            split_column=split_column,
            feature_precision=feature_precision,
        )
    corrected = None if apply is None else CorrectedManifest(settings.config, apply)
    report = audit(
        settings,
        run=run,
        out=out,
        overwrite=overwrite,
        device=device,
        cache=cache,
        progress=console.BarProgress(quiet),
    )
    if json:
        _print(report.record.model_dump_json(indent=1))
    else:
        print_report(report, top)
    if corrected is not None:
        changed = corrected.write(report, confidence)
        if not json:
            _print(
                f"corrected: {apply}, {changed} of {report.record.n} labels replaced where the "
                f"proposal's confidence is at least {confidence:g}"
            )


def print_report(report: AuditReport, top: int) -> None:
    """An audit in a few lines: how much is wrong, where, the worst suspects, what is not seen."""
    from dspt.audit.page import BLIND_SPOT, TITLES, UNINFORMED

    record, percent = report.record, console.percent
    low, high = record.noise_interval
    _print(f"{record.name}: {len(record.class_names)} classes, {record.n} labels audited")
    if not record.informed:
        _print(f"warning: {UNINFORMED}")
    _print(
        f"probably wrong: {percent(record.noise_rate)} of the labels (95 % interval {percent(low)} "
        f"to {percent(high)}); for {record.n_suspects} another class is more probable"
    )
    worst = sorted((c for c in record.classes if c.suspects), key=lambda c: -c.expected_wrong / c.n)
    if worst:
        shown = [f"{c.name} ({c.suspects} of {c.n})" for c in worst[:_CLASSES_SHOWN]]
        _print(f"labels most affected: {', '.join(shown)}")
    quality = record.quality
    if quality is not None:
        _print(
            f"really wrong: {percent(quality.noise_rate)}, {quality.n_wrong} labels; the ranking "
            "did not see this"
        )
        if quality.evidence:
            head = ("AUROC", "average precision", "precision at the true rate")
            _print(f"{'evidence':<24}" + "".join(f"{name:>{len(name) + 2}}" for name in head))
        for name, q in quality.evidence.items():
            _print(
                f"{TITLES[name]:<24}{q.auroc:>7.3f}{q.average_precision:>19.3f}"
                f"{q.precision_at_true_rate:>28.3f}"
            )
    suspects = report.suspects[:top]
    if suspects:
        names = record.class_names
        _print("")
        _print("most suspicious (given label -> proposed label, confidence):")
        for f in suspects:
            change = f"{names[f.given]} -> {names[f.proposed]}"
            _print(f"  {f.image}: {change}, {percent(f.confidence)}")
        _print("")
    _print(f"look: {report.folder / 'audit.html'}; every label: {report.folder / 'audit.csv'}")
    if record.informed:
        _print(f"note: {BLIND_SPOT}")
    for warning in record.warnings:
        console.err.print(f"warning: {warning}", soft_wrap=True, markup=False)
    for reason in record.unreadable[:_UNREADABLE_SHOWN]:
        console.err.print(f"left out: {reason}", soft_wrap=True, markup=False)
    more = len(record.unreadable) - _UNREADABLE_SHOWN
    if more > 0:
        console.err.print(f"left out: {more} more, named in {report.folder / 'audit.json'}")


def _given(context: typer.Context, name: str) -> bool:
    """Whether the call itself gave an option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _print(line: str) -> None:
    console.out.print(line, soft_wrap=True, markup=False)
