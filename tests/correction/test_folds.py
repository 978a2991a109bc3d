"""Folds are even, stratified and a function of the seed."""

import numpy as np
import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from dspt.correction.folds import stratified_folds


@cases(
    labels=st.lists(st.integers(0, 6), min_size=4, max_size=60),
    folds=st.integers(2, 4),
    seed=st.integers(-5, 5),
)
def test_sizes_differ_by_one_at_most_also_within_a_class(labels, folds, seed):
    given = np.array(labels)
    fold = stratified_folds(given, folds, seed)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.sum() == len(given)
    assert sizes.max() - sizes.min() <= 1
    for label in set(labels):
        own = np.bincount(fold[given == label], minlength=folds)
        assert own.max() - own.min() <= 1


def test_the_seed_decides():
    given = np.arange(40) % 4
    assert (stratified_folds(given, 4, 1) == stratified_folds(given, 4, 1)).all()
    assert (stratified_folds(given, 4, 1) != stratified_folds(given, 4, 2)).any()


def test_the_numbers_of_the_classes_play_no_part():
    given = np.random.default_rng(0).integers(0, 5, 60)
    renamed = np.array([3, 0, 4, 1, 2])[given]
    assert (stratified_folds(given, 4, 1) == stratified_folds(renamed, 4, 1)).all()


@pytest.mark.parametrize("folds", [1, 5])
def test_impossible_numbers_of_folds_are_refused(folds):
    with pytest.raises(ValueError, match="folds must be 2 to 4"):
        stratified_folds(np.zeros(4, dtype=np.int64), folds, 0)
