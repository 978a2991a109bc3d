from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt.losses.cross_entropy import (
    cross_entropy,
    cross_entropy_gradient,
    soft_cross_entropy,
    soft_cross_entropy_gradient,
)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=30, deadline=None)
def test_value_and_gradient_are_those_of_the_formula(seed: int, classes: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((5, classes)) * size
    t = rng.dirichlet(np.ones(classes), 5) * rng.uniform(0.5, 2, (5, 1))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    leaf = torch.from_numpy(z).requires_grad_(True)
    values = soft_cross_entropy(leaf, torch.from_numpy(t))
    np.testing.assert_allclose(values.detach().numpy(), -(t * np.log(p)).sum(1), rtol=1e-11)
    values.sum().backward()
    closed = soft_cross_entropy_gradient(leaf.detach(), torch.from_numpy(t))
    torch.testing.assert_close(closed, leaf.grad, rtol=1e-10, atol=1e-14)
    step, slopes = 1e-6, np.zeros_like(z[:, 0])
    ahead, behind = (torch.from_numpy(z + s * step * np.eye(classes)[0]) for s in (1, -1))
    slopes = soft_cross_entropy(ahead, torch.from_numpy(t)) - soft_cross_entropy(
        behind, torch.from_numpy(t)
    )
    torch.testing.assert_close(closed[:, 0], slopes / (2 * step), rtol=0, atol=1e-7)


def test_hard_and_mixed_labels() -> None:
    z = torch.randn(6, 5, dtype=torch.float64)
    first, second = torch.arange(6) % 5, (torch.arange(6) + 2) % 5
    one, two = (torch.nn.functional.one_hot(y, 5).double() for y in (first, second))
    torch.testing.assert_close(soft_cross_entropy(z, one), cross_entropy(z, first))
    torch.testing.assert_close(
        soft_cross_entropy_gradient(z, one), cross_entropy_gradient(z, first)
    )
    torch.testing.assert_close(  # mixup: linear in the targets
        soft_cross_entropy(z, 0.3 * one + 0.7 * two),
        0.3 * cross_entropy(z, first) + 0.7 * cross_entropy(z, second),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(dtype: torch.dtype) -> None:
    z = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    t = torch.tensor([[0.2, 0.3, 0.5]])
    value = soft_cross_entropy(z, t)
    value.sum().backward()
    assert value.item() == pytest.approx(0.3 * 2e4 + 0.5 * 1e4)
    torch.testing.assert_close(z.grad, soft_cross_entropy_gradient(z.detach(), t))


def test_no_gradient_flows_into_the_targets() -> None:
    z = torch.randn(2, 3, requires_grad=True)
    soft_cross_entropy(z, z.softmax(1)).sum().backward()
    torch.testing.assert_close(z.grad, torch.zeros(2, 3), rtol=0, atol=1e-6)  # p sum(p) - p


@pytest.mark.parametrize("function", [soft_cross_entropy, soft_cross_entropy_gradient])
def test_class_indices_are_refused(function: object) -> None:
    with pytest.raises(ValueError, match=r"soft targets of shape \[4\] do not fit"):
        function(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
