"""Nested folds: whatever is said of a fold, its labels had no part in it, in any round."""

import itertools

import numpy as np
import pytest

from dspt.correction.channel import PRIOR_STRENGTHS
from dspt.correction.constants import Constants
from dspt.correction.nested import NestedFolds

CONSTANTS = Constants(strengths=(0.03, 0.3, 1.0))


@pytest.fixture
def problem():
    generator = np.random.default_rng(5)
    true = np.arange(60) % 3
    x = np.eye(8)[true] + 0.5 * generator.standard_normal((60, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    given = np.where(generator.random(60) < 0.3, (true + 1) % 3, true)
    return x, 4 * x[:, :3], given, generator.integers(0, 5, 60)


def nested(problem, constants=CONSTANTS, **changed):
    x, anchor, given, fold = problem
    return NestedFolds(x, anchor, changed.get("given", given), fold, PRIOR_STRENGTHS, constants)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_label_of_a_fold_reaches_the_heads_without_it(problem, size):
    _, _, given, fold = problem
    for without in map(frozenset, itertools.combinations(range(5), size)):
        inside = np.isin(fold, list(without))
        others = np.where(inside, (given + 1) % 3, given)
        before = nested(problem).heads(without)
        assert (before == nested(problem, given=others).heads(without)).all()
        outside = np.where(inside, given, (given + 1) % 3)
        assert (before != nested(problem, given=outside).heads(without)).any()


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("opinion", [lambda n: n.neighbours(10), NestedFolds.free_heads])
def test_neighbours_and_free_heads_do_not_echo_the_labels_they_are_asked_about(
    problem, number, opinion
):
    _, _, given, fold = problem
    held = fold == number
    said = opinion(nested(problem))
    changed = opinion(nested(problem, given=np.where(held, (given + 1) % 3, given)))
    assert (said[..., held, :] == changed[..., held, :]).all()
    assert (said[..., ~held, :] != changed[..., ~held, :]).any()
    assert np.allclose(said.sum(axis=-1), 1)


def test_each_set_of_folds_is_trained_once_and_the_first_round_is_cautious(problem):
    told = []
    x, anchor, given, fold = problem
    found = NestedFolds(
        x, anchor, given, fold, PRIOR_STRENGTHS, CONSTANTS, lambda: told.append(None)
    )
    judged = found.judge()
    assert len(told) == 5 + 10 + 10
    assert found.free_heads().shape == (3, 60, 3)
    assert len(told) == NestedFolds.sets(CONSTANTS) == 5 + 10 + 10 + 5
    assert judged.strengths == (0.03, 0.3, 1.0)
    assert found.heads(frozenset({0, 1, 2})).shape == (2, 8, 3)  # penalties from 0.1
    assert judged.experts.shape[1:] == (60, 3)
    assert np.allclose(judged.experts.sum(axis=-1), 1)


def test_a_judgement_without_folds_is_of_the_other_samples(problem):
    fold = problem[3]
    judged = nested(problem).judge(frozenset({1, 4}))
    assert judged.experts.shape[1] == (~np.isin(fold, [1, 4])).sum()


def test_one_round_is_plain_cross_fitting(problem):
    x, anchor, given, fold = problem
    one = Constants(rounds=1, strengths=(0.3,), first_strength=0)
    judged = nested(problem, one).judge()
    from scipy.special import softmax

    from dspt.correction.heads import anchored_heads

    for number in range(5):
        held = fold == number
        alone = anchored_heads(x[~held], anchor[~held], np.eye(3)[given[~held]], (0.3,))[0]
        said = softmax(anchor[held] + x[held] @ alone, axis=1)
        assert np.allclose(judged.heads[0, held], said, atol=1e-12)
