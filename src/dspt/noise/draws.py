"""What several protocols draw alike: how many labels are wrong, which ones, and keyed uniforms.

Which samples are wrong comes from one hash per sample, the same for every protocol. So two
protocols at one rate, or two rates of one protocol, differ as little as they can, and a lower rate
is part of a higher one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dspt.seeding import keyed_order, keyed_uint64

_WHICH = "noise/which"


def wrong_count(rate: float, n: int) -> int:
    """``int(rate * n)`` for the rate as it was written.

    0.29 * 100 is 28.999999999999996 in binary floating point; the user means 29.
    """
    return int(rate * n + 1e-9)


def wrong_over_all(rate: float, seed: int, keys: Sequence[object]) -> np.ndarray:
    """Positions of exactly ``wrong_count(rate, N)`` samples, int64."""
    return keyed_order(seed, _WHICH, keys)[: wrong_count(rate, len(keys))]


def wrong_per_class(
    true: np.ndarray, rate: float, num_classes: int, seed: int, keys: Sequence[object]
) -> np.ndarray:
    """Positions of exactly ``wrong_count(rate, n_c)`` samples of every class c, int64.

    They are sorted by class and, within a class, by hash.
    """
    sizes = np.bincount(true, minlength=num_classes)
    wanted = np.array([wrong_count(rate, int(n)) for n in sizes], dtype=np.int64)
    order = np.lexsort((keyed_uint64(seed, _WHICH, keys), true))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[rank < wanted[true[order]]]


def wrong_by_chance(chance: np.ndarray, seed: int, keys: Sequence[object]) -> np.ndarray:
    """Positions of the samples that are wrong with probability ``chance``, [N], each; int64."""
    return np.flatnonzero(keyed_uniform(seed, _WHICH, keys) < chance)


def keyed_uniform(seed: int, purpose: str, keys: Sequence[object]) -> np.ndarray:
    """One number in [0, 1) for each key: a multiple of 2^-53, float64."""
    return as_uniform(keyed_uint64(seed, purpose, keys))


def as_uniform(integers: np.ndarray) -> np.ndarray:
    """Uniform 64-bit integers as multiples of 2^-53 in [0, 1), float64, exactly."""
    return (integers >> np.uint64(11)).astype(np.float64) * 2.0**-53


def by_inverse_cdf(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """One column per row, drawn in proportion to the row's weights.

    Args:
        weights: not negative, at least one above 0 in every row, [n, C], or [1, C] for one row
            that serves all.
        uniform: in [0, 1), [n].

    Returns:
        Column numbers, int64 [n]; never one whose weight is 0.
    """
    cumulative = np.cumsum(weights, axis=1)
    target = uniform * cumulative[:, -1]
    return (cumulative <= target[:, None]).sum(axis=1).astype(np.int64)
