"""The noise channel: EM climbs, finds what was planted, and ignores the order of the classes."""

import numpy as np
import pytest
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st
from scipy.special import softmax

from dspt.correction.channel import (
    PRIOR_STRENGTHS,
    explains_labels,
    fit_channel,
    hedged_likelihoods,
    label_counts,
    select_channel,
    sharpened,
    symmetric,
)


def planted(n, transition, seed, sharpness=0.15, experts=1):
    """Calibrated experts: the true class is drawn from what the first one says."""
    generator = np.random.default_rng(seed)
    classes = len(transition)
    p = generator.dirichlet(np.full(classes, sharpness), n).clip(1e-6)
    p /= p.sum(axis=1, keepdims=True)
    true = (p.cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
    given = (transition[true].cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
    noisy = [np.full_like(p, 1 / classes)] * (experts - 1)
    return np.stack([p, *noisy]), true, given


def next_class(rate, classes):
    return (1 - rate) * np.eye(classes) + rate * np.roll(np.eye(classes), 1, axis=1)


@settings(max_examples=25, deadline=None)
@cases(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 8),
    rate=st.floats(0, 0.8),
    strength=st.sampled_from(PRIOR_STRENGTHS),
    experts=st.integers(1, 3),
)
def test_no_step_lowers_the_objective(seed, classes, rate, strength, experts):
    p, _, given = planted(60, symmetric(rate, classes), seed, experts=experts)
    climbed = np.diff(fit_channel(p, given, strength).objectives, axis=1)
    assert climbed.min() > -1e-7


@pytest.mark.parametrize("kind", [symmetric, next_class])
def test_a_planted_channel_is_found_the_better_the_more_samples(kind):
    transition, errors, rate_errors = kind(0.45, 5), [], []
    for n in (200, 2000, 20000):
        p, true, given = planted(n, transition, seed=n)
        channel = select_channel(p, given)
        errors.append(np.abs(channel.transition - transition).max())
        wrong = 1 - channel.posterior[np.arange(n), given].mean()
        rate_errors.append(abs(wrong - (true != given).mean()))
    assert errors[2] < 0.03
    assert errors[2] < errors[0]
    assert rate_errors[2] < 0.01


@pytest.mark.parametrize("strength", [0.5, 8.0, PRIOR_STRENGTHS[-1]])
def test_likelihoods_for_ranking_are_half_of_the_others_channel_and_half_symmetric(strength):
    p, _, given = planted(40, next_class(0.4, 4), seed=3)
    channel = fit_channel(p, given, strength)
    counts = label_counts(channel.posterior, given)
    even = symmetric((1 - np.trace(counts) / counts.sum()) * 4 / 3, 4)
    found = hedged_likelihoods(channel, given)
    for i in range(40):
        others = np.arange(40) != i
        own = label_counts(channel.posterior[others], given[others]) + strength * even
        own /= own.sum(axis=1, keepdims=True)
        assert np.allclose(found[i], (own + even)[:, given[i]] / 2)


def test_the_selection_tells_symmetric_noise_from_structured():
    p, _, given = planted(800, symmetric(0.5, 6), seed=1)
    assert select_channel(p, given).prior_strength == PRIOR_STRENGTHS[-1]
    p, _, given = planted(800, next_class(0.5, 6), seed=1)
    assert select_channel(p, given).prior_strength < 64


def test_clean_labels_stay_and_the_rate_is_near_zero():
    p, _, given = planted(500, np.eye(6), seed=2)
    channel = select_channel(p, given)
    assert (channel.posterior.argmax(axis=1) == given).mean() > 0.99
    assert 1 - channel.posterior[np.arange(500), given].mean() < 0.03


def test_an_expert_that_knows_nothing_gets_little_weight():
    p, _, given = planted(500, symmetric(0.3, 5), seed=3, experts=2)
    assert select_channel(p, given).weights[1] < 0.1


@pytest.mark.parametrize("strength", PRIOR_STRENGTHS)
def test_the_order_of_the_classes_does_not_matter(strength):
    p, _, given = planted(150, next_class(0.4, 5), seed=4, experts=2)
    order = np.array([3, 0, 4, 1, 2])
    renamed = np.argsort(order)
    a = fit_channel(p, given, strength)
    b = fit_channel(p[:, :, order], renamed[given], strength)
    assert np.allclose(a.posterior[:, order], b.posterior, atol=1e-9)
    assert np.allclose(a.transition[np.ix_(order, order)], b.transition, atol=1e-9)


def test_sharpened_experts_are_what_their_logits_times_the_factor_say():
    p, _, _ = planted(40, symmetric(0.3, 5), seed=7, experts=2)
    logits = 3 * np.log(p)
    assert np.allclose(sharpened(p, 3), softmax(logits, axis=-1), atol=1e-12)
    certain = np.eye(3)[None]
    assert (sharpened(certain, 2) == certain).all()


def test_rows_and_posteriors_are_distributions_even_where_a_class_is_never_given():
    p, _, given = planted(80, symmetric(0.9, 4), seed=5)
    given[given == 2] = 1
    for strength in PRIOR_STRENGTHS:
        channel = fit_channel(p, given, strength)
        assert np.allclose(channel.transition.sum(axis=1), 1)
        assert np.allclose(channel.posterior.sum(axis=1), 1)
        assert np.isfinite(channel.log_likelihoods).all()


def test_labels_that_have_nothing_to_do_with_the_pictures_are_noticed():
    p, _, given = planted(300, symmetric(0.6, 6), seed=6)
    assert explains_labels(select_channel(p, given), given)
    unrelated = np.random.default_rng(0).integers(0, 6, 300)
    assert not explains_labels(select_channel(p, unrelated), unrelated)
