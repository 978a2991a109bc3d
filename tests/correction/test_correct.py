"""The whole correction on features with a prior that is better than chance but far from right."""

import numpy as np
import pytest
from tools.planted_prior import gaussian

from dspt.correction import correct
from dspt.correction.constants import Constants


@pytest.mark.parametrize("kind", ["symmetric", "next"])
def test_wrong_labels_are_found_and_the_classifier_beats_zero_shot_on_new_samples(kind):
    x, true, given, anchor = gaussian(600, 6, 0.4, seed=1, kind=kind, prior=0.6)
    seen, fresh = slice(0, 300), slice(300, None)
    found = correct(x[seen], given[seen], anchor[seen], seed=1)
    assert found.informed
    corrected = (found.posterior.argmax(1) == true[seen]).mean()
    assert corrected > (given[seen] == true[seen]).mean() + 0.1
    zero_shot = (anchor[fresh].argmax(1) == true[fresh]).mean()
    tuned = (found.classifier.logits(x[fresh], anchor[fresh]).argmax(1) == true[fresh]).mean()
    assert tuned > zero_shot + 0.03


def test_most_labels_flipped_to_one_other_class_do_not_become_that_class():
    x, true, given, anchor = gaussian(
        240, 15, 0.75, seed=9, prior=0.6, kind="next", width=64, spread=1.0, scale=20
    )
    found = correct(x, given, anchor, seed=1)
    assert found.noise_rate == pytest.approx(0.75, abs=0.03)
    assert (found.posterior.argmax(1) == true).mean() > 0.95


def test_clean_labels_are_left_alone():
    x, true, given, anchor = gaussian(200, 5, 0.0, seed=2)
    found = correct(x, given, anchor, seed=1)
    assert found.noise_rate < 0.05
    assert (found.posterior.argmax(1) == true).mean() > 0.97


def test_the_same_seed_gives_the_same_numbers():
    x, _, given, anchor = gaussian(120, 4, 0.3, seed=3)
    a = correct(x, given, anchor, seed=5)
    b = correct(x, given, anchor, seed=5)
    assert (a.posterior == b.posterior).all()
    assert (a.classifier.change == b.classifier.change).all()


@pytest.mark.parametrize("kind", ["symmetric", "next"])
def test_the_order_of_the_classes_does_not_matter(kind):
    x, _, given, anchor = gaussian(120, 4, 0.3, seed=3, kind=kind)
    order = np.array([2, 0, 3, 1])
    a = correct(x, given, anchor, seed=5)
    b = correct(x, np.argsort(order)[given], anchor[:, order], seed=5)
    # The optima are found within a tolerance, along another path.
    assert np.allclose(a.posterior[:, order], b.posterior, atol=2e-3)
    assert np.allclose(a.classifier.change[:, order], b.classifier.change, atol=5e-2)
    assert a.noise_rate == pytest.approx(b.noise_rate, abs=1e-3)
    assert np.allclose(a.suspicion, b.suspicion, atol=5e-3)
    assert np.allclose(a.neighbours, b.neighbours, atol=5e-3)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.75])
def test_the_rate_of_symmetric_noise_is_found(rate):
    x, _, given, anchor = gaussian(400, 8, rate, seed=11, spread=1.2)
    found = correct(x, given, anchor, seed=1)
    assert found.noise_rate == pytest.approx(rate, abs=0.05)
    assert found.interval[0] <= rate <= found.interval[1]


def test_sharpened_copies_mend_a_rate_that_leans_low():
    x, _, given, anchor = gaussian(400, 8, 0.5, seed=12, spread=1.8)
    plain = correct(x, given, anchor, seed=1, constants=Constants(sharpness=1))
    assert plain.noise_rate < correct(x, given, anchor, seed=1).noise_rate < 0.55


def test_free_heads_learn_what_the_prior_does_not_know_and_leave_the_estimate_alone():
    x, true, given, anchor = gaussian(800, 6, 0.4, seed=1, prior=0.4)
    seen, fresh = slice(0, 400), slice(400, None)
    right = {}
    for free in (False, True):
        found = correct(
            x[seen], given[seen], anchor[seen], seed=1, constants=Constants(free_heads=free)
        )
        scores = found.classifier.logits(x[fresh], anchor[fresh])
        right[free] = (scores.argmax(1) == true[fresh]).mean(), found
    assert right[True][0] > right[False][0] + 0.01
    assert (right[True][1].posterior == right[False][1].posterior).all()
    assert right[False][1].classifier.anchor_weight == pytest.approx(1)
    assert 0 < right[True][1].classifier.anchor_weight < 1
    for _, found in right.values():
        assert found.classifier.weights.sum() == pytest.approx(1)


def test_without_a_prior_only_symmetric_noise_is_considered():
    generator = np.random.default_rng(0)
    x, _, given, _ = gaussian(200, 5, 0.25, seed=4)
    useless = generator.standard_normal((200, 5))
    found = correct(x, given, useless, seed=1)
    assert not found.informed
    off = found.transition[~np.eye(5, dtype=bool)]
    assert off.max() - off.min() < 0.01


@pytest.mark.parametrize(
    ("n", "classes", "rate"), [(8, 2, 0.0), (40, 2, 0.5), (60, 5, 0.9), (33, 3, 0.2)]
)
def test_degenerate_inputs_end_in_distributions(n, classes, rate):
    x, _, given, anchor = gaussian(n, classes, rate, seed=6)
    found = correct(x, given, anchor, seed=1)
    assert np.allclose(found.posterior.sum(axis=1), 1)
    assert np.isfinite(found.classifier.change).all()
    assert 0 <= found.interval[0] <= found.noise_rate <= found.interval[1] <= 1


def test_a_class_with_one_picture_and_a_class_without():
    x, _, given, anchor = gaussian(60, 5, 0.2, seed=7)
    given[given == 4] = 3
    given[given == 2] = 1
    given[0] = 2
    found = correct(x, given, anchor, seed=1)
    assert np.isfinite(found.posterior).all()
    assert np.isfinite(found.transition).all()


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="folds"):
        correct(np.eye(3), np.arange(3), np.eye(3), seed=0)


def test_progress_is_told_per_set_of_heads():
    x, _, given, anchor = gaussian(40, 3, 0.2, seed=8)
    told = []
    correct(x, given, anchor, seed=0, on_progress=lambda *numbers: told.append(numbers))
    assert told == [(done, 30) for done in range(1, 31)]


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_wrong_labels_cannot_ruin_a_good_prior(seed):
    x, true, given, anchor = gaussian(400, 8, 0.75, seed=seed, spread=1.2)
    found = correct(x, given, anchor, seed=1)
    zero_shot = (anchor.argmax(1) == true).mean()
    assert zero_shot > 0.85
    assert (found.classifier.logits(x, anchor).argmax(1) == true).mean() > zero_shot - 0.02
