"""What the true labels probably are, when nobody knows how many of the given ones are wrong.

Linear heads that are anchored at zero-shot (``heads.py``) judge every sample without having seen
its label (``folds.py``); a noise channel (``channel.py``) weighs these experts and says how true
labels became given ones; the corrected labels train the next round of heads. There is no rate to
give and nothing to tune. ``docs/auto.md`` derives it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from dspt.correction.channel import (
    PRIOR_STRENGTHS,
    Channel,
    explains_labels,
    fit_channel,
    select_channel,
)
from dspt.correction.folds import stratified_folds
from dspt.correction.heads import STRENGTHS, anchored_heads, out_of_fold
from dspt.seeding import derived_seed

FIRST_STRENGTHS = tuple(strength for strength in STRENGTHS if strength >= 0.1)
"""Of the first round, which learns from the given labels as they are. A head that follows them
closely explains consistent flips as if they were classes, and the channel finds no noise."""

FOLDS = 4
ROUNDS = 4
RESAMPLES = 40
MIN_SAMPLES = 8
"""Fewer cannot judge each other: two a fold."""


@dataclass(frozen=True)
class Correction:
    """What the given labels say once their noise is accounted for.

    Attributes:
        posterior: P(true = c | picture, given label), float64 [n, C].
        probabilities: P(true = c | picture), from experts that never saw the label, [n, C].
        transition: P(given = j | true = c), [C, C].
        noise_rate: expected share of wrong labels.
        interval: 95 % of the noise rate, from resampled pictures; it does not hold noise that
            follows the model's own confusions, which no method that trusts the prior can see.
        strengths: penalties of the experts after the first, which is zero-shot.
        weights: of zero-shot and the heads, [1 + S].
        change: of the class embeddings, to be added to the zero-shot ones, [D, C].
        informed: whether zero-shot says anything about the given labels. If not, nothing can tell
            a wrong label from a right one, and only symmetric noise is considered.
    """

    posterior: np.ndarray
    probabilities: np.ndarray
    transition: np.ndarray
    noise_rate: float
    interval: tuple[float, float]
    strengths: tuple[float, ...]
    weights: np.ndarray
    change: np.ndarray
    informed: bool


def correct(
    features: np.ndarray,
    given: np.ndarray,
    anchor: np.ndarray,
    *,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Correction:
    """Estimate true labels, noise channel and a classifier from given labels of unknown quality.

    Args:
        features: L2-normalised image features, [n, D].
        given: labels that may be wrong, int64 [n], n at least 4.
        anchor: zero-shot logits, [n, C].
        seed: of the folds.
        on_progress: told of (rounds done, rounds in all).

    Raises:
        ValueError: with fewer than four samples.
    """
    features, anchor = features.astype(np.float64), anchor.astype(np.float64)
    classes = anchor.shape[1]
    zero_shot = softmax(anchor, axis=1)[None]
    fold = stratified_folds(given, FOLDS, seed)
    informed = explains_labels(select_channel(zero_shot, given), given)
    # Without a prior, a structured channel could rename the classes at will.
    allowed = PRIOR_STRENGTHS if informed else PRIOR_STRENGTHS[-1:]
    targets = np.eye(classes)[given]
    for done in range(ROUNDS):
        strengths = STRENGTHS if done else FIRST_STRENGTHS
        heads = out_of_fold(features, anchor, targets, fold, strengths)
        experts = np.concatenate([zero_shot, heads])
        channel = select_channel(experts, given, allowed)
        targets = channel.posterior
        if on_progress:
            on_progress(done + 1, ROUNDS)
    rate = _wrong_share(channel, given)
    final = anchored_heads(features, anchor, targets)
    return Correction(
        posterior=channel.posterior,
        probabilities=channel.pooled,
        transition=channel.transition,
        noise_rate=rate,
        interval=_rate_interval(experts, given, channel, rate, seed),
        strengths=STRENGTHS,
        weights=channel.weights,
        # Averaging logits is a product of experts, and stays one linear head.
        change=np.tensordot(channel.weights[1:], final, axes=1),
        informed=informed,
    )


def _wrong_share(channel: Channel, given: np.ndarray) -> float:
    return float(1 - channel.posterior[np.arange(len(given)), given].mean())


def _rate_interval(
    experts: np.ndarray, given: np.ndarray, channel: Channel, rate: float, seed: int
) -> tuple[float, float]:
    """Normal 95 % interval from the spread of the estimate over resampled pictures."""
    generator = np.random.Generator(np.random.PCG64(derived_seed(seed, "correction/resamples")))
    rates = []
    for _ in range(RESAMPLES):
        rows = generator.integers(0, len(given), len(given))
        again = fit_channel(experts[:, rows], given[rows], channel.prior_strength, start=channel)
        rates.append(_wrong_share(again, given[rows]))
    half = 1.96 * float(np.std(rates, ddof=1))
    return max(0.0, rate - half), min(1.0, rate + half)
