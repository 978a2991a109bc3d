"""Emoji: names and groups (CLDR by way of emojibase), and pictures of several vendors."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from settings import Work

# Vendors whose pictures the model is built from. Fluent is held out: it is only ever shown as
# demo data and in the evaluation.
TRAINING_VENDORS = ("google", "twitter")
HELD_OUT_VENDOR = "fluent"

# A picture of a flag or of a sign says little about a visual concept.
SKIPPED_GROUPS = frozenset({"flags", "symbols"})

WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Emoji:
    """One emoji without skin tone variants."""

    code: str
    name: str
    tags: tuple[str, ...]
    group: str
    subgroup: str

    @property
    def pictorial(self) -> bool:
        return self.group not in SKIPPED_GROUPS

    @property
    def subgroup_words(self) -> str:
        return self.subgroup.replace("-", " ")


def load_emoji(work: Work) -> list[Emoji]:
    """All base emoji, in emojibase's order."""
    folder = work.npm / "emojibase-data"
    groups = json.loads((folder / "meta" / "groups.json").read_text(encoding="utf-8"))
    rows = json.loads((folder / "en" / "data.json").read_text(encoding="utf-8"))
    return [
        Emoji(
            row["hexcode"].lower(),
            row["label"],
            tuple(row.get("tags", ())),
            groups["groups"][str(row["group"])],
            groups["subgroups"][str(row["subgroup"])],
        )
        for row in rows
        # Rows without a group are single letters of flags; "component" holds skin tones and hair.
        if "group" in row and groups["groups"][str(row["group"])] != "component"
    ]


def picture_path(work: Work, vendor: str, code: str) -> Path | None:
    """The vendor's picture file of an emoji, if there is one."""
    if vendor == HELD_OUT_VENDOR:
        folder, suffix = work.npm / "lobehub-fluent-emoji-3d" / "assets", ".webp"
    else:
        folder = work.npm / f"emoji-datasource-{vendor}" / "img" / vendor / "64"
        suffix = ".png"
    # Vendors disagree about the invisible "show as picture" code point.
    for name in (code, code.replace("-fe0f", ""), f"{code}-fe0f"):
        path = folder / f"{name}{suffix}"
        if path.exists():
            return path
    return None


def compose(
    path: Path,
    size: int,
    background: tuple[int, int, int] = WHITE,
    scale: float = 0.92,
    shift: tuple[int, int] = (0, 0),
) -> Image.Image:
    """A picture with transparency pasted onto a square of one colour."""
    picture = Image.open(path).convert("RGBA")
    factor = size * scale / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (size, size), background)
    corner = ((size - width) // 2 + shift[0], (size - height) // 2 + shift[1])
    canvas.paste(picture, corner, picture)
    return canvas


def random_composition(generator: random.Random, dark: bool) -> dict:
    """Arguments for `compose`: another background, size and place."""
    low = 0 if dark else 160
    return {
        "background": tuple(generator.randint(low, 255) for _ in range(3)),
        "scale": generator.uniform(0.65, 1.0),
        "shift": (generator.randint(-9, 9), generator.randint(-9, 9)),
    }
