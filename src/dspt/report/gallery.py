"""The gallery of suspicious labels: one kind of card, whatever page it stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dspt.report.wording import capital, count, listing


@dataclass(frozen=True)
class Verdict:
    """What the truth, where it is known, says of an accusation; ``group`` serves the filter."""

    text: str = ""
    tone: str = ""
    group: str = ""


@dataclass(frozen=True)
class Card:
    """One picture and what is said of its label: plain texts, escaped by the template.

    Attributes:
        key: path or row of the picture.
        given: the given label.
        proposed: the label proposed instead.
        lines: (name, value, small print) to show, the labels among them.
        picture: a data URI; None where there is no picture.
        score: suspicion from 0 to 1; None where the page has none.
        evidence: (name, value) that the score is made of.
    """

    key: str
    given: str
    proposed: str
    lines: Sequence[tuple[str, str, str]]
    picture: str | None = None
    score: float | None = None
    evidence: Sequence[tuple[str, str]] = ()
    verdict: Verdict = field(default_factory=Verdict)


@dataclass(frozen=True)
class Wall:
    """Cards in the order in which they are hung, with what they can be filtered by.

    Attributes:
        cards: the most suspicious first.
        groups: (group, name) of the verdicts.
        score: what the score is called; None where the cards have none.
    """

    cards: Sequence[Card]
    groups: Sequence[tuple[str, str]] = ()
    score: str | None = None

    @property
    def given(self) -> list[str]:
        return sorted({card.given for card in self.cards})

    @property
    def proposed(self) -> list[str]:
        return sorted({card.proposed for card in self.cards})


GROUPS = (("wrong", "Truly wrong"), ("accused", "Wrongly accused"))


def judge(given: int, proposed: int, true: int | None) -> Verdict:
    """Whether an accused label is wrong indeed, and the proposal right; of classes as numbers."""
    if true is None:
        return Verdict()
    if true == given:
        return Verdict("Wrongly accused: the label is right", "bad", "accused")
    if true == proposed:
        return Verdict("Label is wrong, proposal is right", "good", "wrong")
    return Verdict("Label is wrong, so is the proposal", "half", "wrong")


def truth_sentence(cards: Sequence[Card]) -> str:
    """How many of the accusations that are shown hold."""
    groups = [card.verdict.group for card in cards]
    parts = [
        f"{count(number)} {'is' if number == 1 else 'are'} {what}"
        for group, what in (("wrong", "truly mislabelled"), ("accused", "wrongly accused"))
        for number in [groups.count(group)]
    ]
    if "" in groups:
        unknown = groups.count("")
        if unknown == len(groups):
            return "The truth is unknown here: a suspicion is a reason to look, not a verdict."
        parts.append(f"of {count(unknown)} the truth is unknown")
    return capital(f"of those shown, {listing(parts)}.")
