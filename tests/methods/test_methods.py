from __future__ import annotations

import inspect

import pytest
import torch

from dspt.errors import UserError
from dspt.losses import LOSSES
from dspt.methods import (
    HEADS,
    OBJECTIVES,
    build_objective,
    check_method,
    method_card,
    method_names,
    trains_prompt,
)

EXPECTED = {
    "zero-shot", "zero-shot-ensemble", "linear-probe", "auto",
    "ce", "label-smoothing", "gce", "mae", "sce", "nce+rce", "phuber-ce", "dspt",
    "elr", "nlprompt", "joapr",
}  # fmt: skip


def test_every_method_of_the_field_is_there_once() -> None:
    assert set(method_names()) == EXPECTED
    assert len(method_names()) == len(EXPECTED) == len(LOSSES) + len(OBJECTIVES) + len(HEADS)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_method_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    card = method_card(name)
    assert len(card.summary) > 20
    assert any(year in card.source for year in map(str, range(2016, 2027))), card.source
    assert trains_prompt(name) == (card.kind not in ("bound", "head"))
    for option, default in card.options.items():
        assert default is not inspect.Parameter.empty, option
        assert isinstance(default, int | float | str)
    check_method(name, card.options)


@pytest.mark.parametrize("name", sorted(EXPECTED - set(HEADS)))
def test_every_objective_gives_finite_values_and_a_gradient(name: str) -> None:
    from dspt.training.objective import Batch

    given = torch.arange(12) % 3
    objective = build_objective(name, {}, given, 3, 0)
    draws = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(12, 5, generator=draws), dim=1)
    classes = torch.nn.functional.normalize(torch.randn(3, 5, generator=draws), dim=1)
    for epoch in range(3):
        leaf = classes.clone().requires_grad_(True)
        logits = 20 * images @ leaf.t()
        objective.begin_epoch(epoch, logits.detach())
        rows = torch.from_numpy(objective.order(epoch))
        values = objective.values(Batch(rows, images[rows], logits[rows], leaf, 20.0, epoch))
        assert values.shape == (12,)
        assert values.isfinite().all()
        values.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nlpromt", {}, ["nlprompt", "did you mean"]),
        ("x", {}, ["method", "dspt", "zero-shot"]),
        ("gce", {"p": 0.5}, ["gce", "'p'", "q"]),
        ("ce", {"q": 0.5}, ["ce", "none"]),
        ("gce", {"q": 2.0}, ["q", "2.0"]),
        ("gce", {"q": "half"}, ["q", "number", "half"]),
        ("nlprompt", {"cost": 1.0}, ["cost", "words"]),
        ("nlprompt", {"cost": "linear"}, ["cost", "linear", "double-log"]),
        ("nlprompt", {"noisy_loss": "dpst"}, ["dpst", "dspt"]),
        ("joapr", {"beta": -1.0}, ["beta"]),
        ("linear-probe", {"c": -1.0}, ["c", "-1.0"]),
        ("zero-shot", {"c": 1.0}, ["zero-shot", "none"]),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    name: str, options: dict[str, float | str], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        check_method(name, options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for word in words:
        assert word in text


def test_options_reach_the_loss() -> None:
    given = torch.tensor([0])
    logits = torch.tensor([[1.0, 0.0, -1.0]])
    for q in (0.3, 1.0):
        objective = build_objective("gce", {"q": q}, given, 3, 0)
        p = logits.softmax(1)[0, 0]
        torch.testing.assert_close(objective.loss(logits, given)[0], (1 - p**q) / q)


def test_runs_of_one_loss_without_options_share_its_function() -> None:
    given = torch.tensor([0, 1])
    first, second = (build_objective("dspt", {}, given, 2, seed) for seed in (0, 1))
    assert first.loss is second.loss
