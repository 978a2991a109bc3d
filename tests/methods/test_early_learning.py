from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dspt.methods.early_learning import EarlyLearning
from dspt.training.objective import Batch


def batch_of(rows: Tensor, logits: Tensor, step: int | None) -> Batch:
    return Batch(
        rows, torch.zeros(len(rows), 2), logits, torch.zeros(logits.shape[1], 2), 1.0, step
    )


def test_the_memory_is_a_running_mean_of_own_predictions() -> None:
    given = torch.tensor([0, 1, 2, 0])
    objective = EarlyLearning(given, 3, 0, momentum=0.6, weight=2.0)
    draws = torch.Generator().manual_seed(0)
    memory = torch.zeros(4, 3)
    for step in range(5):
        rows = torch.tensor([step % 4, (step + 2) % 4])
        logits = torch.randn(2, 3, generator=draws)
        p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        memory[rows] = 0.6 * memory[rows] + 0.4 * p / p.sum(1, keepdim=True)
        values = objective.values(batch_of(rows, logits, step))
        inner = (p * memory[rows]).sum(1)
        expected = -logits.log_softmax(1).gather(1, given[rows, None])[:, 0] + 2 * (1 - inner).log()
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(objective.state()["memory"], memory)


def test_measuring_leaves_the_memory_alone() -> None:
    objective = EarlyLearning(torch.tensor([0, 1]), 2, 0)
    objective.values(batch_of(torch.arange(2), torch.randn(2, 2), None))
    assert not objective.memory.any()


def test_restored_it_goes_on_the_same() -> None:
    one = EarlyLearning(torch.tensor([0, 1]), 2, 0)
    one.values(batch_of(torch.arange(2), torch.randn(2, 2), 0))
    other = EarlyLearning(torch.tensor([0, 1]), 2, 0)
    kept = one.state()
    other.restore(kept)
    logits = torch.randn(2, 2)
    assert torch.equal(
        one.values(batch_of(torch.arange(2), logits, 1)),
        other.values(batch_of(torch.arange(2), logits, 1)),
    )


def test_a_state_handed_out_is_never_changed() -> None:
    objective = EarlyLearning(torch.tensor([0, 1]), 2, 0)
    before = objective.state()["memory"]
    copy = before.clone()
    objective.values(batch_of(torch.arange(2), torch.randn(2, 2), 0))
    assert torch.equal(before, copy)


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"momentum": -0.1}, {"weight": -1.0}])
def test_options_out_of_range_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        EarlyLearning(torch.zeros(2, dtype=torch.long), 2, 0, **options)
