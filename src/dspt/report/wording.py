"""Sentences computed from numbers. Nothing here knows in advance who wins."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dspt.noise import RATED
from dspt.report.palette import canonical_method, method_label
from dspt.report.summary import Block, Condition, Difference, Method, difference
from dspt.result import Evaluation, NoiseInfo, RunResult

NBSP = "\u00a0"
MINUS = "\u2212"
DASH = "\u2013"


def percent(fraction: float, digits: int = 1) -> str:
    """``0.7834`` as "78.3 %", with a no-break space."""
    return f"{100 * fraction:.{digits}f}{NBSP}%"


def signed(fraction: float, digits: int = 1) -> str:
    """A difference of fractions in percentage points: "+7.3", "−2.0", "±0.0"."""
    text = f"{abs(100 * fraction):.{digits}f}"
    if float(text) == 0:
        return f"±{text}"
    return f"{'+' if fraction > 0 else MINUS}{text}"


def points(fraction: float, digits: int = 1) -> str:
    """A difference without its sign: "7.3 points"."""
    text = f"{abs(100 * fraction):.{digits}f}"
    return f"{text}{NBSP}{'point' if text == '1.0' else 'points'}"


def count(number: int) -> str:
    """``2465`` as "2,465"."""
    return f"{number:,}"


def pictures(number: int, kind: str = "") -> str:
    """ "1 test picture", "2,465 test pictures"."""
    words = f"{kind} picture" if kind else "picture"
    return f"{count(number)}{NBSP}{words}{'' if number == 1 else 's'}"


def interval(bounds: tuple[float, float]) -> str:
    """ "76.6 to 79.9 %"."""
    return f"{100 * bounds[0]:.1f} to {percent(bounds[1])}"


def seconds(value: float) -> str:
    """ "0.4 s", "41 s", "3 min 5 s", "2 h 10 min"."""
    if value < 10:
        return f"{value:.1f}{NBSP}s"
    whole = round(value)
    if whole < 120:
        return f"{whole}{NBSP}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NBSP}h {minutes}{NBSP}min"


def listing(parts: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    items = list(parts)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def inline(name: str) -> str:
    """A name within a sentence: "Cross-entropy" becomes "cross-entropy"; "DSPT", "JoAPR" stay."""
    first = re.split(r"[^A-Za-z]", name, maxsplit=1)[0]
    return name if any(map(str.isupper, first[1:])) else name[:1].lower() + name[1:]


def capital(text: str) -> str:
    """The same with a capital first letter, as a sentence starts."""
    return text[:1].upper() + text[1:]


def share(fraction: float) -> str:
    """A whole percentage that says "0 %" or "100 %" only when that is exact."""
    if 0 < fraction < 0.005:
        return f"<1{NBSP}%"
    if 0.995 < fraction < 1:
        return f">99{NBSP}%"
    return percent(fraction, 0)


# One run


@dataclass(frozen=True)
class Headline:
    """What a run report says first."""

    title: str
    verdict: str
    outcome: Literal["better", "worse", "level", "unknown"]
    explanation: str


def difference_margin(first: Evaluation, second: Evaluation) -> float:
    """Half the 95 % interval of the difference of two accuracies, taken as independent.

    Both models saw the same pictures, so the true margin is usually smaller: this errs on the side
    of "no clear difference".
    """
    variance = sum(e.accuracy * (1 - e.accuracy) / max(e.n, 1) for e in (first, second))
    return 1.96 * math.sqrt(variance)


@dataclass(frozen=True)
class Subject:
    """How to speak of what a run made: ``row`` in a table, ``inside`` a sentence, ``act`` of it."""

    row: str
    inside: str
    act: str


def subject_of(result: RunResult) -> Subject:
    """A tuned prompt, or the method itself where no prompt is trained."""
    from dspt.methods import trains_prompt

    method = result.config.method
    if trains_prompt(method):
        return Subject("Tuned prompt", "the tuned prompt", "Tuning")
    name = method_label(method)
    if canonical_method(method) == "zero_shot":
        return Subject(name, "the zero-shot model", "The zero-shot model")
    return Subject(name, f"the {inline(name)}", f"The {inline(name)}")


def headline(result: RunResult) -> Headline:
    """What was trained against zero-shot, in plain words."""
    final, zero = result.final, result.zero_shot.test
    subject = subject_of(result)
    if final is None or final.n == 0:
        last = result.epochs[-1] if result.epochs else None
        explanation = "The data has no test split and nothing was held out. "
        if last is not None:
            explanation += (
                "On the training pictures the tuned prompt agrees with "
                f"{percent(last.accuracy_given)} of the labels it was given"
            )
            if last.accuracy_true is not None:
                explanation += f" and with {percent(last.accuracy_true)} of the true ones"
            explanation += (
                ". The zero-shot model agrees with "
                f"{percent(result.zero_shot.train_accuracy_given)} of the given labels"
            )
            if result.zero_shot.train_accuracy_true is not None:
                explanation += (
                    f" and with {percent(result.zero_shot.train_accuracy_true)} of the true ones"
                )
            explanation += ". "
        explanation += (
            "Agreement with training labels is no measure of quality when labels are noisy."
        )
        return Headline(
            "No test pictures, so no accuracy to report",
            f"Whether {inline(subject.act)} helped is unknown.",
            "unknown",
            explanation,
        )
    title = f"{subject.row} {percent(final.accuracy)} on {pictures(final.n, 'test')}"
    if canonical_method(result.config.method) == "zero_shot":
        return Headline(
            title,
            "This is the untrained model.",
            "level",
            f"95{NBSP}% interval of the accuracy: {interval(final.interval)}.",
        )
    if zero is None or zero.n == 0:
        return Headline(
            title,
            "There is no zero-shot result to compare with.",
            "unknown",
            f"95{NBSP}% interval of the accuracy: {interval(final.interval)}.",
        )
    title += f"; zero-shot {percent(zero.accuracy)}"
    gap = final.accuracy - zero.accuracy
    margin = difference_margin(final, zero)
    size = (
        f"95{NBSP}% intervals: {inline(subject.row)} {interval(final.interval)}, "
        f"zero-shot {interval(zero.interval)}. "
    )
    if abs(gap) <= margin:
        amount = (
            "Both are equally accurate"
            if abs(gap) < 0.0005
            else f"{subject.act} is {points(gap)} {'ahead' if gap > 0 else 'behind'}"
        )
        return Headline(
            title,
            f"No clear difference. {amount}.",
            "level",
            f"{size}With this many test pictures, a difference of up to {points(margin)} can come "
            "from the choice of pictures alone.",
        )
    if gap > 0:
        return Headline(
            title,
            f"{subject.act} gained {points(gap)}.",
            "better",
            f"{size}The gain exceeds the {points(margin)} that the choice of test pictures could "
            "explain.",
        )
    return Headline(
        title,
        f"{subject.act} made the model worse, by {points(gap)}."
        if subject.act == "Tuning"
        else f"{subject.act} is worse than zero-shot, by {points(gap)}.",
        "worse",
        f"{size}The loss exceeds the {points(margin)} that the choice of test pictures could "
        "explain. On data like these the zero-shot prompt is the better choice.",
    )


def noise_sentence(noise: NoiseInfo, n_train: int) -> str:
    """How many of the training labels are wrong, as far as anyone knows."""
    if not noise.true_labels_known or noise.n_wrong is None:
        return (
            "The true labels are unknown, so nobody can say how many of the given ones are wrong."
        )
    if noise.n_wrong == 0:
        return f"All {count(n_train)} training labels are right."
    share = noise.realised_rate if noise.realised_rate is not None else noise.n_wrong / n_train
    return (
        f"{count(noise.n_wrong)} of {count(n_train)} training labels are wrong ({percent(share)}). "
        "Training never saw which ones."
    )


def calibration_sentence(evaluation: Evaluation, who: str) -> str:
    """Whether confidence and accuracy agree."""
    gap = evaluation.mean_confidence - evaluation.accuracy
    facts = (
        f"mean confidence {percent(evaluation.mean_confidence)} "
        f"at {percent(evaluation.accuracy)} accuracy"
    )
    if abs(gap) < 0.01:
        return f"{who} is about as confident as it is right: {facts}."
    direction = "over-confident" if gap > 0 else "under-confident"
    return f"{who} is {direction} by {points(gap)}: {facts}."


# Many runs


def _at(conditions: Sequence[Condition], differences: Sequence[Difference]) -> str:
    return listing(
        f"{c.label} ({signed(d.mean)})" for c, d in zip(conditions, differences, strict=True)
    )


def _versus(
    subject: str, reference: str, rows: Sequence[tuple[Condition, Difference]], every: str
) -> str:
    """ "A is ahead of B at 25 % (+1.2) and behind it at 75 % (−2.0)." """
    groups: dict[str, list[tuple[Condition, Difference]]] = {"ahead": [], "level": [], "behind": []}
    for condition, gap in rows:
        side = "level" if gap.level else "ahead" if gap.mean > 0 else "behind"
        groups[side].append((condition, gap))
    relation = {
        "ahead": f"ahead of {reference}",
        "level": f"level with {reference}",
        "behind": f"behind {reference}",
    }
    used = [side for side, members in groups.items() if members]
    if len(used) == 1:
        members = groups[used[0]]
        where = f"{every}: {_at(*zip(*members, strict=True))}" if len(members) > 1 else ""
        where = where or f"at {_at(*zip(*members, strict=True))}"
        return f"{subject} is {relation[used[0]]} {where}"
    parts: list[str] = []
    for side in used:
        name = (
            relation[side] if not parts else {"level": "level with it", "behind": "behind it"}[side]
        )
        parts.append(f"{name} at {_at(*zip(*groups[side], strict=True))}")
    return f"{subject} is {listing(parts)}"


def _certainty(rows: Sequence[tuple[Condition, Difference]]) -> str:
    """Which of the differences the spread over seeds does not explain; see ``CLEARLY``."""
    real = [(c, d) for c, d in rows if not d.level]
    if not real or all(d.margin is None for _, d in real):
        return ""
    clear = [c.label for c, d in real if d.clear]
    if len(clear) == len(real):
        return "; clearly so" if len(real) == 1 else "; clearly so in every case"
    if not clear:
        return "; not clearly so" if len(real) == 1 else "; nowhere clearly so"
    return f"; clearly so only at {listing(clear)}"


CLEARLY = f"“Clearly”: a 95{NBSP}% t-interval over the seeds excludes zero."
SINGLE = "One run each: luck cannot be told from a difference."


def _every(block: Block) -> str:
    return "at every rate" if block.kind in RATED else "everywhere"


def against_zero_shot(block: Block, method: Method) -> str | None:
    """One method against the untrained model."""
    rows = []
    for condition in block.conditions:
        cell = block.cell(method, condition)
        if cell is not None and cell.gain is not None:
            rows.append((condition, cell.gain))
    if not rows:
        return None
    return f"{_versus(method.label, 'zero-shot', rows, _every(block))}{_certainty(rows)}."


def against(block: Block, method: Method, other: Method) -> str | None:
    """One method against another."""
    rows = []
    for condition in block.conditions:
        first, second = block.cell(method, condition), block.cell(other, condition)
        if first is not None and second is not None:
            rows.append((condition, difference(first, second)))
    if not rows:
        return None
    text = _versus(method.label, inline(other.label), rows, _every(block))
    return f"{text}{_certainty(rows)}."


def best_per_condition(block: Block) -> dict[Condition, set[str]]:
    """Labels of the best means of every column, zero-shot included; ties within 0.05 points."""
    best: dict[Condition, set[str]] = {}
    for condition in block.conditions:
        means = {
            method.label: cell.mean
            for method in block.rivals
            if (cell := block.cell(method, condition)) is not None
        }
        if not means:
            continue
        zero = block.zero_shot(condition)
        if zero is not None:
            means["zero-shot"] = zero
        top = max(means.values())
        best[condition] = {name for name, mean in means.items() if top - mean < 0.0005}
    return best


def best_sentence(block: Block) -> str | None:
    """Who has the highest mean where."""
    best = best_per_condition(block)
    if not best:
        return None
    where: dict[tuple[str, ...], list[str]] = {}
    for condition, names in best.items():
        key = tuple(inline(name) for name in sorted(names))
        where.setdefault(key, []).append(condition.label)
    if len(where) == 1 and len(best) > 1:
        return f"The highest mean {_every(block)} is that of {listing(next(iter(where)))}."
    if len(best) == 1:
        return f"The highest mean is that of {listing(next(iter(where)))}."
    parts = [f"{listing(names)} at {listing(labels)}" for names, labels in where.items()]
    return f"The highest means: {'; '.join(parts)}."


def findings(block: Block) -> list[str]:
    """What the numbers of a table say, one sentence or two an item."""
    dspt = block.method("dspt")
    texts: list[str | None] = []
    if dspt is not None:
        texts.append(against_zero_shot(block, dspt))
    texts += [against_zero_shot(block, m) for m in block.rivals if m is not dspt]
    if dspt is not None:
        texts += [against(block, dspt, m) for m in block.rivals if m is not dspt]
    return [text for text in texts if text]


def summary_sentence(block: Block) -> str | None:
    """What a hurried reader takes away: the noisiest tested rate, and the best at every rate."""
    tested = [c for c in block.conditions if any(block.cell(m, c) for m in block.methods)]
    if not tested:
        return None
    hardest = tested[-1]
    if hardest.clean:
        where = "With the labels as they are"
    elif hardest.rate is None:
        where = f"With the labels of {hardest.text}"
    else:
        where = f"With {hardest.label} wrong labels"
    zero = block.zero_shot(hardest)
    parts: list[str] = []
    for method in (block.method("dspt"), block.method("ce")):
        cell = block.cell(method, hardest) if method is not None else None
        if method is None or cell is None:
            continue
        text = f"{inline(method.name)} ends at {percent(cell.mean)}"
        if cell.gain is not None and zero is not None:
            gap = cell.gain
            reference = f"zero-shot ({percent(zero)})" if not parts else "it"
            if gap.level:
                text += f", level with {reference}"
            else:
                text += f", {points(gap.mean)} {'above' if gap.mean > 0 else 'below'} {reference}"
        parts.append(text)
    best = best_sentence(block) or ""
    if not parts:
        return best or None
    return f"{where}, {'; '.join(parts)}. {best}".strip()


def times(ratio: float) -> str:
    """ "about as hard", "0.48 times as hard"."""
    return "about as hard" if 0.95 <= ratio <= 1.05 else f"{ratio:.2g} times as hard"


LEARNED = (
    "A weak pull at the end can mean that wrong labels are held back, "
    "or that they have been learned."
)


def gradient_sentence(rate: str, ratios: Sequence[tuple[str, float, float]]) -> str:
    """What each loss does to a mislabelled sample: (name, wrong / right at the start, at the end).

    The losses are compared at the start, where they see the same prompt: later a small gradient of
    wrong labels may also mean that they have been learned.
    """
    start = listing(f"{times(first)} under {inline(name)}" for name, first, _ in ratios)
    end = listing(f"{last:.2g} under {inline(name)}" for name, _, last in ratios)
    text = (
        f"With {rate} wrong labels, at the untrained start, a mislabelled picture pulls on the "
        f"logits, compared with a rightly labelled one, {start}."
    )
    by_name = {name.lower(): first for name, first, _ in ratios}
    dspt, ce = by_name.get("dspt"), by_name.get("cross-entropy")
    if dspt is not None and ce is not None:
        if dspt < 0.95 * ce:
            text += " From the same start, DSPT listens less to wrong labels than cross-entropy."
        elif dspt > 1.05 * ce:
            text += " Here DSPT does not hold wrong labels back better than cross-entropy."
        else:
            text += " Here the two treat wrong labels alike."
    return f"{text} At the end the ratio is {end}. {LEARNED}"
