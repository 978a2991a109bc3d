"""Tables as text: one description, written as Markdown or as LaTeX.

Texts are plain Unicode; each format escapes them, so that a name can hold anything.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

_SPACE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")


@dataclass(frozen=True)
class Text:
    """What stands in one cell."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """A row; ``apart`` draws a rule above it where the format can."""

    label: str
    cells: tuple[Text, ...]
    apart: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: what it shows.
        corner: heading of the first column.
        columns: (group, label) of each further column; neighbours of a group share a heading.
        lines: the rows.
        notes: paragraphs below it.
    """

    title: str
    corner: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """What belongs together: the sheets of one data set, model and number of shots."""

    title: str
    sheets: tuple[Sheet, ...]


def markdown(sections: Sequence[Section], footer: Sequence[str]) -> str:
    """Sections with headings and pipe tables, the footer as a list."""
    parts = []
    for section in sections:
        parts.append(f"## {_markdown(section.title)}")
        for sheet in section.sheets:
            parts.append(f"### {_markdown(sheet.title)}")
            parts.append(_pipe_table(sheet))
            parts += [_markdown(note) for note in sheet.notes]
    if footer:
        parts += ["---", "\n".join(f"- {_markdown(text)}" for text in footer)]
    return "\n\n".join(parts) + "\n"


def _pipe_table(sheet: Sheet) -> str:
    names = [" ".join(filter(None, column)) for column in sheet.columns]
    rows = [
        [sheet.corner, *names],
        *([line.label, *(cell.text for cell in line.cells)] for line in sheet.lines),
    ]
    bold = [[False] * len(rows[0]), *([False, *(c.bold for c in e.cells)] for e in sheet.lines)]
    table = [
        [f"**{_markdown(t)}**" if b else _markdown(t) for t, b in zip(row, flags, strict=True)]
        for row, flags in zip(rows, bold, strict=True)
    ]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in table
    ]
    rule = "|" + "-" * (widths[0] + 2) + "|" + "".join("-" * (w + 1) + ":|" for w in widths[1:])
    return "\n".join([lines[0], rule, *lines[1:]])


def _markdown(text: str) -> str:
    text = _SPACE.sub(" ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|#~$])", r"\\\1", text)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "\u00a0": "~",
    "±": r"$\pm$",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u201c": "``",
    "\u201d": "''",
}


def latex(sections: Sequence[Section], footer: Sequence[str]) -> str:
    """One ``table`` per sheet, with booktabs; the footer as comments."""
    parts = [r"% Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}."]
    parts += [f"% {_SPACE.sub(' ', text)}" for text in footer]
    for section in sections:
        for sheet in section.sheets:
            parts += ["", *_latex_table(section, sheet)]
    return "\n".join(parts) + "\n"


def _latex_table(section: Section, sheet: Sheet) -> list[str]:
    groups = [
        (name, len(list(members)))
        for name, members in itertools.groupby(sheet.columns, key=lambda column: column[0])
    ]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(f'{section.title}: {sheet.title}')}}}",
        rf"\begin{{tabular}}{{l{'r' * len(sheet.columns)}}}",
        r"\toprule",
    ]
    if any(name for name, _ in groups):
        heads, rules, start = [], [], 2
        for name, width in groups:
            heads.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex(name)}}}")
            if name:
                rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        lines += [f" & {' & '.join(heads)} \\\\", " ".join(rules)]
    lines.append(" & ".join(map(_latex, [sheet.corner, *(c for _, c in sheet.columns)])) + r" \\")
    lines.append(r"\midrule")
    for line in sheet.lines:
        if line.apart:
            lines.append(r"\midrule")
        cells = [rf"\textbf{{{_latex(c.text)}}}" if c.bold else _latex(c.text) for c in line.cells]
        lines.append(" & ".join([_latex(line.label), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if sheet.notes:
        lines += [r"\par\smallskip", rf"{{\footnotesize {' '.join(map(_latex, sheet.notes))}}}"]
    return [*lines, r"\end{table}"]


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in _SPACE.sub(" ", text))
