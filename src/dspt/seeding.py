"""Randomness that is a pure function of a seed and a name.

Few-shot draws, label noise, holdouts and batch orders must be the same on every run, platform and
library version, for every seed (0 included). Streams of the usual generators are not promised to
stay the same across versions, and they depend on how often somebody else drew before. Here every
number is a keyed BLAKE2b hash of (seed, purpose, key): nothing is consumed, nothing is shared, and
the key can be a file name, so a draw does not change when a folder is listed in another order.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np


def keyed_uint64(seed: int, purpose: str, keys: Iterable[object]) -> np.ndarray:
    """One uniform 64-bit integer for each key.

    Args:
        seed: any integer, negative ones and 0 included; every value gives its own numbers.
        purpose: what the numbers are for ("shots", "noise/which", ...); purposes are independent.
        keys: one hashable-as-text value per number, for example relative paths or row numbers.

    Returns:
        Array of ``uint64``, shape [number of keys].
    """
    stem = blake2b(f"dspt\x00{int(seed)}\x00{purpose}\x00".encode(), digest_size=8)
    out = []
    for key in keys:
        hasher = stem.copy()
        hasher.update(str(key).encode("utf-8", "surrogateescape"))
        out.append(int.from_bytes(hasher.digest(), "little"))
    return np.array(out, dtype=np.uint64)


def keyed_order(seed: int, purpose: str, keys: Iterable[object]) -> np.ndarray:
    """A uniformly random permutation of ``range(len(keys))``: positions sorted by their hash.

    Ties (chance about n^2 / 2^65, or equal keys) keep the order of the input.
    """
    return np.argsort(keyed_uint64(seed, purpose, keys), kind="stable")


def derived_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2^63) for a library generator that must have one of its own."""
    return int(keyed_uint64(seed, purpose, [""])[0] >> np.uint64(1))
