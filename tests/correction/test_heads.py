"""Anchored heads: the optimum, and its limits."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from dspt.correction.heads import anchored_heads


@pytest.fixture
def problem():
    generator = np.random.default_rng(3)
    x = generator.standard_normal((30, 7))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, 3 * generator.standard_normal((30, 4)), generator.dirichlet(np.ones(4), 30)


def test_the_gradient_by_autograd_is_zero_at_the_optimum(problem):
    x, anchor, targets = map(torch.from_numpy, problem)
    change = torch.from_numpy(anchored_heads(*problem, [0.1])[0]).requires_grad_(True)
    log_p = torch.log_softmax(anchor + x @ change, dim=1)
    (-(targets * log_p).sum() + 0.05 * change.square().sum()).backward()
    assert change.grad.norm() < 1e-3
    assert change.detach().norm() > 1


def test_the_optimum_does_not_depend_on_the_other_penalties(problem):
    alone = anchored_heads(*problem, [0.3])[0]
    between = anchored_heads(*problem, [0.003, 0.3, 30])[1]
    assert np.allclose(alone, between, atol=2e-3)


def test_a_strong_penalty_stays_at_zero_shot_and_a_weak_one_learns(problem):
    x, anchor, targets = (array[:6] for array in problem)  # fewer samples than dimensions
    weak, strong = anchored_heads(x, anchor, targets, strengths=(1e-5, 1e6))
    assert np.abs(strong).max() < 1e-4
    assert np.abs(softmax(anchor + x @ weak, axis=1) - targets).max() < 0.05


def test_soft_targets_that_agree_with_zero_shot_change_nothing(problem):
    x, anchor, _ = problem
    assert np.abs(anchored_heads(x, anchor, softmax(anchor, axis=1), [0.01])).max() < 1e-6
