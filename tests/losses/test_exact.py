"""Values and gradients against exact arithmetic, where models are certain and where they waver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.losses.exact import value_and_gradient
from tests.losses.test_baselines import ALL

from dspt.losses import per_sample_loss
from dspt.theory import closed_forms


@pytest.mark.parametrize(("name", "options"), ALL)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.sampled_from([0.5, 5.0, 25.0]))
@settings(max_examples=12, deadline=None)
def test_value_and_gradient_are_exact(
    name: str, options: dict[str, float], seed: int, classes: int, spread: float
) -> None:
    """The gradient to a relative error of 1e-11 even where it is 1e-40."""
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.standard_normal((1, classes)) * spread)
    y = torch.from_numpy(rng.integers(0, classes, 1))
    at, slopes = value_and_gradient(name, z[0].tolist(), int(y), options)
    assert per_sample_loss(name, options)(z, y).item() == pytest.approx(at, rel=1e-12, abs=1e-14)
    closed = closed_forms.gradient(name, z, y, options)[0].numpy()
    assert np.abs(closed - slopes).max() <= 1e-11 * np.abs(slopes).max()
