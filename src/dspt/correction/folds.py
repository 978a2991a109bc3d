"""Folds for out-of-fold probabilities: no sample is judged by a model that saw its label."""

from __future__ import annotations

import numpy as np

from dspt.seeding import keyed_order


def stratified_folds(given: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deal the samples to folds, each class as evenly as its count allows.

    The samples are put in random order, sorted by class and dealt in turn, so the sizes of the
    folds differ by one at most, in all and within a class. A class with fewer samples than folds is
    missing in some; a class with one is never in training when that one is judged. Which number a
    class has plays no part: classes are dealt in the order in which they first appear.

    Args:
        given: labels, int64 [n].
        folds: 2 to n.
        seed: of the order.

    Returns:
        Number of each sample's fold, int64 [n].

    Raises:
        ValueError: when there are fewer samples than folds, or fewer than two folds.
    """
    if not 2 <= folds <= len(given):
        raise ValueError(f"folds must be 2 to {len(given)} (the number of samples), not {folds}")
    shuffled = keyed_order(seed, "folds", range(len(given)))
    _, first, number = np.unique(given[shuffled], return_index=True, return_inverse=True)
    dealt = shuffled[np.argsort(first[number], kind="stable")]
    fold = np.empty(len(given), dtype=np.int64)
    fold[dealt] = np.arange(len(given)) % folds
    return fold
