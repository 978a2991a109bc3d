from __future__ import annotations

import math

import pytest
import torch

from dspt.errors import UserError
from dspt.losses import per_sample_loss
from dspt.losses.cross_entropy import cross_entropy, cross_entropy_gradient
from dspt.losses.partially_huberised import (
    partially_huberised_cross_entropy,
    partially_huberised_cross_entropy_gradient,
)
from dspt.theory.closed_forms import rival_logits


def of(p: float, tau: float) -> tuple[float, float]:
    """Value, and slope by ``p_y``, where the label has probability ``p`` of two classes."""
    z = rival_logits([p], 2)
    y = torch.tensor([0])
    gradient = partially_huberised_cross_entropy_gradient(z, y, tau)[0, 0].item()
    return partially_huberised_cross_entropy(z, y, tau).item(), gradient / (p * (1 - p))


def test_a_large_tau_is_cross_entropy() -> None:
    z = 3 * torch.randn(40, 9, dtype=torch.float64)
    y = torch.arange(40) % 9
    ours = partially_huberised_cross_entropy(z, y, 1e12)
    torch.testing.assert_close(ours, cross_entropy(z, y))
    torch.testing.assert_close(
        partially_huberised_cross_entropy_gradient(z, y, 1e12), cross_entropy_gradient(z, y)
    )


@pytest.mark.parametrize("tau", [1.5, 2.0, 10.0, 300.0])
def test_line_and_logarithm_meet_without_a_kink(tau: float) -> None:
    at = 1 / tau
    below, above = of(at * (1 - 1e-9), tau), of(at * (1 + 1e-9), tau)
    assert below[0] == pytest.approx(math.log(tau), abs=1e-7)
    assert below == pytest.approx(above, rel=1e-7)
    assert of(at / 3, tau)[1] == pytest.approx(-tau)  # a line below
    assert of((1 + at) / 2, tau)[1] == pytest.approx(-2 / (1 + at))  # -1 / p above


def test_it_is_bounded_and_lets_go_of_what_is_contradicted() -> None:
    z = torch.tensor([[1e4, -1e4]], dtype=torch.float64)
    y = torch.tensor([1])
    value = partially_huberised_cross_entropy(z, y)
    assert value.item() == pytest.approx(1 + math.log(10))
    assert partially_huberised_cross_entropy_gradient(z, y).norm() == 0


def test_ten_unless_told() -> None:
    z, y = torch.tensor([[2.0, -2.0]]), torch.tensor([1])
    torch.testing.assert_close(
        per_sample_loss("phuber-ce")(z, y), partially_huberised_cross_entropy(z, y, 10.0)
    )


@pytest.mark.parametrize("tau", [1.0, 0.0, -3.0, math.nan, math.inf])
def test_tau_out_of_range_is_refused(tau: float) -> None:
    z, y = torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)
    for function in (partially_huberised_cross_entropy, partially_huberised_cross_entropy_gradient):
        with pytest.raises(ValueError, match="tau must be a finite number > 1"):
            function(z, y, tau)
    with pytest.raises(UserError, match="loss_options: tau must be"):
        per_sample_loss("phuber-ce", {"tau": tau})
