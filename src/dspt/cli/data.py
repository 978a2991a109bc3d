"""``dspt data``: which data sets are known, what is on this disk, and getting the rest."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspt.cli import console, options
from dspt.errors import UserError

if TYPE_CHECKING:
    from dspt.data.on_disk import DiskCheck
    from dspt.data.recognition import Recognition
    from dspt.data.summary import DataSummary

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List known data sets, check them on disk, get them, look into any data.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `dspt data list` shows.")]
_SHOWN = 10


@app.command("list")
def list_command(root: options.Root = None, json: options.Json = False) -> None:
    """List the data sets that can be given by name, and whether they are on this disk.

    \b
    [bold]Examples[/]
    dspt data list
    dspt data list --root ~/datasets --json
    """
    from dspt.data.on_disk import is_on_disk
    from dspt.data.registry import CARDS, data_root, find_root

    place = data_root(root)
    rows = []
    for card in CARDS:
        folder = find_root(card.name, place) if place is not None else None
        row = asdict(card)
        row["on_disk"] = is_on_disk(card, place) if place is not None else None
        row["folder"] = str(folder) if folder is not None else None
        rows.append(row)
    if json:
        _print(json_module.dumps(rows, indent=1))
        return
    _print(
        f"{'name':<15} {'classes':>7} {'train':>8} {'val':>6} {'test':>6}  {'on disk':<8} "
        f"{'get':<4} licence"
    )
    for card, row in zip(CARDS, rows, strict=True):
        train, val, test = card.sizes
        _print(
            f"{card.name:<15} {card.num_classes:>7} {train:>8} {val or '-':>6} {test:>6}  "
            f"{row['on_disk'] or '?':<8} {'yes' if card.torchvision else 'no':<4} {card.licence}"
        )
    if place is None:
        _print("")
        _print("on disk: unknown without --root or $DSPT_DATA")


@app.command("check")
def check_command(
    name: Name,
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder that holds the data sets.")],
    json: options.Json = False,
) -> None:
    """Say exactly what of a data set is missing.

    Exit code 0: everything is there, 2: something is missing. Every listed picture is looked for;
    none is opened (`dspt data show` does that).

    \b
    [bold]Examples[/]
    dspt data check caltech101 ~/datasets
    dspt data check cifar10n ~/datasets --json
    """
    from dspt.data.on_disk import check_dataset

    checked = check_dataset(name, root)
    if json:
        _print(json_module.dumps(_as_json(checked), indent=1))
    else:
        _print_check(checked)
    if not checked.complete:
        raise typer.Exit(2)


@app.command("get")
def get_command(
    name: Name,
    root: options.Root = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Official file of human labels for cifar10n and cifar100n. \\[default: in the "
            "data set's folder]",
            show_default=False,
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Download a data set with torchvision, then check it. Exit codes as of `dspt data check`.

    What already lies there is kept. Licences differ: `dspt data list` shows them.

    \b
    [bold]Examples[/]
    dspt data get dtd --root ~/datasets
    dspt data get cifar10n --root ~/datasets --labels CIFAR-10_human.pt
    """
    from dspt.data.download import get_dataset
    from dspt.data.registry import VARIABLE, data_root

    place = root if root is not None else data_root(None)
    if place is None:
        raise UserError(f"where to? give --root or set {VARIABLE}")
    checked = get_dataset(name, place, labels=labels, progress=console.BarProgress(quiet))
    _print_check(checked)
    if not checked.complete:
        raise typer.Exit(2)


@app.command("show")
def show_command(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A path, 'demo', or a name that `dspt data list` shows."
        ),
    ],
    root: options.Root = None,
    classes: Annotated[str, typer.Option(help="all, base, new or first:N.")] = "all",
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures",
            help="Read every picture and try the class names on some; without, count only.",
        ),
    ] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first unreadable picture.")
    ] = False,
    backbone: options.Backbone = "default",
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    split_column: options.SplitColumn = None,
    holdout: options.Holdout = 0.2,
    cache: options.Cache = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what a data set holds, as `dspt fit` would see it, and what is odd about it.

    Classes, counts, imbalance; pictures that cannot be read or occur twice; class names that mean
    nothing to the model, by zero-shot recall on up to 32 training pictures of every class.

    \b
    [bold]Examples[/]
    dspt data show my_pictures
    dspt data show my_pictures --backbone ViT-B-16 --pretrained openai
    dspt data show caltech101 --root ~/datasets --classes base --no-pictures
    """
    from dspt.data.door import load_dataset
    from dspt.data.summary import summarise

    if strict and not pictures:
        raise UserError("--strict reads the pictures; leave out --no-pictures")

    dataset = load_dataset(
        data,
        image_column=image_column,
        label_column=label_column,
        split_column=split_column,
        holdout=holdout,
        root=root,
        classes=classes,
    )
    progress = console.BarProgress(quiet)
    summary = summarise(dataset, pictures=pictures, strict=strict, progress=progress)
    recognition = None
    if summary.readable is not None and set(dataset.splits["train"]) & set(summary.readable):
        from dspt.backbones import load_backbone
        from dspt.data.recognition import recognise

        model = load_backbone(backbone, pretrained, device=device)
        recognition = recognise(
            dataset, model, readable=summary.readable, cache=cache, progress=progress
        )
    if json:
        shown = {name: value for name, value in asdict(summary).items() if name != "readable"}
        shown["zero_shot"] = None if recognition is None else asdict(recognition)
        _print(json_module.dumps(shown, indent=1))
    else:
        _print_summary(summary, recognition)


def _print(line: str) -> None:
    console.out.print(line, soft_wrap=True, markup=False)


def _as_json(checked: DiskCheck) -> dict[str, object]:
    return {
        "name": checked.card.name,
        "complete": checked.complete,
        "folder": str(checked.folder) if checked.folder is not None else None,
        "problems": list(checked.problems),
        "pictures": checked.pictures,
        "missing": list(checked.missing),
    }


def _print_check(checked: DiskCheck) -> None:
    card = checked.card
    if checked.complete:
        _print(f"{card.name}: complete, {checked.pictures} pictures in {checked.folder}")
        return
    _print(f"{card.name}: incomplete")
    for problem in checked.problems:
        _print(f"- {problem}")
    _print(f"layout: {card.layout}")
    _print(f"source: {card.source}" + (f" and {card.index_source}" if card.index_source else ""))
    if card.torchvision:
        what = "it" if card.reader == "table" else "the pictures"
        _print(f"download: `dspt data get {card.name} --root {checked.root}` gets {what}")
        if checked.missing:
            _print("- what is there is kept: remove a folder that lacks pictures first")


def _print_summary(summary: DataSummary, recognition: Recognition | None) -> None:
    names = summary.class_names
    _print(f"{summary.name}: {len(names)} classes")
    for split, counts in summary.counts.items():
        held = " (held out)" if split == "test" and summary.test_source == "holdout" else ""
        _print(f"{split:<6}{sum(counts):>8} pictures, {min(counts)} to {max(counts)} a class{held}")
    if summary.test_source == "none":
        _print("test       none")
    ratio = f"{summary.imbalance:.1f} : 1" if summary.imbalance else "a class has no picture"
    _print(f"largest to smallest class in training: {ratio}")
    for name, (differs, there) in summary.columns.items():
        total = sum(summary.counts["train"])
        known = "" if there == total else f" ({there} of {total} training pictures have one)"
        _print(f"label column {name}: {console.percent(differs)} differ from the labels{known}")
    _print("")
    recall = [] if recognition is None else recognition.recall
    head = "  zero-shot recall" if recall else ""
    _print(f"{'class':<40}" + "".join(f"{split:>8}" for split in summary.counts) + head)
    for number, class_name in enumerate(names):
        cells = "".join(f"{counts[number]:>8}" for counts in summary.counts.values())
        known = f"{console.percent(recall[number]):>18}" if recall else ""
        _print(f"{class_name:<40}{cells}{known}")
    if summary.unreadable is not None and summary.duplicates is not None:
        _print("")
        _print(f"unreadable pictures: {len(summary.unreadable)}")
        _print_some(summary.unreadable)
        _print(
            f"groups of identical pictures: {len(summary.duplicates)}; {summary.across_splits} in "
            f"several splits, {summary.disagreeing} with several labels"
        )
        _print_some([", ".join(group[:_SHOWN]) for group in summary.duplicates])
    if recognition is not None:
        _print_recognition(names, recognition)


def _print_recognition(names: tuple[str, ...], found: Recognition) -> None:
    if found.unknown:
        _print(
            f"warning: {len(found.unknown)} of {len(names)} class names mean nothing to "
            f'{found.backbone} ("{found.template}"); say them in words that a caption would use'
        )
        lines = []
        for label in found.unknown:
            share, n, other = found.recall[label], found.pictures[label], found.taken_for[label]
            taken = "" if other is None else f", most are taken for {names[other]}"
            lines.append(f"{names[label]}: {round((share or 0) * n)} of {n} recognised{taken}")
        _print_some(lines)
    if found.alike:
        _print(
            f"warning: {len(found.alike)} pairs of class names are the same to {found.backbone}; "
            "rename or merge them"
        )
        _print_some([f"{names[one]} and {names[other]}" for one, other in found.alike])


def _print_some(lines: list[str]) -> None:
    """The first lines of a list, and how many more there are."""
    for line in lines[:_SHOWN]:
        _print(f"- {line}")
    if len(lines) > _SHOWN:
        _print(f"- and {len(lines) - _SHOWN} more (all of them with --json)")
