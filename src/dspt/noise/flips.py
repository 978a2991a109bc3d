"""Flips: a part of the labels is changed; how many pictures a given class has may change with it.

Sources: ``symmetric`` and ``asymmetric``, exact over the whole few-shot set, as in NLPrompt (Pan et
al. 2025); ``pair`` has the transition matrix of Han et al. 2018 (Co-teaching), exact per class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dspt.noise.draws import wrong_over_all, wrong_per_class
from dspt.seeding import keyed_uint64


def symmetric(
    true: np.ndarray, rate: float, num_classes: int, seed: int, keys: Sequence[object]
) -> np.ndarray:
    """Exactly int(rate * N) labels of all become a uniformly random other class.

    Args:
        true: labels, int64 [N].
        rate: share of wrong labels.
        num_classes: C, at least 2.
        seed: any integer.
        keys: the samples' ids, [N].

    Returns:
        The given labels, int64 [N].
    """
    wrong = wrong_over_all(rate, seed, keys)
    numbers = keyed_uint64(seed, "noise/to", [keys[i] for i in wrong])
    other: np.ndarray = (numbers % np.uint64(num_classes - 1)).astype(np.int64)
    given: np.ndarray = true.copy()
    given[wrong] = other + (other >= true[wrong])  # step over the true class
    return given


def asymmetric(
    true: np.ndarray, rate: float, num_classes: int, seed: int, keys: Sequence[object]
) -> np.ndarray:
    """Exactly int(rate * N) labels of all become (y + 1) mod C. Arguments as :func:`symmetric`."""
    return _to_next(true, wrong_over_all(rate, seed, keys), num_classes)


def pair(
    true: np.ndarray, rate: float, num_classes: int, seed: int, keys: Sequence[object]
) -> np.ndarray:
    """Exactly int(rate * n_c) labels of every class c become (c + 1) mod C.

    Arguments as :func:`symmetric`.
    """
    return _to_next(true, wrong_per_class(true, rate, num_classes, seed, keys), num_classes)


def _to_next(true: np.ndarray, wrong: np.ndarray, num_classes: int) -> np.ndarray:
    given: np.ndarray = true.copy()
    given[wrong] = (true[wrong] + 1) % num_classes
    return given
