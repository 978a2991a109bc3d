from __future__ import annotations

import math

import pytest
import torch

from dspt.errors import UserError
from dspt.losses import per_sample_loss
from dspt.losses.cross_entropy import cross_entropy, soft_cross_entropy
from dspt.losses.label_smoothing import (
    label_smoothed_cross_entropy,
    label_smoothed_cross_entropy_gradient,
)


def test_without_smoothing_it_is_cross_entropy() -> None:
    z, y = torch.randn(9, 7, dtype=torch.float64), torch.arange(9) % 7
    torch.testing.assert_close(label_smoothed_cross_entropy(z, y, 0.0), cross_entropy(z, y))


def test_the_label_has_a_share_of_what_is_spread() -> None:
    """The convention: s / C for every class, so 0.1 over 4 classes leaves 0.925 to the label."""
    z, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    t = torch.full((5, 4), 0.025, dtype=torch.float64).scatter(1, y[:, None], 0.925)
    torch.testing.assert_close(label_smoothed_cross_entropy(z, y), soft_cross_entropy(z, t))


def test_least_and_without_gradient_at_the_smoothed_label() -> None:
    t = torch.tensor([[0.925, 0.025, 0.025, 0.025]], dtype=torch.float64)
    y = torch.tensor([0])
    entropy = -float((t * t.log()).sum())
    assert label_smoothed_cross_entropy(t.log(), y).item() == pytest.approx(entropy)
    assert label_smoothed_cross_entropy_gradient(t.log(), y).norm() < 1e-15
    near = t.log() + 0.01 * torch.randn(200, 4, dtype=torch.float64)
    values = label_smoothed_cross_entropy(near, y.expand(200))
    assert bool((values >= entropy - 1e-12).all())


@pytest.mark.parametrize("smoothing", [-0.01, 1.0, math.nan, math.inf])
def test_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    z, y = torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)
    for function in (label_smoothed_cross_entropy, label_smoothed_cross_entropy_gradient):
        with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\)"):
            function(z, y, smoothing)
    with pytest.raises(UserError, match="loss_options: smoothing must be"):
        per_sample_loss("label-smoothing", {"smoothing": smoothing})
