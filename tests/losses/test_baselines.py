from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dspt.errors import UserError
from dspt.losses import LOSSES, logit_gradient_norm, per_sample_loss

ALL = [
    ("ce", {}),
    ("label-smoothing", {}),
    ("label-smoothing", {"smoothing": 0.6}),
    ("mae", {}),
    ("gce", {}),
    ("gce", {"q": 0.5}),
    ("gce", {"q": 1.0}),
    ("sce", {}),
    ("sce", {"alpha": 6.0, "beta": 0.1, "log_zero": -9.21}),
    ("nce+rce", {}),
    ("nce+rce", {"alpha": 10.0, "beta": 0.1, "log_zero": -9.21}),
    ("phuber-ce", {}),
    ("phuber-ce", {"tau": 2.0}),
    ("dspt", {}),
]


def naive(name: str, z: Tensor, y: Tensor, **options: float) -> Tensor:
    """The formulas as the papers print them."""
    p = z.exp() / z.exp().sum(1, keepdim=True)
    rows, hot = torch.arange(len(y)), torch.nn.functional.one_hot(y, z.shape[1]).to(z)
    p_y = p[rows, y]
    if name == "ce":
        return -p_y.log()
    if name == "label-smoothing":
        s = options.get("smoothing", 0.1)
        return -(((1 - s) * hot + s / z.shape[1]) * p.log()).sum(1)
    if name == "mae":
        return (p - hot).abs().sum(1)
    if name == "gce":
        q = options.get("q", 0.7)
        return (1 - p_y**q) / q
    if name == "phuber-ce":
        tau = options.get("tau", 10.0)
        return torch.where(p_y <= 1 / tau, -tau * p_y + np.log(tau) + 1, -p_y.log())
    if name in ("sce", "nce+rce"):
        log_hot = (1 - hot) * options.get("log_zero", -4.0)
        reverse = -(p * log_hot).sum(1)
        active = -p_y.log() if name == "sce" else p_y.log() / p.log().sum(1)
        default = 0.1 if name == "sce" else 1.0
        return options.get("alpha", default) * active + options.get("beta", 1.0) * reverse
    inner = p.exp()
    return -(inner[rows, y] / inner.sum(1)).log()


def sample(seed: int, classes: int, spread: float) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((5, classes)) * spread
    return torch.from_numpy(z), torch.from_numpy(rng.integers(0, classes, 5))


@pytest.mark.parametrize(("name", "options"), ALL)
@given(st.integers(0, 2**32 - 1), st.integers(2, 50), st.sampled_from([0.1, 1.0, 4.0]))
@settings(max_examples=25, deadline=None)
def test_values_and_gradients_are_those_of_the_formula(
    name: str, options: dict, seed: int, classes: int, spread: float
) -> None:
    z, y = sample(seed, classes, spread)
    ours, theirs = z.clone().requires_grad_(True), z.clone().requires_grad_(True)
    values = per_sample_loss(name, options)(ours, y)
    expected = naive(name, theirs, y, **options)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-12)
    (ours_grad,) = torch.autograd.grad(values.sum(), ours)
    (theirs_grad,) = torch.autograd.grad(expected.sum(), theirs)
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(name: str, options: dict, dtype: torch.dtype) -> None:
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]], dtype=dtype)
    loss = per_sample_loss(name, options)
    for label in range(3):
        leaf = z.clone().requires_grad_(True)
        values = loss(leaf, torch.full((3,), label))
        values.sum().backward()
        assert bool(values.isfinite().all())
        assert bool(leaf.grad.isfinite().all())


def test_gce_lies_between_half_mae_and_cross_entropy() -> None:
    z, y = sample(3, 9, 2.0)
    gce = {q: per_sample_loss("gce", {"q": q})(z, y) for q in (1e-7, 0.2, 0.5, 0.7, 1.0)}
    torch.testing.assert_close(gce[1.0], per_sample_loss("mae")(z, y) / 2)
    torch.testing.assert_close(gce[1e-7], per_sample_loss("ce")(z, y), rtol=1e-5, atol=0)
    for smaller, larger in zip([1e-7, 0.2, 0.5, 0.7], [0.2, 0.5, 0.7, 1.0], strict=True):
        assert bool((gce[smaller] > gce[larger]).all())


def test_gce_has_q_of_the_paper_unless_told() -> None:
    z, y = sample(4, 5, 1.0)
    torch.testing.assert_close(LOSSES["gce"](z, y), per_sample_loss("gce", {"q": 0.7})(z, y))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dsptt", "did you mean 'dspt'?"),
        ("gec", "did you mean 'gce'?"),
        ("nce-rce", "did you mean 'nce+rce'?"),
        ("label_smoothing", "did you mean 'label-smoothing'?"),
        ("hinge", "choose from ce, label-smoothing, mae, gce, sce, nce+rce, phuber-ce, dspt"),
    ],
)
def test_an_unknown_loss_is_named_with_what_there_is(name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        per_sample_loss(name)
    assert repr(name) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_named_with_what_there_is() -> None:
    with pytest.raises(UserError, match="'gce' has no option 'p'; it has q"):
        per_sample_loss("gce", {"p": 0.5})
    with pytest.raises(UserError, match="'dspt' has no option 'q'; it has none"):
        per_sample_loss("dspt", {"q": 0.5})
    with pytest.raises(UserError, match="has no option 'logits'"):
        per_sample_loss("gce", {"logits": 1.0})


@pytest.mark.parametrize("q", [0.0, -0.1, 1.001, float("nan"), float("inf")])
def test_q_out_of_range_is_refused(q: float) -> None:
    with pytest.raises(UserError, match=r"q must be in \(0, 1\]"):
        per_sample_loss("gce", {"q": q})
    with pytest.raises(ValueError, match="q must be in"):
        LOSSES["gce"](torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), q=q)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_gradient_norm_is_each_samples_own(name: str, options: dict) -> None:
    z, y = sample(5, 6, 2.0)
    norms = logit_gradient_norm(per_sample_loss(name, options), z, y)
    for i in range(len(y)):
        alone = z[i : i + 1].clone().requires_grad_(True)
        naive(name, alone, y[i : i + 1], **options).sum().backward()
        assert norms[i].item() == pytest.approx(alone.grad.norm().item(), rel=1e-8)


def test_gradient_norm_leaves_its_input_alone_and_needs_no_surrounding_grad() -> None:
    z, y = sample(6, 4, 1.0)
    z.requires_grad_(True)
    with torch.no_grad():
        norms = logit_gradient_norm(per_sample_loss("ce"), z, y)
    assert z.grad is None
    assert not norms.requires_grad
    p = z.detach().softmax(1)
    p[torch.arange(len(y)), y] -= 1
    torch.testing.assert_close(norms, p.norm(dim=1))
