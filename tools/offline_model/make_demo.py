"""Build the demo data: emoji pictures of a vendor that the model has never seen.

    python make_demo.py --work WORK --out FOLDER

Classes are Unicode's emoji subgroups with at least 20 pictures. Each class gives 16 training
pictures (chosen with the build's seed), the rest are for testing.
"""

from __future__ import annotations

import argparse
import io
import random
from collections import Counter
from pathlib import Path

import pandas as pd
from emoji import HELD_OUT_VENDOR, Emoji, compose, load_emoji, picture_path
from settings import SEED, Work

SIZE = 128
SHOTS = 16
MIN_PICTURES = 20
_WEBP_QUALITY = 90

# Flags, letters and abstract signs rather than pictures.
_SKIPPED = frozenset(
    {
        "alphanum",
        "av-symbol",
        "country-flag",
        "keycap",
        "other-symbol",
        "punctuation",
        "transport-sign",
        "warning",
        "zodiac",
    }
)


def demo_table(work: Work) -> pd.DataFrame:
    """One row per picture: WebP bytes, class name, split, and the emoji's own name."""
    pictures: list[tuple[Emoji, Path]] = []
    for item in load_emoji(work):
        path = picture_path(work, HELD_OUT_VENDOR, item.code)
        if path is not None and item.subgroup not in _SKIPPED:
            pictures.append((item, path))
    count = Counter(item.subgroup for item, _ in pictures)
    pictures = [pair for pair in pictures if count[pair[0].subgroup] >= MIN_PICTURES]
    pictures.sort(key=lambda pair: (pair[0].subgroup, pair[0].name))
    train = _training_codes([item for item, _ in pictures])
    return pd.DataFrame(
        {
            "image": [_webp(path) for _, path in pictures],
            "label": [item.subgroup_words for item, _ in pictures],
            "split": ["train" if item.code in train else "test" for item, _ in pictures],
            "name": [item.name for item, _ in pictures],
        }
    )


def _training_codes(items: list[Emoji]) -> set[str]:
    generator = random.Random(SEED)
    chosen: set[str] = set()
    for subgroup in sorted({item.subgroup for item in items}):
        codes = [item.code for item in items if item.subgroup == subgroup]
        chosen.update(generator.sample(codes, SHOTS))
    return chosen


def _webp(path: Path) -> bytes:
    buffer = io.BytesIO()
    compose(path, SIZE).save(buffer, "WEBP", quality=_WEBP_QUALITY, method=6)
    return buffer.getvalue()


def write_demo(work: Work, folder: Path) -> Path:
    """Write `demo.parquet` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "demo.parquet"
    demo_table(work).to_parquet(path, index=False, compression="none")
    return path


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="build folder with packages/")
    parser.add_argument("--out", type=Path, required=True, help="folder for demo.parquet")
    arguments = parser.parse_args()
    print(write_demo(Work(arguments.work), arguments.out))


if __name__ == "__main__":
    main()
