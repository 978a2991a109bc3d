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
    STANDARD_ERRORS,
    SYMMETRIC,
    Channel,
    explains_labels,
    fit_channel,
    select_channel,
    sharpened,
)
from dspt.correction.folds import stratified_folds
from dspt.correction.heads import STRENGTHS, anchored_heads, out_of_fold
from dspt.seeding import derived_seed

MIN_SAMPLES = 8
"""Fewer cannot judge each other: two a fold."""


@dataclass(frozen=True)
class Constants:
    """What the method fixes. No option of a command; ``tools/auto_study.py`` varies each of them.

    Attributes:
        folds: every head is trained without one of them.
        rounds: of heads, channel and corrected labels.
        strengths: penalties of the heads.
        first_strength: least penalty in the first round, which learns from the given labels as they
            are. A head that follows them closely explains consistent flips as if they were classes,
            and the channel finds no noise.
        prior_strengths: of the channel's prior, ascending.
        standard_errors: by which structure in the noise has to show.
        sharpness: heads that learn from soft targets are less sure than they are right, and their
            doubt passes for what noise does. So where only symmetric noise shows, each of them
            stands in the pool once as it is and once this many times as sure. (A structured channel
            could explain the mistakes of sharpened heads as noise.) 1: not at all.
        resamples: for the interval of the noise rate.
    """

    folds: int = 4
    rounds: int = 4
    strengths: tuple[float, ...] = STRENGTHS
    first_strength: float = 0.1
    prior_strengths: tuple[float, ...] = PRIOR_STRENGTHS
    standard_errors: float = STANDARD_ERRORS
    sharpness: float = 2.0
    resamples: int = 40


CONSTANTS = Constants()


@dataclass(frozen=True)
class Correction:
    """What the given labels say once their noise is accounted for.

    Attributes:
        posterior: P(true = c | picture, given label), float64 [n, C].
        probabilities: P(true = c | picture), from experts that never saw the label, [n, C].
        transition: P(given = j | true = c), [C, C].
        noise_rate: expected share of wrong labels.
        interval: 95 % of the noise rate, from resampled pictures and from how much it depends on
            how sure the heads are; it does not hold noise that follows the model's own confusions,
            which no method that trusts the prior can see.
        strengths: penalties of the experts after the first, which is zero-shot.
        weights: of zero-shot and the heads, [1 + S]; of a head and its sharpened copy together.
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
    constants: Constants = CONSTANTS,
) -> Correction:
    """Estimate true labels, noise channel and a classifier from given labels of unknown quality.

    Args:
        features: L2-normalised image features, [n, D].
        given: labels that may be wrong, int64 [n], n at least 4.
        anchor: zero-shot logits, [n, C].
        seed: of the folds.
        on_progress: told of (rounds done, rounds in all).
        constants: for studies of the method.

    Raises:
        ValueError: with fewer samples than folds.
    """
    features, anchor = features.astype(np.float64), anchor.astype(np.float64)
    classes = anchor.shape[1]
    zero_shot = softmax(anchor, axis=1)[None]
    fold = stratified_folds(given, constants.folds, seed)
    informed = explains_labels(select_channel(zero_shot, given), given)
    # Without a prior, a structured channel could rename the classes at will.
    allowed = constants.prior_strengths if informed else (SYMMETRIC,)
    targets = np.eye(classes)[given]
    for done in range(constants.rounds):
        least = 0 if done else constants.first_strength
        strengths = [strength for strength in constants.strengths if strength >= least]
        heads = out_of_fold(features, anchor, targets, fold, strengths)
        experts = np.concatenate([zero_shot, heads])
        channel = select_channel(experts, given, allowed, constants.standard_errors)
        symmetric = channel.prior_strength == SYMMETRIC
        copies = np.array([1, constants.sharpness] if symmetric else [1])[:, None]
        experts = np.concatenate([zero_shot, *(sharpened(heads, c) for c in copies.ravel())])
        if symmetric:
            channel = fit_channel(experts, given, channel.prior_strength)
        targets = channel.posterior
        if on_progress:
            on_progress(done + 1, constants.rounds)
    rate = _wrong_share(channel, given)
    by_copy = channel.weights[1:].reshape(len(copies), len(strengths))
    # Averaging logits is a product of experts, and stays one linear head; a sharpened copy has the
    # same logits, that many times.
    votes = (by_copy * copies).sum(axis=0)
    final = anchored_heads(features, anchor, targets, strengths)
    return Correction(
        posterior=channel.posterior,
        probabilities=channel.pooled,
        transition=channel.transition,
        noise_rate=rate,
        interval=_rate_interval(experts, heads, given, channel, rate, seed, constants),
        strengths=tuple(strengths),
        weights=np.concatenate([channel.weights[:1], by_copy.sum(axis=0)]),
        change=np.tensordot(votes / (channel.weights[0] + votes.sum()), final, axes=1),
        informed=informed,
    )


def _wrong_share(channel: Channel, given: np.ndarray) -> float:
    return float(1 - channel.posterior[np.arange(len(given)), given].mean())


def _rate_interval(
    experts: np.ndarray,
    heads: np.ndarray,
    given: np.ndarray,
    channel: Channel,
    rate: float,
    seed: int,
    constants: Constants,
) -> tuple[float, float]:
    """Normal 95 % interval from two spreads: over pictures, and over how sure the heads are."""
    generator = np.random.Generator(np.random.PCG64(derived_seed(seed, "correction/resamples")))
    rates = []
    for _ in range(constants.resamples):
        rows = generator.integers(0, len(given), len(given))
        again = fit_channel(experts[:, rows], given[rows], channel.prior_strength, start=channel)
        rates.append(_wrong_share(again, given[rows]))
    unsure, sure = (
        _wrong_share(
            fit_channel(
                np.concatenate([experts[:1], sharpened(heads, c)]), given, channel.prior_strength
            ),
            given,
        )
        for c in (1, constants.sharpness)
    )
    half = 1.96 * float(np.hypot(np.std(rates, ddof=1), (sure - unsure) / 2))
    return max(0.0, rate - half), min(1.0, rate + half)
