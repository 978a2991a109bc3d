"""The page that sets methods against noise: the demo's, and the bench's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspt.report import figures, wording
from dspt.report.evidence import evidence_section, evidence_table
from dspt.report.figures import Drawing
from dspt.report.gallery import Card, Verdict, Wall
from dspt.report.page import Pictures, Thumbnail, render_page
from dspt.report.summary import Block, Condition, Method, block_titles, summarise
from dspt.result import RunResult, Suspect
from dspt.theory.bounds import label_free_range
from dspt.theory.closed_forms import has_closed_form

GALLERY_LIMIT = 48


@dataclass(frozen=True)
class Gallery:
    """Training pictures of one run as its tuned prompt, and others, see them.

    ``suspects`` should hold every training sample of the run: the counts are taken over what is
    listed. ``rivals`` maps the name of another method to the same samples seen by its prompt.
    """

    title: str
    caption: str
    suspects: Sequence[Suspect]
    class_names: Sequence[str]
    method: str = "DSPT"
    rivals: Mapping[str, Sequence[Suspect]] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of the page that the caller writes: plain text, a table, a figure; all escaped."""

    title: str
    paragraphs: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figure: Drawing | None = None


def render_comparison(
    title: str,
    intro: str,
    results: Sequence[RunResult],
    galleries: Sequence[Gallery],
    thumbnail: Thumbnail,
    command: str,
    sections: Sequence[Section] = (),
) -> str:
    """A self-contained page: who wins where, why, and pictures of what was refused.

    Args:
        title: of the page.
        intro: a paragraph of plain text below it.
        results: of any methods, noise rates and seeds; grouped and averaged here.
        galleries: training pictures with counts of what was refused and what was learned.
        thumbnail: the encoded small picture (JPEG, PNG, GIF or WebP) of a suspect's id, or None.
        command: what makes this page again.
        sections: further parts, placed before the settings.

    Raises:
        ValueError: without any result.
    """
    if not results:
        raise ValueError("a comparison needs at least one result")
    blocks = summarise(results)
    drawable = [b for b in blocks if _drawable(b)]
    pictures = Pictures(thumbnail)
    return render_page(
        "comparison.html",
        title=title,
        intro=intro,
        command=command,
        takeaways=[
            (title if len(blocks) > 1 else "", text)
            for title, b in zip(block_titles(blocks), blocks, strict=True)
            if (text := wording.summary_sentence(b))
        ],
        figure=figures.accuracy_drawing(drawable) if drawable else None,
        tables=[
            _table(block, title) for title, block in zip(block_titles(blocks), blocks, strict=True)
        ],
        gradient=_gradient(blocks, results),
        evidence=evidence_section(results),
        evidence_table=evidence_table(results),
        galleries=[_gallery(gallery, pictures) for gallery in galleries],
        sections=sections,
        facts=_facts(results),
    )


def _drawable(block: Block) -> bool:
    return sum(any(block.cell(m, c) for m in block.methods) for c in block.conditions) > 1


def _table(block: Block, title: str) -> dict[str, Any]:
    best = wording.best_per_condition(block)
    tested = [c for c in block.conditions if c in best]
    rows = []
    for method in block.rivals:
        cells = []
        for condition in tested:
            cell = block.cell(method, condition)
            cells.append(
                None
                if cell is None
                else {
                    "mean": f"{100 * cell.mean:.1f}",
                    "std": None if cell.std is None else f"{100 * cell.std:.1f}",
                    "gain": None if cell.gain is None else wording.signed(cell.gain.mean),
                    "tone": _tone(cell.gain.mean) if cell.gain is not None else "",
                    "best": method.label in best[condition],
                }
            )
        rows.append({"label": method.label, "cells": cells, "own": method.canonical == "dspt"})
    zero = [
        {"mean": f"{100 * z:.1f}", "best": "zero-shot" in best[c]}
        if (z := block.zero_shot(c)) is not None
        else None
        for c in tested
    ]
    repeats = sorted(
        {cell.n for m in block.methods for c in tested if (cell := block.cell(m, c)) is not None}
    )
    n_test = sorted({run.final.n for run in block.all_runs if run.final is not None})
    note = []
    if repeats:
        most = wording.listing(str(n) for n in repeats)
        note.append(
            wording.SINGLE
            if repeats == [1]
            else f"Mean ± standard deviation over {most} runs that differ in their seeds only."
        )
    if n_test:
        size = wording.listing(wording.count(n) for n in n_test)
        note.append(f"Accuracy on {size} test pictures.")
        half = max(
            (run.final.interval[1] - run.final.interval[0]) / 2
            for run in block.all_runs
            if run.final is not None
        )
        note.append(
            "That many pictures alone leave each number uncertain "
            f"by up to ±{100 * half:.1f} points."
        )
    texts = wording.findings(block)
    if any("clearly" in text for text in texts):
        note.append(wording.CLEARLY)
    mae, dspt = block.method("mae"), block.method("dspt")
    if mae is not None and dspt is not None:
        classes = len(block.all_runs[0].data.class_names)
        spread = label_free_range(classes)
        texts.append(
            "DSPT is half the MAE loss plus a term that ignores the label; with "
            f"{wording.count(classes)} classes that term varies by at most {spread:.2g} while the "
            "loss spans 1. Near-ties between the two are expected, more so with more classes."
        )
    return {
        "title": title,
        "header": [c.label for c in tested],
        "rated": all(c.rate is not None for c in tested),
        "rows": rows,
        "zero": zero if any(zero) else None,
        "note": " ".join(note),
        "findings": texts,
        "untested": not tested,
    }


def _tone(gain: float) -> str:
    return "" if abs(gain) < 0.0005 else "up" if gain > 0 else "down"


# The gradient picture


def _measured(block: Block, method: Method, condition: Condition) -> list[RunResult]:
    return [
        run
        for run in block.runs(method, condition)
        if run.epochs
        and run.epochs[-1].gradient_norm_clean
        and run.epochs[-1].gradient_norm_mislabelled is not None
    ]


def _ratio(runs: Sequence[RunResult], place: int) -> float:
    """Mean over runs of wrong against right labels' gradient norm at an epoch."""
    ratios = []
    for run in runs:
        epoch = run.epochs[place]
        if epoch.gradient_norm_clean and epoch.gradient_norm_mislabelled is not None:
            ratios.append(epoch.gradient_norm_mislabelled / epoch.gradient_norm_clean)
    return statistics.fmean(ratios) if ratios else float("nan")


def _start_to_end(runs: Sequence[RunResult]) -> str:
    return f"{_ratio(runs, 0):.2f} \u2192 {_ratio(runs, -1):.2f}"


def _gradient(blocks: Sequence[Block], results: Sequence[RunResult]) -> dict[str, Any]:
    block = blocks[0]
    classes = len(results[0].data.class_names)
    losses = [
        (m.key, {k: v for k, v in m.options if not isinstance(v, str)}) for m in block.methods
    ]
    known = any(has_closed_form(loss) for loss, _ in losses)
    values: dict[str, Any] = {
        "classes": classes,
        "formula": figures.gradient_by_probability(classes, losses if known else None),
        "epochs": None,
        "text": None,
        "ratios": None,
    }
    conditions = [
        c
        for c in block.conditions
        if not c.clean and any(_measured(block, m, c) for m in block.methods)
    ]
    if not conditions:
        return values
    dspt, ce = block.method("dspt"), block.method("ce")
    pair = [m for m in (ce, dspt) if m is not None] or list(block.methods[:2])

    def shown_by(condition: Condition) -> int:
        return sum(bool(_measured(block, m, condition)) for m in pair)

    # The rate nearest to one half at which both were measured: neither the easiest nor the worst.
    chosen = min(conditions, key=lambda c: (-shown_by(c), abs((c.rate or 0.5) - 0.5)))
    groups = [(m, runs) for m in pair if (runs := _measured(block, m, chosen))]
    if groups:
        values["epochs"] = figures.gradient_by_epoch([(m.label, runs) for m, runs in groups])
        values["condition"] = chosen.label
        values["text"] = wording.gradient_sentence(
            chosen.label, [(m.name, _ratio(runs, 0), _ratio(runs, -1)) for m, runs in groups]
        )
    values["ratios"] = {
        "header": [c.label for c in conditions],
        "rows": [
            (
                method.label,
                [
                    _start_to_end(runs) if (runs := _measured(block, method, c)) else wording.DASH
                    for c in conditions
                ],
            )
            for method in block.methods
        ],
    }
    return values


# Pictures


def _counts(name: str, samples: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    """What a model does to labels; a sample is (given, preferred, true)."""
    wrong = [(given, says, true) for given, says, true in samples if given != true]
    right = [(given, says) for given, says, true in samples if given == true]
    refused = [(says, true) for given, says, true in wrong if says != given]
    return {
        "name": name,
        "wrong": len(wrong),
        "refused": len(refused),
        "corrected": sum(says == true for says, true in refused),
        "learned": len(wrong) - len(refused),
        "right": len(right),
        "contradicted": sum(given != says for given, says in right),
    }


def _gallery(gallery: Gallery, pictures: Pictures) -> dict[str, Any]:
    known = [s for s in gallery.suspects if s.true is not None]
    counts = []
    if known:
        counts.append(_counts("Zero-shot", _triples(known, lambda s: s.zero_shot)))
        for rival, suspects in gallery.rivals.items():
            counts.append(_counts(rival, _triples(suspects, lambda s: s.proposed)))
        counts.append(_counts(gallery.method, _triples(known, lambda s: s.proposed)))
    refused = [
        s
        for s in gallery.suspects
        if s.proposed != s.given and (s.true is None or s.true != s.given)
    ]
    others = {
        rival: {s.id: s.proposed for s in suspects} for rival, suspects in gallery.rivals.items()
    }
    cards = [
        _card(gallery, suspect, others, pictures(suspect.id)) for suspect in refused[:GALLERY_LIMIT]
    ]
    groups = (("good", "Truth named"), ("half", "Not recognised")) if known else ()
    return {
        "title": gallery.title,
        "caption": gallery.caption,
        "text": _count_text(counts, len(refused), len(cards)),
        "counts": counts,
        "wall": Wall(cards, groups),
    }


def _card(
    gallery: Gallery, suspect: Suspect, others: Mapping[str, Mapping[str, int]], uri: str | None
) -> Card:
    names = gallery.class_names
    given, proposed = names[suspect.given], names[suspect.proposed]
    lines = [("Given", given, ""), (f"{gallery.method} says", proposed, "")]
    lines += [
        (rival, names[says[suspect.id]], "") for rival, says in others.items() if suspect.id in says
    ]
    verdict = Verdict()
    if suspect.true is not None:
        lines.append(("True", names[suspect.true], ""))
        verdict = (
            Verdict(f"{gallery.method} names the truth", "good", "good")
            if suspect.true == suspect.proposed
            else Verdict("Refused, but not recognised", "half", "half")
        )
    return Card(suspect.id, given, proposed, lines, uri, verdict=verdict)


def _triples(suspects: Sequence[Suspect], says: Any) -> list[tuple[int, int, int]]:
    return [(s.given, says(s), s.true) for s in suspects if s.true is not None]


def _count_text(counts: Sequence[Mapping[str, Any]], refused: int, shown: int) -> str:
    if not counts:
        text = "The true labels are unknown, so refusals cannot be counted as right or wrong."
    else:
        own = counts[-1]
        if own["wrong"] == 0:
            return "None of the listed labels is wrong."
        text = (
            f"Of {wording.count(own['wrong'])} mislabelled training pictures, {own['name']} "
            f"refused {wording.count(own['refused'])} and learned the wrong label of "
            f"{wording.count(own['learned'])}."
        )
        for rival in counts[1:-1]:
            text += (
                f" {rival['name']} refused {wording.count(rival['refused'])} and learned "
                f"{wording.count(rival['learned'])}."
            )
        text += (
            f" The price: {own['name']} also contradicts {wording.count(own['contradicted'])} of "
            f"{wording.count(own['right'])} right labels."
        )
    if shown < refused:
        text += f" Shown are {shown} of the {wording.count(refused)}."
    return text


def _facts(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    def distinct(values: Sequence[str]) -> str:
        return "; ".join(dict.fromkeys(values))

    devices = distinct([r.time.device for r in results])
    versions = [f"dspt {r.environment.dspt}, torch {r.environment.torch}" for r in results]
    time = sum(result.time.training for result in results)
    return [
        ("Runs", wording.count(len(results))),
        ("Data", distinct([_data_text(r) for r in results])),
        ("Backbone", distinct([_backbone_text(r) for r in results])),
        ("Fingerprint", distinct([r.backbone.fingerprint for r in results])),
        ("Zero-shot template", distinct([f"“{r.zero_shot.template}”" for r in results])),
        ("Start of the context", distinct([r.config.prompt.init for r in results])),
        ("Recipe", distinct([_recipe_text(r) for r in results])),
        ("Seeds", ", ".join(str(s) for s in sorted({r.config.seed for r in results}))),
        ("Training time", f"{wording.seconds(time)} over all runs, on {devices}"),
        ("Versions", distinct(versions)),
    ]


def _data_text(result: RunResult) -> str:
    data = result.data
    return (
        f"{data.name}: {wording.count(len(data.class_names))} classes, "
        f"{wording.count(data.n_train)} training and {wording.count(data.n_test)} test pictures"
    )


def _backbone_text(result: RunResult) -> str:
    backbone = result.backbone
    return f"{backbone.name}, logit scale {backbone.logit_scale:.4g}, {backbone.precision}"


def _recipe_text(result: RunResult) -> str:
    recipe = result.config.recipe
    return (
        f"{recipe.epochs} epochs, batch {recipe.batch_size}, SGD {recipe.lr:g}, "
        f"momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}, {recipe.schedule}"
    )
