"""Symmetric cross-entropy and its reverse term."""

from __future__ import annotations

import math

import pytest
import torch

from dspt.errors import UserError
from dspt.losses import per_sample_loss
from dspt.losses.cross_entropy import cross_entropy
from dspt.losses.mae import mean_absolute_error
from dspt.losses.reverse_cross_entropy import reverse_cross_entropy, reverse_cross_entropy_gradient
from dspt.losses.symmetric_cross_entropy import (
    symmetric_cross_entropy,
    symmetric_cross_entropy_gradient,
)


def sample(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = 4 * torch.randn(30, 6, generator=generator, dtype=torch.float64)
    return z, torch.randint(6, (30,), generator=generator)


def test_either_weight_alone_leaves_one_term() -> None:
    z, y = sample()
    torch.testing.assert_close(symmetric_cross_entropy(z, y, 1.0, 0.0), cross_entropy(z, y))
    torch.testing.assert_close(
        symmetric_cross_entropy(z, y, 0.0, 1.0), 2 * mean_absolute_error(z, y)
    )


def test_the_terms_are_weighted() -> None:
    z, y = sample(1)
    torch.testing.assert_close(
        symmetric_cross_entropy(z, y, 2.0, 3.0, -5.0),
        2 * cross_entropy(z, y) + 3 * reverse_cross_entropy(z, y, -5.0),
    )


def test_defaults_are_those_of_cifar_10() -> None:
    z, y = sample(2)
    torch.testing.assert_close(
        per_sample_loss("sce")(z, y), symmetric_cross_entropy(z, y, 0.1, 1.0, -4.0)
    )


def test_the_public_code_clamps_the_label_instead() -> None:
    """Clamping the one-hot label at 1e-4 is ``log_zero = log 1e-4``."""
    z, y = sample(3)
    hot = torch.nn.functional.one_hot(y, 6).double().clamp(1e-4, 1.0)
    clamped = -(z.softmax(1) * hot.log()).sum(1)
    torch.testing.assert_close(reverse_cross_entropy(z, y, math.log(1e-4)), clamped)


def test_the_reverse_term_is_symmetric() -> None:
    z, _ = sample(4)
    total = sum(reverse_cross_entropy(z, torch.full((30,), k)) for k in range(6))
    torch.testing.assert_close(total, torch.full((30,), 20.0, dtype=torch.float64))  # -A (C - 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": -0.1}, "alpha must be a finite number >= 0, not -0.1"),
        ({"beta": math.nan}, "beta must be a finite number >= 0, not nan"),
        ({"beta": math.inf}, "beta must be a finite number >= 0, not inf"),
        ({"alpha": 0.0, "beta": 0.0}, "alpha and beta must not all be 0"),
        ({"log_zero": 0.0}, "log_zero must be a finite number < 0, not 0.0"),
        ({"log_zero": -math.inf}, "log_zero must be a finite number < 0, not -inf"),
        ({"log_zero": math.nan}, "log_zero must be a finite number < 0, not nan"),
    ],
)
@pytest.mark.parametrize("loss", ["sce", "nce+rce"])
def test_options_out_of_range_are_refused(loss: str, options: dict[str, float], said: str) -> None:
    with pytest.raises(UserError) as caught:
        per_sample_loss(loss, options)
    assert str(caught.value).startswith(f"loss_options: {said}")


def test_gradients_refuse_the_same() -> None:
    z, y = sample(5)
    with pytest.raises(ValueError, match="beta must be"):
        symmetric_cross_entropy_gradient(z, y, beta=-1.0)
    with pytest.raises(ValueError, match="log_zero must be"):
        reverse_cross_entropy_gradient(z, y, 1.0)
