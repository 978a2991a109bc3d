from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt.losses import per_sample_loss
from dspt.losses.normalised_ce_rce import (
    normalised_and_reverse_cross_entropy,
    normalised_and_reverse_cross_entropy_gradient,
)
from dspt.losses.reverse_cross_entropy import reverse_cross_entropy

SEEDS = st.integers(0, 2**32 - 1)


def normalised(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The normalised term alone."""
    return normalised_and_reverse_cross_entropy(z, y, alpha=1.0, beta=0.0)


def sample(seed: int, classes: int, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.uniform(-size, size, (6, classes)))
    return z, torch.from_numpy(rng.integers(0, classes, 6))


def test_without_the_normalised_term_it_is_reverse_cross_entropy() -> None:
    z, y = sample(0, 7, 5.0)
    torch.testing.assert_close(
        normalised_and_reverse_cross_entropy(z, y, alpha=0.0, beta=2.0),
        2 * reverse_cross_entropy(z, y),
    )


def test_defaults_are_those_of_cifar_10() -> None:
    z, y = sample(1, 7, 5.0)
    torch.testing.assert_close(
        per_sample_loss("nce+rce")(z, y), normalised(z, y) + reverse_cross_entropy(z, y, -4.0)
    )


@given(SEEDS, st.integers(2, 60), st.sampled_from([1.0, 50.0, 1e4]))
@settings(max_examples=30, deadline=None)
def test_normalised_terms_of_all_labels_sum_to_one(seed: int, classes: int, size: float) -> None:
    """What normalising means; so the term is symmetric, and tolerant of symmetric noise."""
    z, _ = sample(seed, classes, size)
    each = torch.stack([normalised(z, torch.full((6,), k)) for k in range(classes)])
    assert bool(((each >= 0) & (each <= 1)).all())
    torch.testing.assert_close(each.sum(0), torch.ones(6, dtype=torch.float64))


@given(SEEDS, st.integers(2, 10_000), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=25, deadline=None)
def test_the_gradient_lives_at_extreme_logits(seed: int, classes: int, dtype: torch.dtype) -> None:
    """A clamp of probabilities would leave nothing here: nearly all underflow to 0."""
    z, y = sample(seed, classes, 1e4)
    leaf = z.to(dtype).requires_grad_(True)
    y = leaf.argmin(1)  # the most contradicted label
    values = normalised(leaf, y)
    values.sum().backward()
    assert leaf.grad is not None
    assert bool(leaf.grad.isfinite().all())
    pull = -leaf.grad.gather(1, y[:, None])[:, 0].double()
    gaps = leaf.detach().double().amax(1, keepdim=True) - leaf.detach().double()
    b = gaps.sum(1)  # -log p, as all but the top one are far behind
    rest = b - gaps.gather(1, y[:, None])[:, 0]
    if float(gaps.sort(1).values[:, 1].min()) > 40:
        torch.testing.assert_close(pull, rest / b**2, rtol=1e-3, atol=1e-12)


def test_the_sum_in_the_denominator_is_least_at_the_uniform_distribution() -> None:
    z = torch.zeros(1, 5, dtype=torch.float64)
    assert normalised(z, torch.tensor([2])).item() == pytest.approx(1 / 5)
    closed = normalised_and_reverse_cross_entropy_gradient(z, torch.tensor([2]), 1.0, 0.0)
    expected = torch.full((1, 5), 0.2, dtype=torch.float64)
    expected[0, 2] = -0.8
    torch.testing.assert_close(closed, expected / (5 * np.log(5)))


def test_logits_of_minus_infinity_are_a_limit() -> None:
    z = torch.tensor([[1.0, 0.0, -torch.inf, -torch.inf]], dtype=torch.float64)
    far = z.clamp(min=-1e200)
    for label in range(4):
        y = torch.tensor([label])
        leaf = z.clone().requires_grad_(True)
        value = normalised(leaf, y)
        value.sum().backward()
        torch.testing.assert_close(value, normalised(far, y), rtol=1e-9, atol=1e-9)
        assert value.item() == pytest.approx(0.5 if label > 1 else 0.0, abs=1e-9)
        assert bool(leaf.grad.isfinite().all())
        closed = normalised_and_reverse_cross_entropy_gradient(z, y, 1.0, 0.0)
        assert closed.abs().max() < 1e-100
