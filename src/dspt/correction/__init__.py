"""What the true labels probably are, when nobody knows how many of the given ones are wrong.

Linear heads that are anchored at zero-shot (``heads.py``) judge samples whose labels they never
saw, in several rounds (``folds.py``, ``nested.py``); a noise channel (``channel.py``) weighs these
experts and says how true labels became given ones; the corrected labels train the next round. There
is no rate to give and nothing to tune. ``docs/auto.md`` derives it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from dspt.correction.channel import (
    SYMMETRIC,
    Channel,
    explains_labels,
    fit_channel,
    hedged_likelihoods,
    select_channel,
    sharpened,
)
from dspt.correction.classifier import Classifier, product_of_experts
from dspt.correction.constants import CONSTANTS, Constants
from dspt.correction.folds import stratified_folds
from dspt.correction.neighbours import suspicion
from dspt.correction.nested import Judgement, NestedFolds
from dspt.seeding import derived_seed

MIN_SAMPLES = 8
"""Fewer cannot judge each other."""


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
        strengths: penalties of the heads.
        classifier: trained on the posterior.
        neighbours: share of the nearest samples' corrected labels that is not the given label, [n].
        suspicion: to rank the given labels by, the oddest highest, [n]: ``1 - posterior`` of the
            given label, but less sure of the channel, and the neighbours have a say as well.
        informed: whether zero-shot says anything about the given labels. If not, nothing can tell
            a wrong label from a right one, and only symmetric noise is considered.
    """

    posterior: np.ndarray
    probabilities: np.ndarray
    transition: np.ndarray
    noise_rate: float
    interval: tuple[float, float]
    strengths: tuple[float, ...]
    classifier: Classifier
    neighbours: np.ndarray
    suspicion: np.ndarray
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
        given: labels that may be wrong, int64 [n], n at least the number of folds.
        anchor: zero-shot logits, [n, C].
        seed: of the folds.
        on_progress: told of (sets of heads that are there, sets in all).
        constants: for studies of the method.

    Raises:
        ValueError: with fewer samples than folds.
    """
    features, anchor = features.astype(np.float64), anchor.astype(np.float64)
    fold = stratified_folds(given, constants.folds, seed)
    informed = explains_labels(select_channel(softmax(anchor, axis=1)[None], given), given)
    counter = itertools.count(1)

    def on_heads() -> None:
        if on_progress:
            on_progress(next(counter), NestedFolds.sets(constants))

    # Without a prior, a structured channel could rename the classes at will.
    allowed = constants.prior_strengths if informed else (SYMMETRIC,)
    nested = NestedFolds(features, anchor, given, fold, allowed, constants, on_heads)
    found = nested.judge()
    channel = found.channel
    free = nested.free_heads() if constants.free_heads else None
    rate = _wrong_share(channel, given)
    count = _neighbours(len(given), anchor.shape[1], constants)
    near = nested.neighbours(count)
    return Correction(
        posterior=channel.posterior,
        probabilities=channel.pooled,
        transition=channel.transition,
        noise_rate=rate,
        interval=_rate_interval(found, given, rate, seed, constants),
        strengths=found.strengths,
        classifier=product_of_experts(features, anchor, given, found, free),
        neighbours=1 - near[np.arange(len(given)), given],
        suspicion=suspicion(
            channel.pooled,
            hedged_likelihoods(channel, given),
            given,
            near,
            count,
            constants.neighbour_weight,
        ),
        informed=informed,
    )


def _neighbours(samples: int, classes: int, constants: Constants) -> int:
    """No more than a class has in the other folds, or most would have to be of other classes."""
    others = samples * (constants.folds - 1) // constants.folds
    return max(1, min(constants.neighbours, others // classes))


def _wrong_share(channel: Channel, given: np.ndarray) -> float:
    return float(1 - channel.posterior[np.arange(len(given)), given].mean())


def _rate_interval(
    found: Judgement, given: np.ndarray, rate: float, seed: int, constants: Constants
) -> tuple[float, float]:
    """Normal 95 % interval from two spreads: over pictures, and over how sure the heads are."""
    strength = found.channel.prior_strength
    generator = np.random.Generator(np.random.PCG64(derived_seed(seed, "correction/resamples")))
    rates = []
    for _ in range(constants.resamples):
        rows = generator.integers(0, len(given), len(given))
        again = fit_channel(found.experts[:, rows], given[rows], strength, start=found.channel)
        rates.append(_wrong_share(again, given[rows]))
    zero_shot = found.experts[:1]
    unsure, sure = (
        _wrong_share(fit_channel(np.concatenate([zero_shot, heads]), given, strength), given)
        for heads in (found.heads, sharpened(found.heads, constants.sharpness))
    )
    half = 1.96 * float(np.hypot(np.std(rates, ddof=1), (sure - unsure) / 2))
    return max(0.0, rate - half), min(1.0, rate + half)
