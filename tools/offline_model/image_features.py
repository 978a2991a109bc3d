"""Image features of the openly licensed pictures that the model is built from (cached)."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import torch
from emoji import TRAINING_VENDORS, compose, load_emoji, picture_path, random_composition
from image_tower import FeatureExtractor, Loader
from settings import IMAGE_SIZE, SEED, Work

# Very large clip art files take seconds to decode and are rare.
_MAX_CLIPART_BYTES = 300_000


def extract_training_features(work: Work, extractor: FeatureExtractor) -> None:
    """Features of emoji (three compositions each) and of clip art, written to the cache."""
    emoji = load_emoji(work)
    for vendor in TRAINING_VENDORS:
        generator = random.Random(SEED)
        loaders: list[Loader] = []
        index: list[int] = []
        for number, item in enumerate(emoji):
            path = picture_path(work, vendor, item.code)
            if path is None or not item.pictorial:
                continue
            compositions = [{}] + [random_composition(generator, dark) for dark in (False, True)]
            loaders += [partial(compose, path, IMAGE_SIZE, **kwargs) for kwargs in compositions]
            index += [number] * len(compositions)
        _save(work, vendor, extractor, loaders, {"emoji": torch.tensor(index)})
    paths = clipart_paths(work)
    loaders = [partial(compose, path, IMAGE_SIZE) for path in paths]
    names = [str(path.relative_to(work.clipart)) for path in paths]
    _save(work, "clipart", extractor, loaders, {"names": names})


def clipart_paths(work: Work) -> list[Path]:
    """The clip art pictures, without geometry, desktop icons, playing cards and flags."""
    skipped = (
        "buttons/",
        "computer/icons/",
        "recreation/games/cards/",
        "shapes/",
        "signs_and_symbols/flags/",
        "special/",
    )
    return [
        path
        for path in sorted(work.clipart.rglob("*.png"))
        if path.stat().st_size <= _MAX_CLIPART_BYTES
        and not str(path.relative_to(work.clipart)).startswith(skipped)
    ]


def _save(
    work: Work,
    name: str,
    extractor: FeatureExtractor,
    loaders: list[Loader],
    about: dict[str, object],
) -> None:
    path = work.features(name)
    if path.exists():
        return
    torch.save({"features": extractor(loaders), **about}, path)
