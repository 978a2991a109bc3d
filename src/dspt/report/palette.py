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
    "ce": Mark("vermilion", "s", (6, 2)),
    "mae": Mark("green", "^", (2, 1.6)),
    "gce": Mark("purple", "D", (7, 2, 1.6, 2)),
    "sce": Mark("amber", "v", (4, 1.6)),
}
_SPARE = (
    Mark("sky", "P", (3, 1.4, 1, 1.4)),
    Mark("rose", "X", (8, 2)),
    Mark("slate", "h", (1.4, 1.4)),
    Mark("amber", "<", (5, 1.5, 1, 1.5)),
    Mark("green", ">", (9, 2, 2, 2)),
    Mark("purple", "p", (2.5, 1)),
    Mark("vermilion", "d", (1, 1)),
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
}


def canonical_loss(name: str) -> str:
    """One name a loss: lower case, underscores, aliases resolved."""
    name = name.strip().lower().replace("-", "_").replace(" ", "_")
    return _ALIASES.get(name, name)


def loss_label(name: str) -> str:
    """The name of a loss as a reader should see it."""
    return _LABELS.get(canonical_loss(name), name)


def assign_marks(losses: Iterable[tuple[str, str]]) -> dict[str, Mark]:
    """Give every (key, loss) its mark: the loss's own one first, spare ones for variants."""
    marks: dict[str, Mark] = {}
    spare = 0
    for key, loss in losses:
        own = _KNOWN.get(canonical_loss(loss))
        if own is not None and own not in marks.values():
            marks[key] = own
        else:
            marks[key] = _SPARE[spare % len(_SPARE)]
            spare += 1
    return marks
