"""What the most similar pictures probably are: a second opinion, to rank given labels by.

A linear head sees one direction per class; the neighbours see groups within a class, and pictures
of one odd kind that vouch for each other. They have no prior and are few, so they rank labels and
do not enter the estimated share of wrong ones.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

_ROWS_AT_ONCE = 1024
_TINY = 1e-12


def nearest_mean(
    features: np.ndarray, others: np.ndarray, values: np.ndarray, count: int
) -> np.ndarray:
    """Mean value of the most similar others, by cosine.

    Args:
        features: L2-normalised, [n, D].
        others: L2-normalised, [m, D], m at least 1.
        values: of the others, [m, C].
        count: how many others; all of them where there are fewer.

    Returns:
        [n, C].
    """
    count = min(count, len(others))
    means = np.empty((len(features), values.shape[1]))
    for start in range(0, len(features), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        distance = -(features[rows] @ others.T)
        nearest = np.argpartition(distance, count - 1, axis=1)[:, :count]
        for place in range(start, start + len(nearest)):
            means[place] = values[nearest[place - start]].mean(axis=0)
    return means


def suspicion(
    pooled: np.ndarray,
    likelihoods: np.ndarray,
    given: np.ndarray,
    votes: np.ndarray,
    count: int,
    weight: float,
) -> np.ndarray:
    """How odd each given label is to the experts and to its neighbours together, [n].

    ``1 - P(true = y_i | x_i, y_i)``, with the experts' probabilities multiplied
    by the neighbours' to the power ``weight``. Both look at the same features, so that a power of 1
    would count the same evidence twice. One more neighbour, who says nothing, keeps a class
    possible that none of them has.

    Args:
        pooled: P(true = c | x_i) of the experts, [n, C].
        likelihoods: P(y_i | true = c) by the channel, [n, C].
        given: y, int64 [n].
        votes: mean corrected label of each sample's neighbours, [n, C].
        count: how many neighbours.
        weight: 0 for the experts alone.
    """
    opinion = (count * votes + 1 / votes.shape[1]) / (count + 1)
    together = np.log(np.clip(pooled, _TINY, None)) + weight * np.log(opinion)
    joint = softmax(together, axis=1) * likelihoods
    return 1 - joint[np.arange(len(given)), given] / np.clip(joint.sum(axis=1), _TINY, None)
