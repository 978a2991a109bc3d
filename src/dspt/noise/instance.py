"""Noise that depends on the picture: pictures that look alike are confused alike.

Source: Xia et al. 2020, "Part-dependent Label Noise", Algorithm 2; there on pixels, here on image
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from dspt.errors import UserError
from dspt.noise.draws import as_uniform, by_inverse_cdf, keyed_uniform, wrong_by_chance
from dspt.seeding import derived_seed

SPREAD = 0.1
"""Standard deviation of the pictures' flip rates before truncation, as in the paper."""

_GRID = 2.0**18


def instance(
    true: np.ndarray,
    rate: float,
    num_classes: int,
    seed: int,
    keys: Sequence[object],
    features: np.ndarray,
) -> np.ndarray:
    """Flip every label with its own chance, into a class that the picture's features choose.

    Picture i of class y is wrong with chance q_i, drawn from a normal distribution with mean
    ``rate`` and deviation 0.1, truncated to [0, 1]. If it is, its label is j != y with probability
    softmax over j of ``x_i W_y``, where x_i is its feature scaled to norm sqrt(D) and W_y, [D, C],
    holds standard normal numbers. Rate 0 changes nothing.

    Args:
        true: labels, int64 [N].
        rate: mean of the flip rates before truncation.
        num_classes: C, at least 2.
        seed: any integer.
        keys: the samples' ids, [N].
        features: of the pictures, [N, D]; their norm does not matter.

    Returns:
        The given labels, int64 [N].

    Raises:
        UserError: a feature that is zero or not finite.
        ValueError: features of a wrong shape (a bug of the caller).
    """
    given: np.ndarray = true.copy()
    if rate == 0:
        return given
    if features.ndim != 2 or len(features) != len(true) or not features.shape[1]:
        raise ValueError(f"features must be [{len(true)}, D], got {features.shape}")
    wrong = wrong_by_chance(flip_rates(rate, seed, keys), seed, keys)
    uniform = keyed_uniform(seed, "noise/instance/to", keys)
    for label in np.unique(true[wrong]):
        rows = wrong[true[wrong] == label]
        projection = class_projection(int(label), features.shape[1], num_classes, seed)
        scores = scaled(features[rows], [keys[i] for i in rows]) @ projection
        given[rows] = by_inverse_cdf(other_class_chances(scores, int(label)), uniform[rows])
    return given


def flip_rates(rate: float, seed: int, keys: Sequence[object]) -> np.ndarray:
    """The chance of each sample to be wrong: normal(rate, 0.1) truncated to [0, 1], float64 [N].

    Drawn by the inverse distribution function, so for one sample it grows with ``rate``.
    """
    normal = NormalDist()
    low, high = normal.cdf(-rate / SPREAD), normal.cdf((1 - rate) / SPREAD)
    uniform = keyed_uniform(seed, "noise/instance/rate", keys)
    inside = np.clip(low + uniform * (high - low), 2.0**-60, 1 - 2.0**-53)
    return np.clip([rate + SPREAD * normal.inv_cdf(p) for p in inside.tolist()], 0.0, 1.0)


def class_projection(label: int, dim: int, num_classes: int, seed: int) -> np.ndarray:
    """W_y, standard normal numbers in steps of 2^-18, float64 [dim, num_classes].

    From the raw 64-bit stream of Philox, which numpy promises never to change, by the transform of
    Box and Muller.
    """
    stream = np.random.Philox(key=derived_seed(seed, f"noise/instance/projection/{label}"))
    first, second = as_uniform(stream.random_raw(2 * dim * num_classes)).reshape(2, -1)
    normal = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
    return _to_grid(normal).reshape(dim, num_classes)


def other_class_chances(scores: np.ndarray, label: int) -> np.ndarray:
    """Softmax of scores [n, C] over all classes but ``label``, which gets 0; not normalised."""
    scores = scores.copy()
    scores[:, label] = -np.inf
    return np.exp(scores - scores.max(axis=1, keepdims=True))


def scaled(features: np.ndarray, keys: Sequence[object]) -> np.ndarray:
    """Features [n, D] scaled to norm sqrt(D), in steps of 2^-18, float64 [n, D].

    Raises:
        UserError: a feature that is zero or not finite, named by its key.
    """
    features = features.astype(np.float64)
    norms = np.sqrt((features * features).sum(axis=1, keepdims=True))
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if bad.size:
        raise UserError(
            f"noise instance: the image feature of {keys[bad[0]]} is zero or not finite; "
            "try --precision fp32 or leave the picture out"
        )
    return _to_grid(features / norms * np.sqrt(features.shape[1]))


def _to_grid(values: np.ndarray) -> np.ndarray:
    """Round to multiples of 2^-18.

    Products are then multiples of 2^-36 and, for D up to 2^16, sums stay below 2^53 of them: a
    matrix product in float64 is exact, whatever order the machine's library adds in.
    """
    return np.rint(values * _GRID) / _GRID
