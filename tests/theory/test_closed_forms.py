"""Values, gradients, norms and ratios against autograd, finite differences and exact arithmetic."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.theory.sampling import LOSSES, SEEDS

from dspt.errors import UserError
from dspt.losses import LOSSES as ALL_LOSSES
from dspt.losses import logit_gradient_norm, per_sample_loss
from dspt.theory import closed_forms
from dspt.theory.bounds import learned_ratio

EVERY = [
    *LOSSES,
    ("label-smoothing", {}),
    ("sce", {}),
    ("sce", {"alpha": 6.0, "beta": 0.1}),
    ("nce+rce", {}),
    ("nce+rce", {"alpha": 10.0, "beta": 0.1}),
    ("phuber-ce", {}),
    ("phuber-ce", {"tau": 2.0}),
]
each_loss = pytest.mark.parametrize(
    ("loss", "options"), EVERY, ids=["-".join([n, *map(str, o.values())]) for n, o in EVERY]
)


def sample(seed: int, classes: int, size: float, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, classes)) * size
    return torch.from_numpy(z), torch.from_numpy(rng.integers(0, classes, n))


@each_loss
@given(SEEDS, st.integers(2, 300), st.sampled_from([0.1, 1.0, 5.0, 30.0]))
@settings(max_examples=20, deadline=None)
def test_gradient_and_norm_are_autograds(
    loss: str, options: dict[str, float], seed: int, classes: int, size: float
) -> None:
    z, y = sample(seed, classes, size)
    leaf = z.clone().requires_grad_(True)
    closed_forms.value(loss, leaf, y, options).sum().backward()
    gradient = closed_forms.gradient(loss, z, y, options)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(
        closed_forms.gradient_norm(loss, z, y, options),
        logit_gradient_norm(per_sample_loss(loss, options), z, y),
        rtol=1e-9,
        atol=1e-14,
    )


@each_loss
@given(SEEDS, st.integers(2, 10), st.sampled_from([0.1, 1.0, 3.0]))
@settings(max_examples=15, deadline=None)
def test_gradient_is_the_slope_of_the_value(
    loss: str, options: dict[str, float], seed: int, classes: int, size: float
) -> None:
    z, y = sample(seed, classes, size)
    step = 1e-5
    slopes = torch.zeros_like(z)
    for k in range(classes):
        shift = torch.zeros_like(z)
        shift[:, k] = step
        ahead, behind = (closed_forms.value(loss, z + side * shift, y, options) for side in (1, -1))
        slopes[:, k] = (ahead - behind) / (2 * step)
    gradient = closed_forms.gradient(loss, z, y, options)
    torch.testing.assert_close(gradient, slopes, rtol=0, atol=5e-9)


@each_loss
@given(SEEDS, st.integers(2, 10_000), st.sampled_from([1.0, 100.0, 1e4]))
@settings(max_examples=15, deadline=None)
def test_any_size_of_logits_and_of_classes_in_single_precision(
    loss: str, options: dict[str, float], seed: int, classes: int, size: float
) -> None:
    """Finite everywhere, and as good as single precision allows against double precision."""
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.uniform(-size, size, (4, classes))).float()
    y = torch.from_numpy(rng.integers(0, classes, 4))
    for function in (
        closed_forms.value,
        closed_forms.gradient,
        closed_forms.gradient_norm,
        closed_forms.suppression_ratio,
    ):
        single, double = function(loss, z, y, options), function(loss, z.double(), y, options)
        assert single.dtype == torch.float32
        assert double.dtype == torch.float64
        assert bool(double.isfinite().all())
        torch.testing.assert_close(single, double.float(), rtol=2e-4, atol=2e-6)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_relative_accuracy_survives_where_everything_is_tiny(
    loss: str, options: dict[str, float], dtype: torch.dtype
) -> None:
    """At both ends the norm falls below the rounding error of 1, and must still be right.

    Expected values: the one-rival line, worked out by hand for two classes in terms of the smaller
    probability (docs/theory.md, theorem 5).
    """
    gap = 30.0
    small = np.exp(-gap) / (1 + np.exp(-gap))
    z = torch.tensor([[gap, 0.0]] * 2, dtype=dtype)
    y = torch.tensor([0, 1])  # learned, contradicted
    slope = np.tanh((1 - 2 * small) / 2)  # q_rival - q_label for the contradicted one
    root = np.sqrt(2)
    tau = options.get("tau", 10.0)
    reverse = 4 * options.get("beta", 1.0)
    active = options.get("alpha", 0.1 if loss == "sce" else 1.0)
    # NCE is a / (a + r), a and r the surprises of label and rival. Its slope by the gap is
    # [(1 - p_y) r + p_y a] / (a + r)^2: the same number at both ends.
    low = np.log1p(np.exp(-gap))
    nce = (small * (gap + low) + (1 - small) * low) / (gap + 2 * low) ** 2
    expected = {
        "label-smoothing": root * np.array([0.05 - small, 1 - small - 0.05]),
        "sce": root
        * (active + reverse * np.array([1 - small, small]))
        * np.array([small, 1 - small]),
        "nce+rce": root * (active * nce + reverse * small * (1 - small)) * np.array([1, 1]),
        "phuber-ce": root * np.array([small, tau * small]),
        "ce": root * np.array([small, 1 - small]),
        "mae": 2 * root * small * np.array([1, 1]),
        "gce": root * np.array([small, small ** options.get("q", 0.7)]),
        "dspt": root * small * np.array([1 - slope, 1 + slope]),
    }[loss]
    norms = closed_forms.gradient_norm(loss, z, y, options).numpy()
    np.testing.assert_allclose(norms, expected, rtol=1e-12 if dtype == torch.float64 else 1e-5)


@given(SEEDS, st.integers(2, 300), st.sampled_from([0.1, 1.0, 5.0, 30.0]))
@settings(max_examples=30, deadline=None)
def test_ratios_of_losses_of_p_alone(seed: int, classes: int, size: float) -> None:
    z, y = sample(seed, classes, size)
    p_y = z.softmax(1).gather(1, y[:, None])[:, 0]
    for loss, options, expected in (
        ("ce", {}, torch.ones_like(p_y)),
        ("mae", {}, 2 * p_y),
        ("gce", {"q": 0.5}, p_y.sqrt()),
        ("sce", {"alpha": 0.3, "beta": 2.0, "log_zero": -3.0}, 0.3 + 6 * p_y),
        ("phuber-ce", {"tau": 5.0}, (5 * p_y).clamp(max=1)),
    ):
        ratio = closed_forms.suppression_ratio(loss, z, y, options)
        torch.testing.assert_close(ratio, expected, rtol=1e-11, atol=1e-300)


@pytest.mark.parametrize("loss", ["ce", "mae", "gce", "dspt"])
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("gap", [50.0, 1e4])
def test_ratio_has_its_limit_where_cross_entropy_has_no_gradient_left(
    loss: str, classes: int, gap: float
) -> None:
    z = torch.randn(3, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[:, 0] += gap
    ratio = closed_forms.suppression_ratio(loss, z, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(ratio, torch.full_like(ratio, learned_ratio(loss, classes)))


def test_every_loss_of_the_project_has_a_closed_form() -> None:
    assert all(closed_forms.has_closed_form(name) for name in ALL_LOSSES)
    assert not closed_forms.has_closed_form("elr")


@pytest.mark.parametrize(
    ("loss", "options", "said"),
    [("cee", {}, "'cee' is unknown"), ("ce", {"q": 0.5}, "no option 'q'"),
     ("gce", {"q": 2.0}, "q must be in")],
)  # fmt: skip
def test_bad_names_and_options_are_refused(loss: str, options: dict[str, float], said: str) -> None:
    z, y = torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)
    with pytest.raises(UserError, match=said):
        closed_forms.gradient(loss, z, y, options)


def test_importing_the_formulas_loads_nothing_heavy() -> None:
    code = (
        "import sys, dspt.theory.closed_forms, dspt.theory.bounds, dspt.theory.pictures\n"
        "print([m for m in ('torch', 'matplotlib', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nearly_rival_logits_have_the_probabilities_they_say() -> None:
    p = closed_forms.nearly_rival_logits(np.array([0.2, 0.9]), 6, spread=0.04).softmax(1)
    expected = [[0.2, 0.768, *[0.008] * 4], [0.9, 0.096, *[0.001] * 4]]
    np.testing.assert_allclose(p.numpy(), expected, rtol=1e-12)


@each_loss
@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_gradients_bear_classes_without_any_probability(
    loss: str, options: dict[str, float], classes: int
) -> None:
    norms = closed_forms.rival_gradient_norm(loss, np.linspace(0, 1, 11), classes, options)
    assert bool(np.isfinite(norms).all())
    if loss == "nce+rce" and classes > 2:  # the normalised term is empty, RCE is left
        p = np.linspace(0, 1, 11)
        reverse = 4 * options.get("beta", 1.0) * np.sqrt(2) * p * (1 - p)
        np.testing.assert_allclose(norms, reverse, rtol=1e-12, atol=1e-15)


def test_label_smoothing_pushes_a_learned_label_back() -> None:
    """Its ratio to cross-entropy has no bound: it is infinite in float32, finite in float64."""
    z, y = torch.tensor([[400.0, 0.0]]), torch.tensor([0])
    assert closed_forms.gradient("label-smoothing", z, y)[0, 0] > 0
    assert closed_forms.suppression_ratio("label-smoothing", z, y).isinf().all()
    assert closed_forms.suppression_ratio("label-smoothing", z.double(), y).item() > 1e100
