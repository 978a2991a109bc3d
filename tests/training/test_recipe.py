from __future__ import annotations

import itertools
import math

import pytest
from pydantic import ValidationError

from dspt.training.recipe import Recipe


def test_the_defaults_are_the_fields_recipe() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum) == (50, 32, 0.002, 0.9)
    assert (recipe.weight_decay, recipe.warmup_epochs, recipe.warmup_lr) == (5e-4, 1, 1e-5)


def test_one_warm_up_epoch_then_half_a_cosine() -> None:
    recipe = Recipe(epochs=50)
    rates = [recipe.learning_rate(epoch) for epoch in range(50)]
    assert rates[0] == 1e-5
    assert rates[1] == 0.002
    for epoch in range(1, 50):
        cosine = 0.001 * (1 + math.cos(math.pi * (epoch - 1) / 50))
        assert rates[epoch] == pytest.approx(cosine, rel=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[1:]))
    assert rates[-1] > 0


def test_without_warm_up_the_cosine_starts_at_once() -> None:
    recipe = Recipe(epochs=10, lr=0.5, warmup_epochs=0)
    assert recipe.learning_rate(0) == 0.5
    assert recipe.learning_rate(5) == pytest.approx(0.25)


def test_several_warm_up_epochs() -> None:
    recipe = Recipe(epochs=10, lr=0.5, warmup_epochs=3, warmup_lr=0.01)
    assert [recipe.learning_rate(e) for e in range(4)] == [0.01, 0.01, 0.01, 0.5]


def test_a_constant_schedule() -> None:
    recipe = Recipe(epochs=5, lr=0.3, schedule="constant")
    assert [recipe.learning_rate(e) for e in range(5)] == [1e-5, 0.3, 0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"momentum": 1.0},
        {"momentum": float("nan")},
        {"weight_decay": -1.0},
        {"schedule": "step"},
        {"warmup_epochs": -1},
        {"warmup_lr": 0.0},
        {"learning_rate": 0.1},
    ],
)
def test_nonsense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**fields)  # type: ignore[arg-type]
