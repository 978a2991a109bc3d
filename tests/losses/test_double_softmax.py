from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt.losses import double_softmax_cross_entropy, double_softmax_gradient
from dspt.losses.double_softmax import double_softmax

SEEDS = st.integers(0, 2**32 - 1)
SPREADS = st.sampled_from([0.1, 1.0, 5.0, 30.0])


def plain_formula(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's definition word for word, with nothing but exp and log."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    q = np.exp(p) / np.exp(p).sum(1, keepdims=True)
    return -np.log(q[np.arange(len(q)), target])


def sample(seed: int, classes: int, spread: float, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, classes)) * spread, rng.integers(0, classes, n)


def bounds(classes: int) -> tuple[float, float]:
    top = math.log(math.e + classes - 1)
    return top - 1.0, top


@given(SEEDS, st.integers(2, 300), SPREADS)
@settings(max_examples=60, deadline=None)
def test_values_are_the_plain_formula(seed: int, classes: int, spread: float) -> None:
    z, y = sample(seed, classes, spread)
    values = double_softmax(torch.from_numpy(z), torch.from_numpy(y))
    np.testing.assert_allclose(values.numpy(), plain_formula(z, y), rtol=1e-12, atol=1e-13)


@given(SEEDS, st.integers(2, 300), SPREADS)
@settings(max_examples=40, deadline=None)
def test_values_are_mae_and_a_term_without_labels(seed: int, classes: int, spread: float) -> None:
    z, y = (torch.from_numpy(a) for a in sample(seed, classes, spread))
    p = z.softmax(1)
    half_mae = 1 - p[torch.arange(len(p)), y]
    label_free = p.exp().sum(1).log() - 1
    torch.testing.assert_close(double_softmax(z, y), half_mae + label_free, rtol=0, atol=1e-13)
    least = math.log(classes) + 1 / classes - 1  # at the uniform p
    most = math.log(math.e + classes - 1) - 1  # at a one-hot p
    assert most - least < 0.72 / classes
    assert bool(((label_free >= least - 1e-12) & (label_free <= most + 1e-12)).all())


@given(SEEDS, st.integers(2, 60), SPREADS)
@settings(max_examples=40, deadline=None)
def test_closed_gradient_is_autograd(seed: int, classes: int, spread: float) -> None:
    z, y = (torch.from_numpy(a) for a in sample(seed, classes, spread))
    leaf = z.clone().requires_grad_(True)
    double_softmax(leaf, y).sum().backward()
    closed = double_softmax_gradient(z, y)
    torch.testing.assert_close(closed, leaf.grad, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(closed.sum(1), torch.zeros(len(y)).double(), rtol=0, atol=1e-14)


@given(SEEDS, st.integers(2, 12), st.sampled_from([0.1, 1.0, 3.0]))
@settings(max_examples=25, deadline=None)
def test_closed_gradient_is_the_slope_of_the_plain_formula(
    seed: int, classes: int, spread: float
) -> None:
    z, y = sample(seed, classes, spread)
    step, slopes = 1e-5, np.zeros_like(z)
    for k in range(classes):
        shift = np.zeros(classes)
        shift[k] = step
        slopes[:, k] = (plain_formula(z + shift, y) - plain_formula(z - shift, y)) / (2 * step)
    closed = double_softmax_gradient(torch.from_numpy(z), torch.from_numpy(y))
    np.testing.assert_allclose(closed.numpy(), slopes, rtol=0, atol=2e-9)


@given(
    SEEDS,
    st.integers(2, 10_000),
    st.sampled_from([1.0, 100.0, 1e4]),
    st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
)
@settings(max_examples=60, deadline=None)
def test_range_and_finite_gradient_for_any_size_and_type(
    seed: int, classes: int, size: float, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.uniform(-size, size, (4, classes))).to(dtype).requires_grad_(True)
    y = torch.from_numpy(rng.integers(0, classes, 4))
    values = double_softmax_cross_entropy(z, y, reduction="none")
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    low, high = bounds(classes)
    slack = 1e-12 if dtype == torch.float64 else 4e-6
    assert bool(((values >= low - slack) & (values <= high + slack)).all())
    values.sum().backward()
    assert z.grad is not None
    assert z.grad.dtype == dtype
    assert bool(z.grad.isfinite().all())


@pytest.mark.parametrize("classes", [2, 10, 101, 10_000])
def test_both_ends_of_the_range_are_reached(classes: int) -> None:
    z = torch.zeros(1, classes, dtype=torch.float64)
    z[0, 0] = 1e4
    low, high = bounds(classes)
    assert double_softmax(z, torch.tensor([0])).item() == pytest.approx(low, abs=1e-12)
    assert double_softmax(z, torch.tensor([1])).item() == pytest.approx(high, abs=1e-12)
    assert high - low == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1], ids=["agrees", "contradicts"])
def test_gradient_vanishes_where_the_model_is_certain(label: int) -> None:
    y = torch.tensor([label])
    certain = torch.tensor([[40.0, 0.0, 0.0]], dtype=torch.float64)
    assert double_softmax_gradient(certain, y).norm() < 1e-15
    undecided = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    assert double_softmax_gradient(undecided, y).norm() > 0.1


def test_a_contradicted_label_still_pulls_upwards_where_the_model_wavers() -> None:
    z = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    gradient = double_softmax_gradient(z, torch.tensor([1]))[0]
    assert gradient[1] < 0 < gradient[0]


def test_shifting_all_logits_changes_nothing() -> None:
    z, y = (torch.from_numpy(a) for a in sample(0, 7, 3.0))
    torch.testing.assert_close(double_softmax(z + 123.0, y), double_softmax(z, y))
