"""Linear heads on image features that start at zero-shot and are held there by a penalty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Penalties from "learns nearly all it is told" to "hardly leaves zero-shot", half a decade apart.

With L2-normalised features and one unit of penalty a sample moves its own logits by less than one.
"""

MAX_ITERATIONS = 200


def anchored_head(
    features: np.ndarray,
    anchor: np.ndarray,
    targets: np.ndarray,
    strength: float,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Change ``V`` of the class embeddings with the least penalised cross-entropy.

    Minimises ``sum_i CE(softmax(anchor_i + x_i V), targets_i) + strength / 2 |V|^2``, a convex
    problem, by L-BFGS. In Bayesian terms it is the mode under a Gaussian prior around zero-shot.

    Source: logistic regression with an offset; zero-shot as its prior mean is the idea of CLAP
    (Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language
    Models", CVPR 2024), there with a penalty per class.

    Args:
        features: L2-normalised, float64 [n, D].
        anchor: zero-shot logits, [n, C].
        targets: probabilities of the classes, [n, C]; one-hot for hard labels.
        strength: of the penalty, above 0.
        start: where to begin, [D, C]; zeros if None. The minimum does not depend on it.

    Returns:
        V, float64 [D, C]; logits are ``anchor + features @ V``.
    """
    shape = (features.shape[1], targets.shape[1])
    mass = targets.sum(axis=1, keepdims=True)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        change = flat.reshape(shape)
        log_p = log_softmax(anchor + features @ change, axis=1)
        gradient = features.T @ (np.exp(log_p) * mass - targets) + strength * change
        value = -(targets * log_p).sum() + strength / 2 * (flat @ flat)
        return float(value), gradient.ravel()

    first = np.zeros(shape) if start is None else start
    found = minimize(
        objective,
        first.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS},
    )
    return found.x.reshape(shape)


def anchored_heads(
    features: np.ndarray,
    anchor: np.ndarray,
    targets: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> np.ndarray:
    """:func:`anchored_head` for each strength, [S, D, C]; each starts where the stronger ended."""
    heads: dict[float, np.ndarray] = {}
    start = None
    for strength in sorted(strengths, reverse=True):
        start = heads[strength] = anchored_head(features, anchor, targets, strength, start)
    return np.stack([heads[strength] for strength in strengths])


def out_of_fold(
    features: np.ndarray,
    anchor: np.ndarray,
    targets: np.ndarray,
    fold: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> np.ndarray:
    """Probabilities of every sample under heads that were trained without it.

    Args:
        features, anchor, targets: as for :func:`anchored_head`.
        fold: number of each sample's fold, [n].
        strengths: S penalties.

    Returns:
        float64 [S, n, C].
    """
    log_p = np.empty((len(strengths), *targets.shape))
    for number in np.unique(fold):
        held = fold == number
        heads = anchored_heads(features[~held], anchor[~held], targets[~held], strengths)
        log_p[:, held] = log_softmax(anchor[held] + features[held] @ heads, axis=-1)
    return np.exp(log_p)
