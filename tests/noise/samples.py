"""Labels to make noise on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dspt.noise import NoiseSpec, apply_noise

FLIPS = ["symmetric", "asymmetric", "pair"]
EXCHANGES = ["replace", "replace-pair"]


def noisy(
    labels: Any,
    spec: str | NoiseSpec,
    num_classes: int,
    seed: int = 1,
    keys: Sequence[object] | None = None,
    **options: Any,
) -> np.ndarray:
    """:func:`apply_noise` on samples that are called 0.jpg, 1.jpg, ..."""
    keys = names(len(labels)) if keys is None else keys
    spec = NoiseSpec.parse(spec) if isinstance(spec, str) else spec
    return apply_noise(np.asarray(labels), spec, num_classes, seed, keys, **options)


def names(n: int) -> list[str]:
    return [f"{i}.jpg" for i in range(n)]


def features(n: int, dim: int = 24, seed: int = 0) -> np.ndarray:
    """Unit vectors around a common direction, as image features are, [n, dim]."""
    values = np.random.default_rng(seed).normal(0.5, 1.0, (n, dim))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def balanced(num_classes: int, shots: int) -> np.ndarray:
    return np.arange(num_classes * shots) % num_classes


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Labels, number of classes, seed."""
    num_classes = draw(st.integers(2, 12))
    labels = draw(st.lists(st.integers(0, num_classes - 1), max_size=80))
    return np.array(labels, dtype=np.int64), num_classes, draw(seeds)


seeds = st.integers(-5, 2**65)
rates = st.one_of(st.floats(0, 1), st.integers(0, 100).map(lambda percent: percent / 100))
