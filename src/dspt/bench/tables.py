"""The field's tables from results: methods by noise conditions, and DSPT against each of them."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dspt.bench.comparing import (
    ZERO_SHOT,
    Values,
    are_compared,
    overall_difference,
    transfer_to,
)
from dspt.bench.published import Number, Published
from dspt.errors import UserError
from dspt.report.collect import Collected
from dspt.report.palette import canonical_method, method_label
from dspt.report.sheets import Line, Section, Sheet, Text, latex, markdown
from dspt.report.summary import (
    Block,
    Condition,
    Difference,
    Method,
    Metric,
    Seeds,
    measured,
    paired_difference,
    plural,
    seeds_of,
    tabulate,
)
from dspt.report.wording import DASH, MINUS, listing, signed
from dspt.result import NEW, RunResult

Format = Literal["markdown", "csv", "latex"]
FORMATS: tuple[str, ...] = get_args(Format)
_SHOWN = 3


@dataclass(frozen=True)
class _Row:
    """A method's values, one mapping a column; ``method`` is None for the untrained model."""

    label: str
    method: Method | None
    values: tuple[Values, ...]


def render_tables(
    found: Collected,
    form: Format = "markdown",
    *,
    against: str = "dspt",
    metric: Metric = "accuracy",
    published: Published | None = None,
) -> str:
    """All tables of some results as one text.

    Args:
        found: the results.
        form: Markdown, CSV (one line per data set, model, method and condition) or LaTeX.
        against: the method that is compared with every other one.
        metric: what the tables hold.
        published: numbers of others, shown in rows of their own; they take no part in what is
            bold nor in any difference.

    Raises:
        UserError: when no result has test pictures, or none is of the method ``against``.
    """
    if all(result.final is None for result in found.results):
        raise UserError("none of the results has test pictures, so there is nothing to tabulate")
    reference = canonical_method(against)
    names = dict.fromkeys(result.config.method for result in found.results)
    if reference not in {"zero_shot", *map(canonical_method, names)}:
        # Without results of the default method there is no comparison to make, but a table.
        if against != "dspt":
            raise UserError(
                f"against: no result is of the method {against!r}; there are {', '.join(names)}"
            )
        reference = ""
    blocks = tabulate(found.results, metric)
    if form == "csv":
        from dspt.bench.long_table import long_table

        return long_table(blocks, reference, published)
    sections = [_section(block, reference, published) for block in blocks]
    write = markdown if form == "markdown" else latex
    return write(sections, _footer(found, published))


# Sections


def _section(block: Block, reference: str, published: Published | None) -> Section:
    sheets = _main_sheets(block, reference, published)
    for condition in block.conditions:
        sheets += _transfer_sheets(block, condition, reference)
    classes = len(block.all_runs[0].data.class_names)
    parts = [block.data, block.backbone, f"{classes} classes"]
    parts += [block.shots_text, *(f"{name} {value}" for name, value in block.setting)]
    return Section(", ".join(parts), tuple(sheets))


def _main_sheets(block: Block, reference: str, published: Published | None) -> list[Sheet]:
    columns = [c for c in block.conditions if any(block.cell(m, c) for m in block.methods)]
    if not columns:
        return []
    rows = _rows(
        block,
        columns,
        lambda method, c: cell.by_seeds if (cell := block.cell(method, c)) else {},
        block.zero_shot_by_seeds,
    )
    heads = tuple(_head(block, condition) for condition in columns)
    numbers = published.on(block.data) if published and block.metric == "accuracy" else []
    extra, texts = _published_lines(numbers, columns, published)
    lower = block.metric == "calibration"
    notes = [*_cell_notes(block, rows), *texts, *_block_notes(block)]
    main = Sheet(
        "Expected calibration error in %, lower is better" if lower else "Test accuracy in %",
        "Method",
        heads,
        (*_lines(rows, lower), *extra),
        tuple(notes),
    )
    return [main, *_difference_sheets(rows, heads, reference, lower, overall=True)]


def _head(block: Block, condition: Condition) -> tuple[str, str]:
    """Kind of noise and rate; the realised rate where none was asked for."""
    if condition.clean:
        return "", "clean"
    if condition.rate is not None:
        return condition.kind, condition.label
    name = condition.text.partition(":")[2]
    rate = block.realised_rate(condition)
    return condition.kind, name if rate is None else f"{name} ({100 * rate:.1f}\u00a0%)"


def _rows(
    block: Block,
    columns: Sequence[Condition],
    of_method: Callable[[Method, Condition], Values],
    of_zero_shot: Callable[[Condition], Values],
) -> list[_Row]:
    """The untrained model as its runs measured it, then every other method."""
    zero = _Row(ZERO_SHOT, None, tuple(of_zero_shot(c) for c in columns))
    rows = [
        _Row(method.label, method, tuple(of_method(method, c) for c in columns))
        for method in block.rivals
    ]
    return [row for row in (zero, *rows) if any(row.values)]


def _expected(rows: Sequence[_Row]) -> int:
    """How many seeds a complete cell has."""
    return max((len(v) for row in rows if row.method for v in row.values), default=1)


def _lines(rows: Sequence[_Row], lower: bool) -> tuple[Line, ...]:
    expected = _expected(rows)
    best = []
    for column in zip(*(row.values for row in rows), strict=True):
        shown = [_rounded(values) for values in column if values]
        best.append((min if lower else max)(shown) if len(shown) > 1 else None)
    lines = []
    for row in rows:
        cells = [
            Text(_cell_text(values, expected, row.method is None), _rounded(values) == top)
            if values
            else Text(DASH)
            for values, top in zip(row.values, best, strict=True)
        ]
        lines.append(Line(row.label, tuple(cells)))
    return tuple(lines)


def _rounded(values: Values) -> str | float:
    return float(f"{100 * statistics.fmean(values.values()):.1f}")


def _cell_text(values: Values, expected: int, reference: bool) -> str:
    text = f"{100 * statistics.fmean(values.values()):.1f}"
    if reference and len(set(values.values())) == 1:
        return text  # the same for every seed
    if len(values) > 1:
        text += f" ± {100 * statistics.stdev(values.values()):.1f}"
    return text if len(values) == expected else f"{text} ({len(values)}/{expected})"


def _cell_notes(block: Block, rows: Sequence[_Row]) -> list[str]:
    expected = _expected(rows)
    tested = [run for run in block.all_runs if run.final is not None]
    sizes = sorted({run.final.n for run in tested if run.final is not None})
    seeds = sorted({run.config.seed for run in tested})
    notes = [
        (
            f"Mean ± standard deviation over {expected} seeds ({', '.join(map(str, seeds))}). "
            if expected > 1
            else "One seed each: luck cannot be told from a difference. "
        )
        + f"{listing(f'{size:,}' for size in sizes)} test pictures. Bold: best of a column."
    ]
    fewer = sum(0 < len(v) < expected for row in rows if row.method for v in row.values)
    if fewer:
        notes.append(
            f"Incomplete: {plural(fewer, 'cell')} with fewer seeds, marked (there/{expected})."
        )
    empty = sum(not v for row in rows if row.method for v in row.values)
    if empty:
        notes.append(f"{DASH}: no result ({plural(empty, 'cell')}).")
    full = {
        tuple(sorted(v)) for row in rows if row.method for v in row.values if len(v) == expected
    }
    if len(full) > 1:
        notes.append("Not all cells have the same seeds; differences use those that match.")
    return notes


def _block_notes(block: Block) -> list[str]:
    notes = []
    if block.repeats:
        notes.append(
            f"{plural(len(block.repeats), 'result')} left out: the same settings and seeds are in "
            "already."
        )
    if len({_environment(run) for run in block.all_runs}) > 1:
        notes.append("These runs come from different environments, listed at the end.")
    notes += _warning_notes(block)
    return notes


def _warning_notes(block: Block) -> list[str]:
    """Warnings of runs, the same one of several runs once; commonest first."""
    told: dict[str, list[RunResult]] = {}
    for run in block.all_runs:
        for text in run.warnings:
            told.setdefault(re.sub(r"[\d.]+%", "#", text), []).append(run)
    notes = []
    for text, runs in sorted(told.items(), key=lambda item: -len(item[1])):
        if len(runs) == 1:
            (run,) = runs
            whose = f"{method_label(run.config.method)}, {run.noise.spec}, seed {run.config.seed}"
            text = next(t for t in run.warnings if re.sub(r"[\d.]+%", "#", t) == text)
        else:
            methods = list(dict.fromkeys(method_label(run.config.method) for run in runs))
            named = f" of {listing(methods)}" if len(methods) < len(block.methods) else ""
            whose = f"{len(runs)} runs{named}"
            text = text.replace(" (#)", "")
        notes.append(f"{whose}: {text}")
    more = f"; and {len(notes) - _SHOWN} more" if len(notes) > _SHOWN else ""
    return [f"Warnings of runs: {'; '.join(notes[:_SHOWN])}{more}"] if notes else []


# Differences


def _difference_sheets(
    rows: Sequence[_Row],
    heads: tuple[tuple[str, str], ...],
    reference: str,
    lower: bool,
    *,
    overall: bool,
) -> list[Sheet]:
    """One sheet a row of the method that is compared: its paired difference to every other row."""
    sheets = []
    methods = [row.method for row in rows if row.method is not None]
    for first in rows:
        if (first.method.canonical if first.method else "zero_shot") != reference:
            continue
        expected = _expected(rows)
        lines = []
        for other in rows:
            if not are_compared(first.method, other.method, methods):
                continue
            gaps = [
                paired_difference(*pair) for pair in zip(first.values, other.values, strict=True)
            ]
            if not any(gaps):
                continue
            cells = [Text(_difference_text(gap, expected)) for gap in gaps]
            if overall and len(heads) > 1:
                gap, used = overall_difference(first.values, other.values)
                text = _difference_text(gap, expected)
                cells.append(
                    Text(text if used == len(heads) else f"{text}, {plural(used, 'column')}")
                )
            lines.append(Line(other.label, tuple(cells)))
        if lines:
            sheets.append(
                Sheet(
                    f"{first.label} minus each other method, in points",
                    f"{first.label} {MINUS}",
                    (*heads, ("", "all columns")) if overall and len(heads) > 1 else heads,
                    tuple(lines),
                    (_difference_note(expected, lower, overall and len(heads) > 1),),
                )
            )
    return sheets


def _difference_text(gap: Difference | None, expected: int) -> str:
    if gap is None:
        return DASH
    text = signed(gap.mean)
    if gap.margin is not None:
        text += f" [{signed(gap.mean - gap.margin)}, {signed(gap.mean + gap.margin)}]"
    return text if gap.n == expected else f"{text} ({gap.n}/{expected})"


def _difference_note(expected: int, lower: bool, overall: bool) -> str:
    text = "Paired over matching seeds"
    text += (
        "; in brackets the 95 % t-interval of the mean over seeds." if expected > 1 else
        "; one seed gives no interval."
    )  # fmt: skip
    if overall:
        text += " All columns: each seed's mean over the columns first, then over seeds."
    return text + (" Negative is better." if lower else " Positive: the first one is ahead.")


# Other classes and other data


def _transfer_sheets(block: Block, condition: Condition, reference: str) -> list[Sheet]:
    runs = [run for run in block.condition_runs(condition) if run.final and run.transfers]
    if not runs:
        return []
    from dspt.transfer import harmonic_mean

    sheets = []
    lower = block.metric == "calibration"

    def value(run: RunResult, target: str, tuned: bool) -> float | None:
        found = transfer_to(run, target)
        if found is None:
            return None
        return measured(found.tuned if tuned else found.zero_shot, block.metric)

    def own(run: RunResult, tuned: bool) -> float | None:
        return measured(run.final if tuned else run.zero_shot.test, block.metric)

    def harmonic(run: RunResult, tuned: bool) -> float | None:
        base, new = own(run, tuned), value(run, NEW, tuned)
        return None if base is None or new is None else harmonic_mean(base, new)

    targets = list(dict.fromkeys(t.target for run in runs for t in run.transfers))
    names = {t.target: t.data for run in runs for t in run.transfers}
    others = [target for target in targets if target != NEW]

    def average(run: RunResult, tuned: bool) -> float | None:
        values = [value(run, target, tuned) for target in others]
        known = [v for v in values if v is not None]
        return statistics.fmean(known) if len(known) == len(others) else None

    def on(target: str) -> Callable[[RunResult, bool], float | None]:
        return lambda run, tuned: value(run, target, tuned)

    groups: list[tuple[str, str, list[tuple[str, Callable[[RunResult, bool], float | None]]]]] = []
    if NEW in targets:
        columns = [("base", own), ("new", on(NEW))]
        note = ""
        if not lower:
            columns.append(("harmonic mean", harmonic))
            note = "The harmonic mean is taken run by run."
        groups.append(("Base to new classes", note, columns))
    if others:
        columns = [(f"{block.data} (source)", own)]
        columns += [(names[target], on(target)) for target in others]
        if len(others) > 1:
            columns.append(("mean of targets", average))
        groups.append(("Cross-data-set", "", columns))
    for title, note, columns in groups:
        zero = _Row(ZERO_SHOT, None, tuple(_by_seeds(runs, get, False) for _, get in columns))
        rows = [zero] if any(zero.values) else []
        for method in block.rivals:
            own_runs = [run for run in block.runs(method, condition) if run.transfers]
            if own_runs:
                values = tuple(_by_seeds(own_runs, get, True) for _, get in columns)
                rows.append(_Row(method.label, method, values))
        heads = tuple(("", name) for name, _ in columns)
        what = "calibration error" if lower else "accuracy"
        noise = "clean labels" if condition.clean else condition.full_label
        sheet = Sheet(
            f"{title}, {noise}: {what} in %",
            "Method",
            heads,
            _lines(rows, lower),
            tuple(filter(None, (*_cell_notes(block, rows)[1:], note))),
        )
        sheets += [sheet, *_difference_sheets(rows, heads, reference, lower, overall=False)]
    return sheets


def _by_seeds(
    runs: Sequence[RunResult], get: Callable[[RunResult, bool], float | None], tuned: bool
) -> dict[Seeds, float]:
    return {seeds_of(run): v for run in runs if (v := get(run, tuned)) is not None}


# Published numbers and where everything comes from


def _published_lines(
    numbers: Sequence[Number], columns: Sequence[Condition], published: Published | None
) -> tuple[list[Line], list[str]]:
    if published is None:
        return [], []
    lines: list[Line] = []
    texts: list[str] = []
    marks = {name: mark for mark, name in enumerate(published.sources, start=1)}
    used = set()
    for label, source in dict.fromkeys((n.label, n.source) for n in numbers if n.setting_known):
        cells = []
        for condition in columns:
            number = next(
                (
                    n
                    for n in numbers
                    if (n.label, n.source) == (label, source) and _in(n, condition)
                ),
                None,
            )
            cells.append(Text(DASH) if number is None else Text(_published_text(number)))
        if any(cell.text != DASH for cell in cells):
            used.add(marks[source])
            lines.append(Line(f"published ({marks[source]}): {label}", tuple(cells), not lines))
    for number in numbers:
        if not number.setting_known:
            used.add(marks[number.source])
            texts.append(
                f"published ({marks[number.source]}), setting not stated: {number.label} "
                f"{number.accuracy:g}\u00a0%."
            )
    if lines:
        texts.insert(
            0, "Published rows were not measured here; they take no part in bold or in differences."
        )
    texts += [
        f"({mark}) {published.sources[name].status}: "
        f"{published.sources[name].text.removeprefix('second-hand: ')}."
        for name, mark in marks.items()
        if mark in used
    ]
    return lines, texts


def _published_text(number: Number) -> str:
    return f"{number.accuracy:.1f}" + ("" if number.std is None else f" ± {number.std:g}")


def _in(number: Number, condition: Condition) -> bool:
    if condition.clean:
        return number.noise == "none"
    return (
        condition.rate is not None
        and number.rate is not None
        and number.noise == condition.kind
        and abs(number.rate - 100 * condition.rate) < 1e-9
    )


def _environment(run: RunResult) -> str:
    place = run.environment
    return (
        f"dspt {place.dspt}, torch {place.torch}, open_clip {place.open_clip}, "
        f"Python {place.python}, {place.platform}, {plural(place.processor_count, 'processor')}, "
        f"device {run.time.device}"
    )


def _footer(found: Collected, published: Published | None) -> list[str]:
    counts = Counter(map(_environment, found.results))
    lines = [f"{plural(count, 'run')}: {text}" for text, count in counts.items()]
    lines += [f"Made by: {call}" for call in found.benches]
    failures = found.failures
    if failures:
        more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        shown = "; ".join(failures[:_SHOWN])
        lines.append(f"{plural(len(failures), 'run')} ended without a result: {shown}{more}")
    if found.skipped:
        lines.append(f"{plural(len(found.skipped), 'file')} could not be read and was left out")
    if published is not None:
        known = {n.data for r in found.results for n in published.on(r.data.name)}
        for number in published.numbers:
            if number.data not in published.names and known:
                source = published.sources[number.source]
                lines.append(
                    f"published, {source.status}: {number.label}, {number.data} "
                    f"{number.accuracy:g}\u00a0%; "
                    f"{source.text.removeprefix('second-hand: ')}"
                )
    return lines
