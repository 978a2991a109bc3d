"""Colours, markers and line styles shared by the figures and the pages.

The hues are the Okabe-Ito set, darkened for thin lines on white and lightened for dark mode; every
method also has its own marker and dash pattern, so that colour is never the only cue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LIGHT = {
    "ink": "#1f2328",
    "muted": "#59626c",
    "grid": "#dfe3e7",
    "zone": "#f3f1ea",
    "card": "#ffffff",
    "reference": "#3d454e",
    "blue": "#0a62a9",
    "vermilion": "#c2410f",
    "green": "#0f7a58",
    "purple": "#8a4b9f",
    "amber": "#946400",
    "sky": "#1d7aa3",
    "rose": "#b03060",
    "slate": "#55708b",
    "olive": "#66741a",
    "brown": "#7b4a2d",
}

DARK = {
    "ink": "#e8eaed",
    "muted": "#a2abb5",
    "grid": "#343b43",
    "zone": "#23282d",
    "card": "#1b1f24",
    "reference": "#c6ccd3",
    "blue": "#6cb4f5",
    "vermilion": "#ff9061",
    "green": "#58cfa4",
    "purple": "#cf9be3",
    "amber": "#e3b341",
    "sky": "#74cbea",
    "rose": "#f28bb0",
    "slate": "#9fb7ce",
    "olive": "#bfcf5f",
    "brown": "#dba27c",
}

Dash = tuple[float, ...]


@dataclass(frozen=True)
class Mark:
    """How one method is drawn."""

    colour: str
    marker: str
    dash: Dash = ()


_KNOWN = {
    "dspt": Mark("blue", "o"),
    "auto": Mark("ink", "H"),
    "ce": Mark("vermilion", "s", (6, 2)),
    "mae": Mark("green", "^", (2, 1.6)),
    "gce": Mark("purple", "D", (7, 2, 1.6, 2)),
    "sce": Mark("amber", "v", (4, 1.6)),
    "nlprompt": Mark("rose", "X", (8, 2)),
    "joapr": Mark("sky", "P", (3, 1.4, 1, 1.4)),
    "linear_probe": Mark("slate", "h", (1.4, 1.4)),
    "elr": Mark("olive", "<", (5, 1.5, 1, 1.5)),
    "label_smoothing": Mark("brown", "p", (2.5, 1)),
    "nce_rce": Mark("purple", ">", (9, 2, 2, 2)),
    "phuber_ce": Mark("vermilion", "d", (1, 1)),
    "zero_shot_ensemble": Mark("reference", "*", (5, 2)),
}
_SPARE = (
    Mark("amber", "H", (3, 1.4, 1, 1.4)),
    Mark("sky", "8", (5, 1.5, 1, 1.5)),
    Mark("olive", "*", (1.4, 1.4)),
)

_ALIASES = {
    "cross_entropy": "ce",
    "crossentropy": "ce",
    "coop": "ce",
    "prompt_mae": "mae",
    "promptmae": "mae",
}

_LABELS = {
    "dspt": "DSPT",
    "ce": "Cross-entropy",
    "mae": "MAE",
    "gce": "GCE",
    "sce": "SCE",
    "elr": "ELR",
    "label_smoothing": "Label smoothing",
    "nce_rce": "NCE + RCE",
    "phuber_ce": "PHuber-CE",
    "nlprompt": "NLPrompt",
    "joapr": "JoAPR",
    "zero_shot": "Zero-shot",
    "zero_shot_ensemble": "Zero-shot, 80 templates",
    "linear_probe": "Linear probe",
}


def canonical_method(name: str) -> str:
    """One name a method: lower case, underscores, aliases resolved."""
    name = name.strip().lower()
    for sign in "-+ ":
        name = name.replace(sign, "_")
    return _ALIASES.get(name, name)


def method_label(name: str) -> str:
    """The name of a method as a reader should see it."""
    return _LABELS.get(canonical_method(name), name)


def assign_marks(methods: Iterable[tuple[str, str]]) -> dict[str, Mark]:
    """Give every (key, method) a mark: a method's own to its first key, free ones to the rest.

    Marks repeat only when there are more keys than marks.
    """
    pairs = list(dict.fromkeys(methods))
    marks: dict[str, Mark] = {}
    for key, method in pairs:
        own = _KNOWN.get(canonical_method(method))
        if own is not None and own not in marks.values():
            marks[key] = own
    free = [mark for mark in (*_SPARE, *_KNOWN.values()) if mark not in marks.values()]
    rest = [key for key, _ in pairs if key not in marks]
    pool = free or list(_SPARE)
    marks |= {key: pool[place % len(pool)] for place, key in enumerate(rest)}
    return {key: marks[key] for key, _ in pairs}
