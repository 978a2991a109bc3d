from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from dspt.methods.joapr import JoAPR, density_crossing, joint_partition
from dspt.training.objective import Batch

CLASSES = 4


def made(n: int = 24, **options: float) -> JoAPR:
    return JoAPR(torch.arange(n) % CLASSES, CLASSES, 7, **options)


def batch_of(rows: Tensor, logits: Tensor, step: int | None = None) -> Batch:
    draws = torch.Generator().manual_seed(1)
    images = F.normalize(torch.randn(len(rows), 6, generator=draws), dim=1)
    classes = F.normalize(torch.randn(CLASSES, 6, generator=draws), dim=1)
    return Batch(rows, images, logits, classes, 10.0, step)


def split_logits(given: Tensor, wrong: Tensor) -> Tensor:
    """Confident logits: right for most samples, another class for those in ``wrong``."""
    seen = torch.where(wrong, (given + 1) % CLASSES, given)
    jitter = torch.rand(len(given), 1, generator=torch.Generator().manual_seed(3))
    return (6 + jitter) * F.one_hot(seen, CLASSES)


def test_warm_up_is_cross_entropy_with_an_entropy_penalty() -> None:
    objective = made(warmup_epochs=2, alpha1=0.3)
    logits = torch.randn(24, CLASSES, generator=torch.Generator().manual_seed(0))
    for epoch in (0, 1):
        objective.begin_epoch(epoch, logits)
        p = logits.softmax(1)
        label = objective.given
        expected = -p.gather(1, label[:, None])[:, 0].log() + 0.3 * (p * p.log()).sum(1)
        values = objective.values(batch_of(torch.arange(24), logits, 0))
        torch.testing.assert_close(values, expected)
    objective.begin_epoch(2, logits)
    assert not objective.warming


def test_clean_and_noisy_samples_are_told_apart() -> None:
    objective = made(80)
    wrong = torch.arange(80) % 5 == 0
    logits = split_logits(objective.given, wrong)
    objective.begin_epoch(0, logits)
    for epoch in (1, 2, 3):
        objective.begin_epoch(epoch, logits)
        assert torch.equal(objective.clean, ~wrong)
    assert objective.weight[~wrong].min() > 0.9
    assert objective.weight[wrong].max() < 0.1


def test_every_weight_belongs_to_its_own_sample() -> None:
    """The public code mixes up two orders; here a permutation of the samples permutes the rest."""
    objective = made(40)
    wrong = torch.arange(40) % 3 == 0
    logits = split_logits(objective.given, wrong)
    logits = logits + torch.randn(40, CLASSES, generator=torch.Generator().manual_seed(2))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    other = JoAPR(objective.given[order], CLASSES, 7)
    for epoch in range(4):
        objective.begin_epoch(epoch, logits)
        other.begin_epoch(epoch, logits[order])
    torch.testing.assert_close(other.weight, objective.weight[order], rtol=1e-4, atol=1e-6)
    assert torch.equal(other.clean, objective.clean[order])
    p = logits.softmax(1).gather(1, objective.given[:, None])[:, 0]
    assert (objective.weight <= p + 1e-6).all()  # posterior times the probability of the label


def test_refurbished_targets() -> None:
    objective = made(power=2.0)
    logits = torch.randn(24, CLASSES, generator=torch.Generator().manual_seed(0))
    objective.warming = False
    objective.clean = torch.arange(24) % 2 == 0
    objective.weight = torch.linspace(0, 1, 24)
    targets = objective.refurbished(torch.arange(24), logits)
    p = logits.softmax(1)
    for i in range(24):
        soft = p[i]
        if i % 2 == 0:
            w = float(objective.weight[i])
            soft = w * F.one_hot(objective.given[i], CLASSES) + (1 - w) * p[i]
        torch.testing.assert_close(targets[i], soft**2 / (soft**2).sum())


def test_training_mixes_and_measuring_does_not() -> None:
    objective = made(beta=1.0, alpha2=0.0)
    logits = split_logits(objective.given, torch.arange(24) % 4 == 1)
    for epoch in (0, 1):
        objective.begin_epoch(epoch, logits)
    rows = torch.arange(24)
    targets = objective.refurbished(rows, logits)
    measured = objective.values(batch_of(rows, logits))
    torch.testing.assert_close(measured, -(targets * logits.log_softmax(1)).sum(1))
    batch = batch_of(rows, logits, step=5)
    first, again = objective.values(batch), objective.values(batch)
    assert torch.equal(first, again)
    assert not torch.allclose(first, objective.values(batch_of(rows, logits, step=6)))


def test_the_mixed_loss_written_out() -> None:
    objective = made(beta=1.0, alpha2=0.7)
    logits = split_logits(objective.given, torch.arange(24) % 4 == 1)
    for epoch in (0, 1):
        objective.begin_epoch(epoch, logits)
    rows = torch.arange(24)
    batch = batch_of(rows, logits, step=2)
    images, targets = objective._mixed(batch, objective.refurbished(rows, logits))
    torch.testing.assert_close(images.norm(dim=1), torch.ones(24))
    torch.testing.assert_close(targets.sum(1), torch.ones(24))
    mixed = 10.0 * images @ batch.class_features.t()
    p = mixed.softmax(1)
    penalty = sum(1 / CLASSES * math.log((1 / CLASSES) / float(m)) for m in p.mean(0))
    expected = -(targets * p.log()).sum(1) + 0.7 * penalty
    torch.testing.assert_close(objective.values(batch), expected)


def test_half_of_every_batch_is_clean() -> None:
    objective = made(33)
    wrong = torch.arange(33) % 4 == 0
    logits = split_logits(objective.given, wrong)
    for epoch in (0, 1):
        objective.begin_epoch(epoch, logits)
    order = objective.order(1)
    assert len(order) == 33
    assert objective.clean[torch.from_numpy(order)].tolist() == [i % 2 == 0 for i in range(33)]
    counts = np.bincount(order, minlength=33)
    assert counts[~wrong.numpy()].max() <= 1  # enough of these: nobody twice
    assert counts[wrong.numpy()].min() >= 1  # the smaller part is repeated


def test_restored_it_goes_on_the_same() -> None:
    one = made(40)
    draws = torch.Generator().manual_seed(9)
    seen = [3 * torch.randn(40, CLASSES, generator=draws) for _ in range(9)]
    for epoch in range(5):
        one.begin_epoch(epoch, seen[epoch])
    other = made(40)
    other.restore(one.state())
    for epoch in range(5, 9):
        one.begin_epoch(epoch, seen[epoch])
        other.begin_epoch(epoch, seen[epoch])
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.clean, other.clean)
        assert one.threshold == other.threshold
    assert len(one.losses) == 5


@settings(max_examples=200, deadline=None)
@cases(st.floats(0, 0.5), st.floats(0.01, 0.3), st.floats(0.05, 0.5), st.floats(0.01, 0.3))
def test_the_crossing_is_where_the_densities_are_equal(
    low: float, low_std: float, apart: float, high_std: float
) -> None:
    high = low + apart
    x = density_crossing(low, low_std, high, high_std)
    assert low <= x <= high
    left, right = norm(low, low_std).pdf(x), norm(high, high_std).pdf(x)
    crossed = norm(low, low_std).pdf(low) >= norm(high, high_std).pdf(low)
    crossed &= norm(low, low_std).pdf(high) <= norm(high, high_std).pdf(high)
    if crossed:
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("losses", [[0.5], [0.0, 0.0, 0.0], [0.0, 1.0]])
def test_degenerate_losses_do_not_fail(losses: list[float]) -> None:
    clean, posterior, threshold = joint_partition(np.array(losses), 0.5, 0)
    assert len(clean) == len(posterior) == len(losses)
    assert np.isfinite(posterior).all()
    assert 0 <= threshold <= 1
    assert clean.any()


@pytest.mark.parametrize(
    "options",
    [
        {"warmup_epochs": 0},
        {"warmup_epochs": 1.5},
        {"alpha1": -0.1},
        {"alpha2": float("nan")},
        {"power": 0.0},
        {"beta": 0.0},
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        made(**options)
