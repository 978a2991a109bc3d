"""ELR's formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy, cross_entropy_gradient
from dspt.losses.early_learning import (
    FLOOR,
    early_learning_gradient,
    early_learning_regularised,
    update_memory,
)

SEEDS = st.integers(0, 2**32 - 1)


def sample(seed: int, classes: int, size: float, n: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and a memory after a few updates from other logits."""
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.standard_normal((n, classes)) * size)
    memory = torch.zeros_like(z)
    for _ in range(int(rng.integers(0, 5))):
        past = z + torch.from_numpy(rng.standard_normal((n, classes)))
        memory = update_memory(memory, past, 0.7)
    return z, torch.from_numpy(rng.integers(0, classes, n)), memory


def plain(z: np.ndarray, y: np.ndarray, t: np.ndarray, weight: float) -> np.ndarray:
    """The paper's formula, with the clamp of the public code."""
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    clamped = np.clip(p, 1e-4, 1 - 1e-4)
    return -np.log(p[np.arange(len(p)), y]) + weight * np.log(1 - (clamped * t).sum(1))


@given(SEEDS, st.integers(2, 60), st.sampled_from([0.1, 1.0, 5.0]), st.sampled_from([0.5, 3, 7]))
@settings(max_examples=40, deadline=None)
def test_value_and_gradient_are_those_of_the_formula(
    seed: int, classes: int, size: float, weight: float
) -> None:
    z, y, memory = sample(seed, classes, size)
    leaf = z.clone().requires_grad_(True)
    values = early_learning_regularised(leaf, y, memory, weight)
    expected = plain(z.numpy(), y.numpy(), memory.numpy(), weight)
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-9, atol=1e-10)
    values.sum().backward()
    closed = early_learning_gradient(z, y, memory, weight)
    torch.testing.assert_close(closed, leaf.grad, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(closed.sum(1), torch.zeros(5).double(), rtol=0, atol=1e-10)


@given(SEEDS, st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_gradient_is_the_slope_of_the_formula(seed: int, classes: int) -> None:
    z, y, memory = sample(seed, classes, 1.0)
    step, slopes = 1e-6, np.zeros(z.shape)
    for k in range(classes):
        ahead, behind = (
            plain(z.numpy() + s * step * np.eye(classes)[k], y.numpy(), memory.numpy(), 3.0)
            for s in (1, -1)
        )
        slopes[:, k] = (ahead - behind) / (2 * step)
    closed = early_learning_gradient(z, y, memory, 3.0)
    np.testing.assert_allclose(closed.numpy(), slopes, rtol=0, atol=1e-7)


def test_gradient_is_the_papers_where_nothing_is_clamped() -> None:
    """``p - y + weight g`` with ``g_k = p_k / (1 - <p, t>) sum_j (t_j - t_k) p_j``."""
    z, y, _ = sample(3, 5, 1.0)
    p = z.softmax(1)
    assert float(p.min()) > FLOOR
    memory = 0.8 * torch.randn(5, 5, dtype=torch.float64).softmax(1)
    inner = (p * memory).sum(1, keepdim=True)
    g = p / (1 - inner) * ((memory[:, None, :] - memory[:, :, None]) * p[:, None, :]).sum(2)
    expected = p - torch.nn.functional.one_hot(y, 5) + 3.0 * g
    torch.testing.assert_close(early_learning_gradient(z, y, memory, 3.0), expected)


@given(SEEDS, st.integers(2, 10_000), st.sampled_from([1.0, 100.0, 1e4]))
@settings(max_examples=25, deadline=None)
def test_finite_for_any_size_and_type(seed: int, classes: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.uniform(-size, size, (3, classes)))
    y = torch.from_numpy(rng.integers(0, classes, 3))
    memory = torch.zeros_like(z)
    for _ in range(30):  # a memory that agrees with the model as far as it can
        memory = update_memory(memory, z, 0.7)
    for dtype in (torch.float32, torch.float64):
        leaf = z.to(dtype).requires_grad_(True)
        values = early_learning_regularised(leaf, y, memory.to(dtype), 7.0)
        values.sum().backward()
        assert values.dtype == dtype
        assert bool((values >= 7.0 * math.log(FLOOR) - 0.01).all())
        assert bool(values.isfinite().all())
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all())
        closed = early_learning_gradient(leaf.detach(), y, memory.to(dtype), 7.0)
        assert bool(closed.isfinite().all())


def test_without_weight_or_memory_it_is_cross_entropy() -> None:
    z, y, memory = sample(1, 6, 2.0)
    torch.testing.assert_close(early_learning_regularised(z, y, memory, 0.0), cross_entropy(z, y))
    nothing = torch.zeros_like(z)
    torch.testing.assert_close(early_learning_regularised(z, y, nothing, 3.0), cross_entropy(z, y))


def test_a_remembered_class_holds_against_a_wrong_label() -> None:
    """What ELR is for: where memory and model agree against the label, its pull is cut."""
    z, y = torch.tensor([[3.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([1])
    memory = torch.tensor([[0.9, 0.05, 0.05]], dtype=torch.float64)
    held = early_learning_gradient(z, y, memory, 3.0)[0]
    plainly = cross_entropy_gradient(z, y)[0]
    assert plainly[0] > 0 > held[0]
    forgetful = early_learning_gradient(z, y, memory.flip(1), 3.0)[0]
    assert forgetful[0] > plainly[0]


def test_the_regulariser_is_silent_on_a_certain_model() -> None:
    z, y = torch.tensor([[30.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([1])
    memory = update_memory(torch.zeros_like(z), z, 0.0)
    torch.testing.assert_close(
        early_learning_gradient(z, y, memory, 7.0), cross_entropy_gradient(z, y)
    )


def test_the_memory_is_a_running_mean_of_clamped_probabilities() -> None:
    z = torch.tensor([[20.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    first = update_memory(torch.zeros(2, 3), z, 0.7)
    top = 1 - 1e-4
    row = torch.tensor([top, 1e-4, 1e-4]) / (top + 2e-4)
    expected = torch.stack([row, torch.full((3,), 1 / 3)])
    torch.testing.assert_close(first, 0.3 * expected)
    assert not first.requires_grad
    second = update_memory(first, z, 0.7)
    torch.testing.assert_close(second, 0.51 * expected)
    torch.testing.assert_close(second.sum(1), torch.full((2,), 1 - 0.7**2))
    assert update_memory(first.half(), z, 0.7).dtype == torch.float16


def test_bad_input_is_refused() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    for function in (early_learning_regularised, early_learning_gradient):
        for weight in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="weight must be a finite number >= 0"):
                function(z, y, torch.zeros(2, 3), weight)
        with pytest.raises(ValueError, match=r"memory of shape \[2, 4\] does not fit"):
            function(z, y, torch.zeros(2, 4), 3.0)
    for momentum in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\)"):
            update_memory(z, z, momentum)
    with pytest.raises(ValueError, match="memory of shape"):
        update_memory(torch.zeros(1, 3), z, 0.7)
