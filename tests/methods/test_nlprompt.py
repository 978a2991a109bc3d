from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import Tensor

from dspt.methods.nlprompt import NLPrompt, transport_labels
from dspt.training.objective import Batch


def logits_of(n: int, classes: int, seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


def batch_of(rows: Tensor, logits: Tensor) -> Batch:
    return Batch(rows, torch.zeros(len(rows), 2), logits, torch.zeros(logits.shape[1], 2), 1.0, 0)


def exact_transport(logits: Tensor) -> np.ndarray:
    """The unregularised transport by a linear program: the coupling, [N, C]."""
    cost = -F.log_softmax(logits.double(), dim=1).numpy()
    n, c = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(c)), np.kron(np.ones(n), np.eye(c))
    solved = linprog(
        cost.reshape(-1),
        A_eq=np.concatenate([rows, columns]),
        b_eq=np.concatenate([np.full(n, 1 / n), np.full(c, 1 / c)]),
    )
    assert solved.success
    return solved.x.reshape(n, c)


@pytest.mark.parametrize("seed", range(6))
def test_with_little_entropy_it_is_the_exact_transport(seed: int) -> None:
    logits = logits_of(12, 4, seed)
    assert np.array_equal(transport_labels(logits, 0.01, "log"), exact_transport(logits).argmax(1))


def test_small_transport_by_looking_at_every_assignment() -> None:
    logits = logits_of(4, 4, 11)
    cost = -F.log_softmax(logits.double(), dim=1)
    best = min(
        itertools.permutations(range(4)),
        key=lambda order: sum(float(cost[i, j]) for i, j in enumerate(order)),
    )
    assert transport_labels(logits, 0.001, "log").tolist() == list(best)


def test_with_much_entropy_it_is_the_solution_of_the_scaling_equations() -> None:
    logits, reg = logits_of(9, 3, 2), 0.5
    cost = -F.log_softmax(logits.double(), dim=1)
    kernel = torch.exp(-cost / reg)
    v = torch.ones(3, dtype=torch.float64)
    for _ in range(5000):
        u = (1 / 9) / (kernel @ v)
        v = (1 / 3) / (kernel.T @ u)
    coupling = u[:, None] * kernel * v
    assert torch.equal(transport_labels(logits, reg, "log"), coupling.argmax(1))


def test_the_cost_of_the_public_code_is_a_double_logarithm() -> None:
    logits, reg = logits_of(9, 3, 2), 0.05
    cost = -F.log_softmax(logits.double().softmax(1), dim=1)
    kernel = torch.exp(-cost / reg)
    v = torch.ones(3, dtype=torch.float64)
    for _ in range(5000):
        u = (1 / 9) / (kernel @ v)
        v = (1 / 3) / (kernel.T @ u)
    coupling = u[:, None] * kernel * v
    assert torch.equal(transport_labels(logits, reg, "double-log"), coupling.argmax(1))


@pytest.mark.parametrize("reg", [0.001, 0.01, 0.1, 10.0])
@pytest.mark.parametrize("cost", ["log", "double-log"])
def test_extreme_logits_stay_finite_and_classes_balanced(reg: float, cost: str) -> None:
    logits = logits_of(40, 5, 3, scale=200.0)
    labels = transport_labels(logits, reg, cost)
    assert labels.shape == (40,)
    assert 0 <= int(labels.min()) <= int(labels.max()) < 5
    if reg <= 0.01 and cost == "log":
        assert torch.bincount(labels, minlength=5).max() <= 14  # near 8 each


def test_the_parts_have_their_losses() -> None:
    given = torch.tensor([0, 1, 2, 0])
    logits = 4 * F.one_hot(torch.tensor([0, 1, 0, 2])).float()
    objective = NLPrompt(given, 3, 0, reg=0.01)
    objective.begin_epoch(0, torch.cat([logits]))
    assert objective.clean.tolist() == [True, True, False, False]
    p = logits.softmax(1)
    values = objective.values(batch_of(torch.arange(4), logits))
    expected = [-p[0, 0].log(), -p[1, 1].log(), 2 * (1 - p[2, 2]), 2 * (1 - p[3, 0])]
    torch.testing.assert_close(values, torch.stack(expected))


def test_dspt_can_take_the_place_of_mae() -> None:
    given = torch.tensor([0, 1, 2, 0])
    logits = 4 * F.one_hot(torch.tensor([0, 1, 0, 2])).float()
    objective = NLPrompt(given, 3, 0, noisy_loss="dspt")
    objective.begin_epoch(0, logits)
    values = objective.values(batch_of(torch.arange(4), logits))
    q = logits.softmax(1).softmax(1)
    torch.testing.assert_close(values[2:], torch.stack([-q[2, 2].log(), -q[3, 0].log()]))


def test_the_clean_part_comes_first_and_every_sample_once() -> None:
    given = torch.arange(30) % 3
    logits = 5 * F.one_hot(given, 3).float()
    logits[::2] = logits[::2].roll(1, dims=1)
    objective = NLPrompt(given, 3, 4)
    objective.begin_epoch(3, logits)
    order = objective.order(3)
    assert sorted(order.tolist()) == list(range(30))
    clean = int(objective.clean.sum())
    assert 0 < clean < 30
    assert objective.clean[torch.from_numpy(order[:clean])].all()
    assert not np.array_equal(order, objective.order(4))
    assert np.array_equal(order, objective.order(3))


def test_without_a_clean_sample_all_count_as_clean() -> None:
    given = torch.tensor([0, 1])
    objective = NLPrompt(given, 2, 0)
    objective.begin_epoch(0, torch.tensor([[0.0, 9.0], [9.0, 0.0]]))
    assert objective.clean.tolist() == [True, True]


@pytest.mark.parametrize(
    "options", [{"reg": 0.0}, {"reg": -1.0}, {"reg": float("inf")}, {"cost": "linear"}]
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        NLPrompt(torch.zeros(2, dtype=torch.long), 2, 0, **options)  # type: ignore[arg-type]
