"""The page of a label audit: how many labels look wrong, which, and what confuses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspt.report import wording
from dspt.report.gallery import GROUPS, Card, Wall, judge, truth_sentence
from dspt.report.heatmap import heat_map
from dspt.report.page import Pictures, Thumbnail, render_page

GALLERY_LIMIT = 300


@dataclass(frozen=True)
class AuditSuspect:
    """A sample whose given label looks wrong; classes are numbers.

    Attributes:
        key: path or row of the picture.
        score: suspicion, 0 to 1.
        confidence: in the proposed label, 0 to 1.
        true: the true label where it is known; it only judges, it suspects nobody.
        evidence: name and value, 0 to 1, of each kind of evidence that the score is made of.
    """

    key: str
    given: int
    proposed: int
    score: float
    confidence: float
    true: int | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditPage:
    """What an audit found, for ``render_audit``; all texts are plain.

    Attributes:
        title: of what was audited.
        class_names: of the data.
        n: samples audited.
        suspects: the most suspicious first; the page shows the first 300.
        facts: (name, value) of what was run.
        noise_rate: estimated share of wrong labels; None when there is no estimate.
        noise_interval: 95 % interval of that rate.
        transition: estimated share of each class's pictures with each label, [true][given].
        quality: against the truth where it is known: kind of evidence, to measure (such as AUROC),
            to value in [0, 1]; more is better.
        notes: what a reader should know, one paragraph an item.
    """

    title: str
    class_names: Sequence[str]
    n: int
    suspects: Sequence[AuditSuspect]
    facts: Sequence[tuple[str, str]] = ()
    noise_rate: float | None = None
    noise_interval: tuple[float, float] | None = None
    transition: Sequence[Sequence[float]] | None = None
    quality: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render_audit(page: AuditPage, thumbnail: Thumbnail) -> str:
    """A self-contained page with a gallery of suspects; it loads nothing, about 4 MB at most.

    Args:
        page: what was found.
        thumbnail: the encoded small picture (JPEG, PNG, GIF or WebP) of a suspect's key, or None.

    Raises:
        ValueError: when the transition matrix does not fit the classes.
    """
    pictures = Pictures(thumbnail)
    cards = [_card(s, page.class_names, pictures) for s in page.suspects[:GALLERY_LIMIT]]
    groups = GROUPS if any(card.verdict.group for card in cards) else ()
    transition = page.transition
    return render_page(
        "audit.html",
        page=page,
        title=f"{page.title}: label audit",
        verdict=_verdict(page),
        gallery_text=_gallery_text(page, cards),
        wall=Wall(cards, groups, "Suspicion"),
        heat=None if transition is None else heat_map(transition, page.class_names),
        quality=_quality(page.quality),
    )


def _verdict(page: AuditPage) -> str:
    labels = f"{wording.count(page.n)} labels" if page.n != 1 else "1 label"
    if page.noise_rate is None:
        return f"{labels} ranked by how likely each is wrong"
    return f"About {wording.percent(page.noise_rate)} of {labels} look wrong"


def _gallery_text(page: AuditPage, cards: Sequence[Card]) -> str:
    if not cards:
        return "No label looks wrong."
    text = f"{wording.count(len(page.suspects))} of {wording.count(page.n)} labels are listed. "
    if len(cards) < len(page.suspects):
        text += f"The {len(cards)} most suspicious are shown. "
    return text + truth_sentence(cards)


def _card(suspect: AuditSuspect, names: Sequence[str], pictures: Pictures) -> Card:
    given, proposed = names[suspect.given], names[suspect.proposed]
    lines = [("Given", given, ""), ("Proposed", proposed, wording.share(suspect.confidence))]
    if suspect.true is not None:
        lines.append(("True", names[suspect.true], ""))
    return Card(
        key=suspect.key,
        given=given,
        proposed=proposed,
        lines=lines,
        picture=pictures(suspect.key),
        score=suspect.score,
        evidence=[(name, wording.share(value)) for name, value in suspect.evidence.items()],
        verdict=judge(suspect.given, suspect.proposed, suspect.true),
    )


def _quality(quality: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    """Header and rows of a table; the best of each column is marked."""
    measures = list(dict.fromkeys(name for values in quality.values() for name in values))
    if not measures:
        return None
    best = {m: max(v[m] for v in quality.values() if m in v) for m in measures}
    return {
        "header": measures,
        "rows": [
            (name, [(v.get(m), m in v and best[m] - v[m] < 0.0005) for m in measures])
            for name, v in quality.items()
        ],
    }
