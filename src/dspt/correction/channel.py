"""The noise channel: how true labels became given ones, estimated with a pool of experts by EM.

The model, for sample i with given label y_i and experts k = 1..K that never saw y_i::

    P(y_i | x_i) = sum_c T[c, y_i] sum_k w_k p_k(c | x_i)

``T[c, j]`` is the probability that class c is labelled j, ``w`` weighs the experts. Each row of T
has a Dirichlet prior of strength m around symmetric noise of rate e, w one that gives each expert
one sample more. Between blocks of EM steps e is re-estimated from the off-diagonal mass. The
derivation is in ``docs/auto.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

SYMMETRIC = 1e4
"""Strength of the prior that lets T be nothing but symmetric noise."""

PRIOR_STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, SYMMETRIC)
"""From "T is what the labels say" on."""

BLOCKS = 6
STEPS = 10
STANDARD_ERRORS = 2.0
RATE_BOUNDS = (0.01, 0.98)
TINY = 1e-12


@dataclass(frozen=True)
class Channel:
    """What EM found.

    Attributes:
        posterior: P(true = c | x_i, y_i), [n, C].
        pooled: P(true = c | x_i), the weighted experts, [n, C].
        weights: of the experts, [K], sum 1.
        transition: T, [C, C], rows sum to 1.
        prior_strength: m.
        log_likelihoods: of each given label when its own count is left out of T, [n].
        objectives: penalised log-likelihood before every step, [blocks, steps]; e is one number
            within a block, and there no step lowers it.
    """

    posterior: np.ndarray
    pooled: np.ndarray
    weights: np.ndarray
    transition: np.ndarray
    prior_strength: float
    log_likelihoods: np.ndarray
    objectives: np.ndarray


def symmetric(rate: float, classes: int) -> np.ndarray:
    """Keep the label with 1 - rate, else draw it from all C classes evenly, [C, C]."""
    return (1 - rate) * np.eye(classes) + rate / classes


def label_counts(posterior: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Expected number of samples of class c with label j, [C, C]."""
    samples = np.arange(len(given))
    one_hot = csr_array((np.ones(len(given)), (given, samples)), (posterior.shape[1], len(given)))
    counts: np.ndarray = (one_hot @ posterior).T
    return counts


def fit_channel(
    experts: np.ndarray, given: np.ndarray, prior_strength: float, start: Channel | None = None
) -> Channel:
    """EM for one strength of the prior.

    Args:
        experts: p_k(c | x_i), [K, n, C]; expert 0 is trusted most and starts T.
        given: y, int64 [n].
        prior_strength: m, above 0.
        start: whose transition and weights to begin with.

    Returns:
        The channel after a fixed number of steps.
    """
    number, _, classes = experts.shape
    if start is None:
        weights = np.full(number, 1 / number)
        rate, transition = 0.3, symmetric(0.3, classes)
        if number > 1:  # a first T from the expert that no label has touched
            alone = fit_channel(experts[:1], given, min(prior_strength, 64.0))
            transition = alone.transition
    else:
        weights, transition = start.weights, start.transition
        rate = _rate(label_counts(start.posterior, given))
    objectives = np.empty((BLOCKS, STEPS))
    for block in range(BLOCKS):
        prior = prior_strength * symmetric(rate, classes)
        for step in range(STEPS):
            posterior, _, shares, likelihood = _expect(experts, given, weights, transition)
            objectives[block, step] = (
                np.log(likelihood).sum()
                + (prior * np.log(transition)).sum()
                + np.log(weights).sum()
            )
            counts = label_counts(posterior, given)
            weights = (shares + 1) / (shares + 1).sum()
            transition = _rows(counts + prior)
        rate = _rate(counts)
    posterior, pooled, _, _ = _expect(experts, given, weights, transition)
    return Channel(
        posterior=posterior,
        pooled=pooled,
        weights=weights,
        transition=transition,
        prior_strength=prior_strength,
        log_likelihoods=_leave_one_out(posterior, pooled, given, prior_strength),
        objectives=objectives,
    )


def select_channel(
    experts: np.ndarray,
    given: np.ndarray,
    prior_strengths: Sequence[float] = PRIOR_STRENGTHS,
    standard_errors: float = STANDARD_ERRORS,
) -> Channel:
    """The channel nearest to symmetric noise that explains the labels as well as any.

    Of the prior strengths, the largest whose leave-one-out log-likelihood is within some standard
    errors (of the paired differences) of the best one's. Structure in the noise has to show.

    Args:
        experts, given: as for :func:`fit_channel`.
        prior_strengths: to choose from, ascending.
        standard_errors: how many; 0 takes the best one.
    """
    channels = [fit_channel(experts, given, m) for m in prior_strengths]
    best = max(channels, key=lambda channel: float(channel.log_likelihoods.sum()))
    for channel in reversed(channels):
        behind = best.log_likelihoods - channel.log_likelihoods
        if behind.sum() <= standard_errors * behind.std() * np.sqrt(len(given)):
            return channel
    return best


def sharpened(experts: np.ndarray, factor: float) -> np.ndarray:
    """Experts that are ``factor`` times as sure: their log-probabilities times it, [K, n, C]."""
    powers = experts**factor
    return powers / powers.sum(axis=-1, keepdims=True)


def weigh_experts(experts: np.ndarray, given: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Weights of the experts by EM, the channel held fixed, [K]; arguments as above."""
    weights = np.full(len(experts), 1 / len(experts))
    for _ in range(BLOCKS * STEPS):
        _, _, shares, _ = _expect(experts, given, weights, transition)
        weights = (shares + 1) / (shares + 1).sum()
    return weights


def hedged_likelihoods(channel: Channel, given: np.ndarray) -> np.ndarray:
    """P(label of sample i | true = c), to rank labels by, [n, C].

    Half of it is the channel without the sample's own count, as a wrong label that is counted as
    noise would excuse itself; the other half is symmetric noise of the same rate, as few samples
    may show structure that there is not.
    """
    rate = _rate(label_counts(channel.posterior, given))
    own = _without_own_count(channel.posterior, given, channel.prior_strength)
    return (own + symmetric(rate, own.shape[1])[:, given].T) / 2


def explains_labels(channel: Channel, given: np.ndarray) -> bool:
    """Whether the experts say more of the given labels than the labels' own frequencies do.

    True when the mean gain in leave-one-out log-likelihood is above two standard errors.
    """
    classes = channel.posterior.shape[1]
    counts = np.bincount(given, minlength=classes)
    frequency = np.log(counts[given] / (len(given) - 1 + classes))
    gain = channel.log_likelihoods - frequency
    return bool(gain.mean() > STANDARD_ERRORS * gain.std() / np.sqrt(len(given)))


def _expect(
    experts: np.ndarray, given: np.ndarray, weights: np.ndarray, transition: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """E-step: posterior [n, C], pooled [n, C], expected samples per expert [K], likelihood [n]."""
    label_given_class = transition[:, given].T
    pooled = np.tensordot(weights, experts, axes=1)
    joint = pooled * label_given_class
    likelihood = np.clip(joint.sum(axis=1), TINY, None)
    explained = np.einsum("knc,nc->kn", experts, label_given_class)
    shares = weights * (explained / likelihood).sum(axis=1)
    return joint / likelihood[:, None], pooled, shares, likelihood


def _rate(counts: np.ndarray) -> float:
    """Rate e of :func:`symmetric` that fits the off-diagonal mass of the counts."""
    classes = len(counts)
    off = 1 - np.trace(counts) / counts.sum()
    return float(np.clip(off * classes / (classes - 1), *RATE_BOUNDS))


def _rows(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True)


def _leave_one_out(
    posterior: np.ndarray, pooled: np.ndarray, given: np.ndarray, prior_strength: float
) -> np.ndarray:
    """Log-likelihood of each label under a T from which its own count is taken, [n]."""
    likelihood = pooled * _without_own_count(posterior, given, prior_strength)
    return np.log(np.clip(likelihood.sum(axis=1), TINY, None))


def _without_own_count(
    posterior: np.ndarray, given: np.ndarray, prior_strength: float
) -> np.ndarray:
    """T[c, y_i] from the other samples, [n, C]."""
    counts = label_counts(posterior, given)
    smoothed = counts + prior_strength * symmetric(_rate(counts), len(counts))
    numerator = smoothed[:, given].T - posterior
    return numerator / np.clip(smoothed.sum(axis=1) - posterior, TINY, None)
