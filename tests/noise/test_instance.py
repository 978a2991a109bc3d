from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noise.samples import balanced, features, names, noisy, rates, seeds
from tests.shared_data import shared_data

from dspt.errors import UserError
from dspt.noise import NoiseSpec, apply_noise, transition_counts
from dspt.noise.instance import (
    class_projection,
    flip_rates,
    instance,
    other_class_chances,
    scaled,
)

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("rate", [0.0625, 0.25, 0.5, 0.75, 0.97, 1.0])
def test_flip_rates_follow_the_truncated_normal(rate: float) -> None:
    drawn = flip_rates(rate, 3, names(2000))
    assert ((drawn >= 0) & (drawn <= 1)).all()
    truncated = scipy_stats.truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1)
    assert scipy_stats.kstest(drawn, truncated.cdf).pvalue > 0.001


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.75])
def test_the_realised_rate_is_near_the_mean_of_the_flip_rates(rate: float) -> None:
    labels = balanced(10, 800)
    wrong = noisy(labels, f"instance:{rate!r}", 10, features=features(8000)) != labels
    mean = scipy_stats.truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1).mean()
    assert wrong.mean() == pytest.approx(mean, abs=4 * np.sqrt(mean * (1 - mean) / 8000))
    if 0.25 <= rate <= 0.75:
        assert mean == pytest.approx(rate, abs=0.002)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.integers(0, 12), rates, rates, seeds)
def test_a_lower_rate_is_part_of_a_higher_one(c, shots, first, second, seed) -> None:
    labels, table = balanced(c, shots), features(c * shots)
    low, high = (
        noisy(labels, f"instance:{rate!r}", c, seed, features=table)
        for rate in sorted([first, second])
    )
    wrong = low != labels
    assert (high[wrong] == low[wrong]).all()


def test_the_projection_is_standard_normal_and_differs_by_class_and_seed() -> None:
    first = class_projection(0, 100, 50, 0)
    assert first.shape == (100, 50)
    assert scipy_stats.kstest(first.ravel(), "norm").pvalue > 0.001
    assert (first == class_projection(0, 100, 50, 0)).all()
    for other in (class_projection(1, 100, 50, 0), class_projection(0, 100, 50, 1)):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.05


def test_the_projection_is_pinned_for_every_platform_and_version() -> None:
    """If this fails, old runs cannot be reproduced any more: do not update the numbers."""
    steps = class_projection(3, 2, 3, 0) * 2**18
    assert steps.tolist() == [[-418417, 44357, -375926], [-120498, 293217, -186108]]


def test_labels_are_drawn_as_algorithm_2_says() -> None:
    """20,000 samples of one class and two pictures, against the plain formula."""
    from scipy.special import softmax

    n, c, rate = 20_000, 5, 0.4
    two = features(2, dim=3)
    which = np.arange(n) % 2
    given_labels = noisy(np.full(n, 2), f"instance:{rate}", c, 0, features=two[which])
    for picture in (0, 1):
        x = two[picture] / np.linalg.norm(two[picture]) * np.sqrt(3)
        scores = x @ class_projection(2, 3, c, 0)
        chances = np.insert(rate * softmax(np.delete(scores, 2)), 2, 1 - rate)
        counts = np.bincount(given_labels[which == picture], minlength=c)
        expected = chances * n / 2
        assert ((counts - expected) ** 2 / expected).sum() < scipy_stats.chi2.ppf(0.999, c - 1)


def test_alike_pictures_are_confused_alike() -> None:
    """The wrong label of a picture says more about that of its near copy than of a stranger."""
    labels = np.zeros(1500, dtype=np.int64)
    first = features(1500, dim=64)
    copy = features(1500, dim=64) + 0.02 * features(1500, dim=64, seed=1)
    stranger = features(1500, dim=64, seed=2)
    given_first, given_copy, given_stranger = (
        noisy(labels, "instance:1", 10, features=table) for table in (first, copy, stranger)
    )
    both = (given_first > 0) & (given_copy > 0) & (given_stranger > 0)
    assert np.mean(given_first[both] == given_copy[both]) > 0.9
    assert np.mean(given_first[both] == given_stranger[both]) < 0.6


def test_the_noise_depends_on_the_features_but_which_are_wrong_does_not() -> None:
    labels = balanced(6, 50)
    first, second = (
        noisy(labels, "instance:0.5", 6, features=features(300, seed=s)) for s in (0, 1)
    )
    assert ((first != labels) == (second != labels)).all()
    assert (first != second).any()


@pytest.mark.parametrize("scale", [1e-3, 0.5, 30.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_norm_of_a_feature_does_not_matter(scale: float, dtype: type) -> None:
    labels, table = balanced(4, 30), features(120).astype(dtype)
    plain = noisy(labels, "instance:0.5", 4, features=table)
    assert (noisy(labels, "instance:0.5", 4, features=table.astype(float) * scale) == plain).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 700), st.integers(2, 9), seeds)
def test_scores_are_exact_whatever_order_they_are_added_in(n, dim, c, seed) -> None:
    points = scaled(features(n, dim, seed=1), names(n))
    projection = class_projection(0, dim, c, seed)
    steps = (points * 2**18).astype(np.int64), (projection * 2**18).astype(np.int64)
    assert (steps[0] == points * 2**18).all()
    assert (steps[1] == projection * 2**18).all()
    exact = steps[0] @ steps[1]  # integers
    assert (points @ projection * 2.0**36 == exact).all()
    assert np.abs(exact).max() < 2**53


def test_chances_leave_out_the_own_class_and_do_not_overflow() -> None:
    chances = other_class_chances(np.array([[1e6, 3.0, 2.0], [-1e6, 0.0, -1e6]]), 0)
    assert (chances[:, 0] == 0).all()
    assert chances[0] / chances[0].sum() == pytest.approx([0, 0.7310586, 0.2689414])
    assert chances[1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("classes", [2, 3])
def test_a_wrong_label_is_never_the_true_one(classes: int) -> None:
    labels = balanced(classes, 200)
    wrong = flip_rates(0.5, 1, names(len(labels))).sum()
    given_labels = noisy(labels, "instance:0.5", classes, features=features(len(labels)))
    counts = transition_counts(labels, given_labels, classes)
    assert len(labels) - np.trace(counts) == pytest.approx(wrong, abs=50)
    if classes == 2:
        assert (given_labels != labels).sum() == counts[0, 1] + counts[1, 0]


def test_rate_zero_changes_nothing() -> None:
    labels = balanced(3, 50)
    assert (noisy(labels, "instance:0", 3, features=features(150)) == labels).all()


def test_features_are_asked_for_by_this_noise_alone() -> None:
    labels, calls = balanced(3, 4), []

    def table() -> np.ndarray:
        calls.append(1)
        return features(12)

    for text in ("none", "symmetric:0.5", "pair:0.5", "replace:0.5"):
        noisy(labels, text, 3, features=table)
    assert not calls
    lazily = noisy(labels, "instance:0.5", 3, features=table)
    assert len(calls) == 1
    assert (lazily == noisy(labels, "instance:0.5", 3, features=features(12))).all()


@pytest.mark.parametrize("table", [None, features(5), features(6)[:, :0], np.zeros(6)])
def test_features_that_do_not_fit_are_a_bug(table: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="features") as caught:
        noisy(balanced(3, 2), "instance:0.5", 3, features=table)
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_useless_feature_is_refused_with_its_picture(bad: float) -> None:
    table = features(30)
    table[:] = bad
    with pytest.raises(UserError, match=r"image feature of \d+\.jpg is zero or not finite"):
        apply_noise(balanced(3, 10), NoiseSpec.parse("instance:1"), 3, 0, names(30), features=table)


def test_the_function_and_the_door_agree() -> None:
    labels, table = balanced(3, 10), features(30)
    direct = instance(labels, 0.5, 3, 1, names(30), table)
    assert (direct == noisy(labels, "instance:0.5", 3, features=table)).all()


@pytest.mark.slow
def test_wrong_labels_gather_as_they_do_on_the_pixels_of_the_papers_code() -> None:
    """CIFAR-10, 24 pictures a class: how much of a class's noise goes to one class (docs/noise.md).

    The authors' code multiplies raw pixels. Features with norm sqrt(D) behave like them; features
    with norm 1 give nearly uniform noise.
    """
    import io

    from PIL import Image

    from dspt.backbones import load_backbone
    from dspt.data import draw_shots, load_dataset
    from dspt.features import extract_features

    data = load_dataset(str(shared_data("cifar-10n")))
    pool = data.splits["train"]
    drawn = draw_shots(data.labels, pool, 24, 1, data.keys(pool), data.class_names)
    labels = data.labels[drawn]
    numbers = [int(i) for i in drawn]
    found = extract_features(load_backbone("default"), data.images, numbers, views=0).values[:, 0]
    pixels = np.stack(
        [np.asarray(Image.open(io.BytesIO(data.images.read(i))).convert("RGB")) for i in numbers]
    ).reshape(len(drawn), -1)

    def gathered(points: np.ndarray) -> float:
        shares = []
        for seed in (0, 1):
            for label in range(10):
                projection = class_projection(label, points.shape[1], 10, seed)
                chances = other_class_chances(points[labels == label] @ projection, label)
                shares.append((chances / chances.sum(axis=1, keepdims=True)).mean(axis=0).max())
        return float(np.mean(shares))

    unit = found.double().numpy()
    shares = {
        "raw pixels": gathered(pixels.astype(float)),
        "norm sqrt(D)": gathered(scaled(unit, numbers)),
        "norm 1": gathered(unit),
        "standardised": gathered((unit - unit.mean(axis=0)) / unit.std(axis=0)),
    }
    print(shares)
    assert shares["norm sqrt(D)"] == pytest.approx(shares["raw pixels"], abs=0.1)
    assert max(shares["norm 1"], shares["standardised"]) < 0.4
