"""The neighbours' opinion: who is asked, what it counts, and that no label vouches for itself."""

import numpy as np
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from tools.planted_prior import gaussian

from dspt.correction import correct
from dspt.correction.channel import symmetric
from dspt.correction.constants import Constants
from dspt.correction.neighbours import nearest_mean, suspicion


def unit(generator, rows, width):
    x = generator.standard_normal((rows, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@settings(max_examples=40, deadline=None)
@drawn(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 30), st.integers(1, 40))
def test_the_mean_is_over_the_most_similar(seed, rows, others, count):
    generator = np.random.default_rng(seed)
    x, z, values = (
        unit(generator, rows, 5),
        unit(generator, others, 5),
        generator.random((others, 3)),
    )
    expected = [values[np.argsort(-(z @ row))[:count]].mean(axis=0) for row in x]
    assert np.allclose(nearest_mean(x, z, values, count), expected)


def test_more_rows_than_are_taken_at_once():
    generator = np.random.default_rng(0)
    x, z, values = unit(generator, 2100, 4), unit(generator, 50, 4), generator.random((50, 2))
    whole = nearest_mean(x, z, values, 7)
    parts = np.concatenate(
        [nearest_mean(x[i : i + 300], z, values, 7) for i in range(0, 2100, 300)]
    )
    assert np.allclose(whole, parts)


@settings(max_examples=40, deadline=None)
@drawn(st.integers(0, 10_000), st.integers(2, 6), st.floats(0.01, 0.9), st.integers(1, 20))
def test_neighbours_without_weight_leave_the_doubt(seed, classes, rate, count):
    generator = np.random.default_rng(seed)
    pooled = generator.dirichlet(np.ones(classes), 30)
    given = generator.integers(0, classes, 30)
    votes = generator.dirichlet(np.ones(classes), 30)
    likelihoods = symmetric(rate, classes)[:, given].T
    joint = pooled * likelihoods
    doubt = 1 - (joint / joint.sum(axis=1, keepdims=True))[np.arange(30), given]
    assert np.allclose(suspicion(pooled, likelihoods, given, votes, count, 0), doubt)
    # Neighbours that say nothing change nothing, whatever their weight.
    even = np.full_like(votes, 1 / classes)
    assert np.allclose(suspicion(pooled, likelihoods, given, even, count, 0.7), doubt)


@settings(max_examples=40, deadline=None)
@drawn(st.integers(0, 10_000), st.floats(0.05, 2))
def test_a_vote_for_the_given_label_makes_it_less_suspicious(seed, weight):
    generator = np.random.default_rng(seed)
    pooled = generator.dirichlet(np.ones(4), 20)
    given = generator.integers(0, 4, 20)
    votes = generator.dirichlet(np.ones(4), 20)
    more = (votes + np.eye(4)[given]) / 2
    likelihoods = symmetric(0.3, 4)[:, given].T
    before = suspicion(pooled, likelihoods, given, votes, 10, weight)
    after = suspicion(pooled, likelihoods, given, more, 10, weight)
    assert (after <= before + 1e-12).all()
    assert ((before >= 0) & (before <= 1)).all()


def test_groups_within_a_class_help_to_rank():
    """Each class is four far groups, which one direction per class cannot hold together."""
    generator = np.random.default_rng(1)
    classes, groups, n = 4, 4, 400
    centres = unit(generator, classes * groups, 24)
    which = generator.integers(0, classes * groups, n)
    x = centres[which] + 0.12 * generator.standard_normal((n, 24))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    true = which % classes
    given = np.where(generator.random(n) < 0.3, generator.integers(0, classes, n), true)
    prior = np.stack([centres[c::classes].mean(axis=0) for c in range(classes)], axis=1)
    anchor = 4 * x @ prior + 0.5 * generator.standard_normal((n, classes))
    found = correct(x, given, anchor, seed=1)
    wrong = given != true
    rows = np.arange(n)

    def auroc(score):
        ranks = np.argsort(np.argsort(score))
        count = wrong.sum()
        return (ranks[wrong].sum() - count * (count - 1) / 2) / count / (n - count)

    assert auroc(found.suspicion) > auroc(1 - found.posterior[rows, given]) + 0.005


def test_only_the_ranking_depends_on_the_neighbours():
    x, _, given, anchor = gaussian(120, 4, 0.3, seed=3)
    a = correct(x, given, anchor, seed=1)
    b = correct(x, given, anchor, seed=1, constants=Constants(neighbours=3, neighbour_weight=1))
    assert (a.posterior == b.posterior).all()
    assert (a.classifier.change == b.classifier.change).all()
    assert a.noise_rate == b.noise_rate
    assert (a.suspicion != b.suspicion).any()


def test_with_few_samples_a_class_fewer_neighbours_are_heard():
    x, _, given, anchor = gaussian(40, 8, 0.25, seed=3)  # four of a class in the other folds
    ten, four, three = (
        correct(x, given, anchor, seed=1, constants=Constants(neighbours=count)).suspicion
        for count in (10, 4, 3)
    )
    assert (ten == four).all()
    assert (four != three).any()
