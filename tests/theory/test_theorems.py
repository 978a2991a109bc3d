"""The theorems of docs/theory.md, each searched for counterexamples.

Sampling covers corners, faces and the inside of the simplex (``tests.theory.sampling``); a bound
that is said to be sharp is also shown to be reached, so that none of these can hold emptily.
"""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.theory.sampling import CLASSES, LOSSES, SEEDS, of, points
from torch import Tensor

from dspt.errors import UserError
from dspt.theory import bounds, closed_forms

EPS = 1e-12
searched = settings(max_examples=60, deadline=None)


def label_free(p: Tensor) -> Tensor:
    return p.exp().sum(1).log() - 1


def all_values(loss: str, z: Tensor, options: dict[str, float] | None = None) -> Tensor:
    """The loss of every label, [n, C]."""
    n, classes = z.shape
    labels = torch.arange(classes).repeat(n)
    return closed_forms.value(loss, z.repeat_interleave(classes, 0), labels, options).view(
        n, classes
    )


def one_hot(classes: int, label: int = 0) -> tuple[Tensor, Tensor]:
    z = torch.full((1, classes), float("-inf"), dtype=torch.float64)
    z[0, 0] = 0.0
    return z, torch.tensor([label])


@given(SEEDS, CLASSES)
@searched
def test_1_range_is_an_interval_of_length_one(seed: int, classes: int) -> None:
    z, y = points(seed, classes)
    values = closed_forms.value("dspt", z, y)
    low, high = bounds.loss_range("dspt", classes)
    assert high - low == pytest.approx(1, abs=1e-15)
    assert bool(((values >= low - EPS) & (values <= high + EPS)).all())
    assert closed_forms.value("dspt", *one_hot(classes, 0)).item() == pytest.approx(low)
    assert closed_forms.value("dspt", *one_hot(classes, 1)).item() == pytest.approx(high)
    # Both ends are reached at the corners only: well inside, the loss is well inside.
    inside = z.softmax(1).amax(1) < 0.99
    assert bool(((values[inside] > low + 1e-3) & (values[inside] < high - 1e-5)).all())


@given(SEEDS, CLASSES)
@searched
def test_2_dspt_is_half_mae_and_a_term_that_hardly_varies(seed: int, classes: int) -> None:
    z, y = points(seed, classes)
    p = z.softmax(1)
    rest = closed_forms.value("dspt", z, y) - closed_forms.value("mae", z, y) / 2
    torch.testing.assert_close(rest, label_free(p), rtol=0, atol=EPS)
    low, high = bounds.label_free_limits(classes)
    assert bool(((rest >= low - EPS) & (rest <= high + EPS)).all())
    uniform = torch.zeros(1, classes, dtype=torch.float64)
    assert label_free(uniform.softmax(1)).item() == pytest.approx(low)
    assert label_free(one_hot(classes)[0].softmax(1)).item() == pytest.approx(high)
    assert bounds.label_free_range(classes) == pytest.approx(high - low, rel=1e-9)


def test_2_the_rate_in_the_number_of_classes() -> None:
    """``C W(C)`` rises strictly to e - 2: 0.24 for two classes, so "0.7 / C" is loose there."""
    widths = [c * bounds.label_free_range(c) for c in range(2, 3000)]
    assert all(a < b < bounds.LIMIT for a, b in itertools.pairwise(widths))
    assert widths[0] == pytest.approx(0.2402, abs=1e-4)
    far = 10**5
    second = (math.e - 1) ** 2 / (2 * far)
    assert far * bounds.label_free_range(far) == pytest.approx(bounds.LIMIT - second, rel=1e-8)


@given(SEEDS, CLASSES)
@searched
def test_3_the_label_is_pulled_as_by_mae_up_to_a_factor(seed: int, classes: int) -> None:
    z, y = points(seed, classes)
    delta = bounds.tilt(classes)
    ours = -of(closed_forms.gradient("dspt", z, y), y)
    half = -of(closed_forms.gradient("mae", z, y), y) / 2
    slack = EPS * half + 1e-300
    assert bool((ours >= (1 - delta) * half - slack).all())
    assert bool((ours <= (1 + delta) * half + slack).all())


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_3_both_factors_are_reached_in_the_limit(classes: int) -> None:
    z = closed_forms.rival_logits(np.array([1e-9, 1 - 1e-9]), classes)
    y = torch.tensor([0, 0])
    factor = of(closed_forms.gradient("dspt", z, y), y) / (
        of(closed_forms.gradient("mae", z, y), y) / 2
    )
    delta = bounds.tilt(classes)
    assert factor.tolist() == pytest.approx([1 + delta, 1 - delta], abs=1e-7)


@given(SEEDS, CLASSES)
@searched
def test_3_gradient_norm_lies_between_its_bounds(seed: int, classes: int) -> None:
    z, y = points(seed, classes)
    p = z.softmax(1)
    delta = bounds.tilt(classes)
    for loss, options in LOSSES:
        norm = closed_forms.gradient_norm(loss, z, y, options)
        assert bool((norm <= bounds.gradient_norm_bound(loss, classes, options) + EPS).all())
    norm = closed_forms.gradient_norm("dspt", z, y)
    half = closed_forms.gradient("mae", z, y) / 2
    flatten = (closed_forms.gradient("dspt", z, y) - half).norm(dim=1)
    spread = (p * p).sum(1)  # 1 at the corners
    assert bool((flatten <= delta * math.sqrt(2) / 4 + EPS).all())
    assert bool((flatten <= delta * (1 - spread).clamp(min=0) / math.sqrt(2) + EPS).all())
    p_y = of(p, y)
    least = math.sqrt(classes / (classes - 1)) * (1 - delta) * p_y * (1 - p_y)
    assert bool((norm >= least - EPS).all())


@pytest.mark.parametrize(
    ("loss", "options", "at"),
    [("ce", {}, 0.0), ("mae", {}, 0.5), ("gce", {}, 0.7 / 1.7), ("gce", {"q": 0.5}, 1 / 3)],
)
def test_3_the_bounds_of_losses_of_p_alone_are_reached(
    loss: str, options: dict[str, float], at: float
) -> None:
    norm = closed_forms.rival_gradient_norm(loss, np.array(at), 7, options)
    assert float(norm) == pytest.approx(bounds.gradient_norm_bound(loss, 7, options), rel=1e-12)


@given(SEEDS, st.integers(2, 50))
@searched
def test_4_ratio_at_the_learned_end_does_not_ask_how_the_rest_is_spread(
    seed: int, classes: int
) -> None:
    z, y = points(seed, classes)
    z = z.clamp(min=-200)
    z.scatter_(1, y[:, None], z.max(1, keepdim=True).values + 40)
    for loss, options in LOSSES:
        ratio = closed_forms.suppression_ratio(loss, z, y, options)
        expected = torch.full_like(ratio, bounds.learned_ratio(loss, classes))
        torch.testing.assert_close(ratio, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_4_ratio_at_the_contradicted_end_is_proportional_to_p(classes: int) -> None:
    p = np.array([1e-6, 1e-9, 1e-12])
    z = closed_forms.rival_logits(p, classes)
    ratio = closed_forms.suppression_ratio("dspt", z, torch.zeros(3, dtype=torch.long)).numpy()
    assert ratio / p == pytest.approx([1 + bounds.tilt(classes)] * 3, rel=1e-5)


@given(SEEDS, st.integers(3, 40))
@searched
def test_4_a_label_without_probability_still_feels_an_undecided_model(
    seed: int, classes: int
) -> None:
    """``p_y = 0`` is not enough: the label-free term pulls on, unless it is even on its support."""
    z, _ = points(seed, classes, 16)
    y = torch.zeros(len(z), dtype=torch.long)
    z[:, 0] = -np.inf
    z[:, 1] = z[:, 1].clamp(min=-5)
    norm = closed_forms.gradient_norm("dspt", z, y)
    assert bool((closed_forms.gradient_norm("mae", z, y) == 0).all())
    p = z.softmax(1)
    inner = p.softmax(1)
    inner = torch.where(p > 0, inner, torch.nan)
    # What is left is set by how much softmax(p) differs on the support, weighted by p.
    mean = (p * inner.nan_to_num()).sum(1, keepdim=True)
    left = (p * (inner - mean).nan_to_num()).norm(dim=1)
    torch.testing.assert_close(norm, left, rtol=1e-6, atol=1e-14)
    two = torch.full((1, classes), float("-inf"), dtype=torch.float64)
    two[0, 1], two[0, 2] = 1.0, 0.0
    assert closed_forms.gradient_norm("dspt", two, y[:1]).item() > 0.1 / (classes + 2)
    two[0, 1] = 0.0
    assert closed_forms.gradient_norm("dspt", two, y[:1]).item() < 1e-15


@given(SEEDS, CLASSES)
@searched
def test_4_no_other_point_is_without_gradient(seed: int, classes: int) -> None:
    z, y = points(seed, classes)
    p_y = of(z.softmax(1), y)
    inside = (p_y > 1e-3) & (p_y < 1 - 1e-3)
    pull = -of(closed_forms.gradient("dspt", z, y), y)
    assert bool((pull[inside] > 1e-4).all())


@pytest.mark.parametrize("classes", [2, 3, 5, 10, 100, 10_000])
def test_5_where_the_gradient_peaks_with_one_rival(classes: int) -> None:
    at, height = bounds.peak(classes)
    p = np.linspace(0, 1, 2001)
    norms = closed_forms.rival_gradient_norm("dspt", p, min(classes, 100), {})
    formula = np.array([bounds.rival_norm(float(t), min(classes, 100)) for t in p])
    np.testing.assert_allclose(norms, formula, rtol=1e-10, atol=1e-15)
    formula = np.array([bounds.rival_norm(float(t), classes) for t in p])
    assert formula.max() == pytest.approx(height, rel=1e-6)
    assert p[formula.argmax()] == pytest.approx(at, abs=1e-3)
    assert at < 0.5
    assert math.sqrt(2) / 4 < height < bounds.gradient_norm_bound("dspt", classes)


def test_5_the_peak_nears_one_half() -> None:
    assert bounds.peak(2)[0] == pytest.approx(0.3934, abs=1e-4)
    assert bounds.peak(2)[1] == pytest.approx(0.3733, abs=1e-4)
    for classes in (10**3, 10**5):
        shift = classes * (0.5 - bounds.peak(classes)[0])
        assert shift == pytest.approx(math.sqrt(math.e) / 4, rel=5 / classes)


@given(SEEDS, CLASSES)
@searched
def test_5_one_rival_is_where_the_gradient_is_greatest(seed: int, classes: int) -> None:
    """Measured, not proven for C >= 3: no sampled point exceeds the peak of the one-rival line."""
    z, y = points(seed, classes, 256)
    height = bounds.peak(classes)[1]
    assert bool((closed_forms.gradient_norm("dspt", z, y) <= height + EPS).all())


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_5_climbing_from_many_starts_finds_nothing_greater(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    z = 3 * torch.randn(64, classes, generator=generator, dtype=torch.float64)
    z.requires_grad_(True)
    y = torch.zeros(64, dtype=torch.long)
    climb = torch.optim.Adam([z], lr=0.15)
    for _ in range(150):
        climb.zero_grad()
        norm = closed_forms.gradient("dspt", z, y).square().sum(1).add(1e-30).sqrt()
        (-norm.sum()).backward()
        climb.step()
    height = bounds.peak(classes)[1]
    found = float(closed_forms.gradient_norm("dspt", z.detach(), y).max())
    assert 0.995 * height < found <= height + EPS


@given(SEEDS, CLASSES, st.floats(0.0, 60.0))
@searched
def test_6_a_lead_of_another_class_saturates(seed: int, classes: int, margin: float) -> None:
    z, y = points(seed, classes)
    lead = (y + 1) % classes
    others = z.scatter(1, lead[:, None], float("-inf")).max(1, keepdim=True).values
    z.scatter_(1, lead[:, None], others.clamp(min=-1e3) + margin)
    norm = closed_forms.gradient_norm("dspt", z, y)
    assert bool((norm < bounds.saturation_bound(margin)).all())


@pytest.mark.parametrize("classes", [2, 10, 1000, 10_000])
def test_6_the_rate_of_saturation_is_exact_and_the_scale_sets_it(classes: int) -> None:
    """All others level: the norm falls as exp(-scale * lead), with a factor between 1 and e."""
    y = torch.tensor([0])
    for scale in (30.0, 100.0):
        norms = []
        for lead in (0.3, 0.4):
            z = torch.zeros(1, classes, dtype=torch.float64)
            z[0, 1] = scale * lead
            norm = closed_forms.gradient_norm("dspt", z, y).item()
            norms.append(norm)
            if scale * lead > 12 + math.log(classes):
                assert 0.2 < norm / bounds.saturation_bound(scale * lead) < 1
        if scale == 100.0:
            assert math.log(norms[0] / norms[1]) == pytest.approx(scale * 0.1, rel=1e-3)


@given(SEEDS, st.integers(2, 60))
@searched
def test_7_sum_over_labels_varies_within_its_window(seed: int, classes: int) -> None:
    z, _ = points(seed, classes, 24)
    z[0] = 0.0
    z[1] = one_hot(classes)[0]
    for loss, options in LOSSES:
        if loss == "ce":
            continue
        sums = all_values(loss, z, options).sum(1)
        width = bounds.label_sum_width(loss, classes, options)
        assert float(sums.max() - sums.min()) <= width + 1e-9
        assert float((sums[1] - sums[0]).abs()) == pytest.approx(width, abs=1e-9)  # sharp


def test_7_the_window_of_dspt_is_bounded_for_all_c_and_that_of_gce_is_not() -> None:
    assert bounds.label_sum_width("dspt", 10**6) < math.e - 2
    assert bounds.label_sum_width("gce", 10**6) > 80
    assert bounds.label_sum_width("mae", 10**6) == 0
    assert bounds.label_sum_width("ce", 2) == math.inf


def risks(losses: np.ndarray, truth: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy risk, written out from the noise's definition.

    ``losses`` [hypotheses, samples, C], ``truth`` [samples, C] is the distribution of the true
    label of each sample, all samples equally likely.
    """
    classes = truth.shape[1]
    flip = np.full((classes, classes), rate / (classes - 1))
    np.fill_diagonal(flip, 1 - rate)
    clean = (losses * truth).sum(2).mean(1)
    noisy = (losses * (truth @ flip)).sum(2).mean(1)
    return clean, noisy


@given(SEEDS, st.integers(2, 30), st.floats(0.0, 0.999))
@searched
def test_8_the_noisy_minimiser_is_nearly_the_clean_one(
    seed: int, classes: int, part: float
) -> None:
    rng = np.random.default_rng(seed)
    rate = part * (classes - 1) / classes
    samples, hypotheses = 6, 40
    truth = rng.dirichlet(np.full(classes, 10 ** rng.uniform(-2, 1)), samples)
    z, _ = points(seed, classes, samples * hypotheses)
    for loss, options in LOSSES:
        if loss == "ce":
            continue
        losses = all_values(loss, z, options).numpy().reshape(hypotheses, samples, classes)
        clean, noisy = risks(losses, truth, rate)
        excess = clean[noisy.argmin()] - clean.min()
        assert excess <= bounds.excess_risk_bound(loss, rate, classes, options) + 1e-9


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.35])
def test_8_the_bound_is_reached(classes: int, rate: float) -> None:
    """Two hypotheses: certain, right on a share of the samples; or undecided on all.

    At the share where the clean risks differ by the bound, the noisy risks tie: just below it
    noise picks the undecided one, just above it the certain one, which is best for clean labels.
    """
    expected = bounds.excess_risk_bound("dspt", rate, classes)
    tie = bounds.loss_range("dspt", classes)[1] - math.log(classes) + expected
    assert 0 < tie < 1
    certain = all_values("dspt", one_hot(classes)[0])[0].numpy()
    undecided = np.full(classes, math.log(classes))
    for share, picked in ((tie - 1e-9, 1), (tie + 1e-9, 0)):
        # One sample whose true label is class 0, as "certain" says, with probability ``share``.
        truth = np.zeros((1, classes))
        truth[0, 0], truth[0, 1] = share, 1 - share
        clean, noisy = risks(np.stack([certain, undecided])[:, None], truth, rate)
        assert noisy.argmin() == picked
        assert clean.argmin() == 0
        assert clean[1] - clean[0] == pytest.approx(expected, abs=1e-8)


def test_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="needs at least two"):
        bounds.label_free_range(1)
    with pytest.raises(UserError, match=r"outside \[0, 0.9\)"):
        bounds.excess_risk_bound("dspt", 0.9, 10)
    with pytest.raises(UserError, match="choose from ce, mae, gce, dspt"):
        bounds.loss_range("sce", 10)
    with pytest.raises(UserError, match="q must be in"):
        bounds.gradient_norm_bound("gce", 10, {"q": 0.0})


def test_the_page_names_every_test_of_a_theorem_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\d_\w+)`", page))
    assert named == {name for name in globals() if re.match(r"test_\d_", name)}
