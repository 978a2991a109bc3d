from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import write_model
from torch import Tensor

from dspt.backbones import load_backbone, take_text_tower
from dspt.losses import PerSampleLoss, per_sample_loss
from dspt.methods import build_objective
from dspt.prompts import TextEngine, build_layout
from dspt.prompts.shared_prefix import SharedPrefixEngine
from dspt.seeding import keyed_order
from dspt.training.checkpoint import load_checkpoint, save_checkpoint
from dspt.training.loop import DivergedError, TrainingState, train
from dspt.training.objective import Objective
from dspt.training.recipe import Recipe
from dspt.training.run import TrainingRun

CLASSES, VECTORS, WIDTH, DIM = 4, 3, 5, 6
SCALE = 20.0
RECIPE = Recipe(epochs=4, batch_size=4, lr=0.05, warmup_lr=0.01)


def small_engine(context: Tensor) -> Tensor:
    """A differentiable stand-in for a text tower: [K, M, W] -> [K, C, D]."""
    draws = torch.Generator().manual_seed(5)
    weights = torch.randn(CLASSES, VECTORS * WIDTH, DIM, generator=draws)
    return F.normalize(torch.einsum("kw,cwd->kcd", context.flatten(1), weights).tanh(), dim=-1)


def plain(loss: PerSampleLoss | str, given: Tensor, classes: int, seed: int) -> Objective:
    function = per_sample_loss(loss) if isinstance(loss, str) else loss
    return Objective(function, given, classes, seed)


def with_labels(run: TrainingRun, given: Tensor) -> TrainingRun:
    objective = Objective(run.objective.loss, given, CLASSES, run.seed)
    return replace(run, given=given, objective=objective)


def small_run(
    n: int = 12,
    seed: int = 1,
    loss: PerSampleLoss | str = "ce",
    views: int = 1,
    draws_from: int = 0,
    start: Tensor | None = None,
    dim: int = DIM,
    classes: int = CLASSES,
) -> TrainingRun:
    draws = torch.Generator().manual_seed(draws_from)
    true = torch.arange(n) % classes
    given = true.clone()
    given[: n // 3] = (given[: n // 3] + 1) % classes
    return TrainingRun(
        features=F.normalize(torch.randn(n, views, dim, generator=draws), dim=-1),
        given=given,
        true=true,
        test_features=F.normalize(torch.randn(7, dim, generator=draws), dim=-1),
        test_labels=torch.arange(7) % classes,
        context=torch.randn(VECTORS, WIDTH, generator=draws) if start is None else start,
        objective=plain(loss, given, classes, seed),
        seed=seed,
    )


def by_hand(engine: TextEngine, run: TrainingRun, recipe: Recipe) -> tuple[Tensor, list[float]]:
    """SGD written out: velocity = momentum * velocity + gradient + decay * context."""
    context = run.context.clone().float()
    velocity = torch.zeros_like(context)
    n = len(run.given)
    size = min(n, recipe.batch_size)
    means = []
    for epoch in range(recipe.epochs):
        order = keyed_order(run.seed, f"batches/{epoch}", range(n))
        total, steps = 0.0, n // size
        for step in range(steps):
            rows = torch.tensor(order[step * size : (step + 1) * size].copy())
            leaf = context.clone().requires_grad_(True)
            logits = SCALE * run.features[rows, 0] @ engine(leaf[None])[0].T
            loss = run.objective.loss(logits, run.given[rows]).mean()
            (gradient,) = torch.autograd.grad(loss, leaf)
            velocity = recipe.momentum * velocity + gradient + recipe.weight_decay * context
            context = context - recipe.learning_rate(epoch) * velocity
            total += float(loss.detach())
        means.append(total / steps)
    return context, means


def same(a: TrainingState, b: TrainingState) -> bool:
    return (
        torch.equal(a.context, b.context)
        and torch.equal(a.momentum, b.momentum)
        and a.metrics == b.metrics
        and a.epoch == b.epoch
    )


@pytest.mark.parametrize("loss", ["ce", "dspt", "mae", "gce"])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_training_is_sgd_written_by_hand(loss: str, momentum: float) -> None:
    recipe = RECIPE.model_copy(update={"weight_decay": 0.03, "momentum": momentum})
    run = small_run(n=13, loss=loss)  # one sample is left out of every epoch
    state = train(small_engine, SCALE, [run], recipe)
    context, losses = by_hand(small_engine, run, recipe)
    torch.testing.assert_close(state.context[0], context, rtol=1e-5, atol=1e-6)
    assert [m.train_loss for m in state.metrics[0]] == [None, *map(pytest.approx, losses)]
    assert [m.lr for m in state.metrics[0]] == [None, *map(recipe.learning_rate, range(4))]
    assert not torch.allclose(state.context[0], run.context)


def test_metrics_describe_the_prompt_after_the_epoch() -> None:
    run = small_run(n=12, loss="dspt")
    one_less = train(small_engine, SCALE, [run], RECIPE.model_copy(update={"warmup_epochs": 9}))
    for state in (one_less,):
        features = small_engine(state.context)[0]
        logits = SCALE * run.features[:, 0] @ features.T
        last = state.metrics[0][-1]
        hits = logits.argmax(1) == run.given
        assert last.accuracy_given == pytest.approx(float(hits.float().mean()))
        assert last.accuracy_true == pytest.approx(
            float((logits.argmax(1) == run.true).float().mean())
        )
        test_hits = (run.test_features @ features.T).argmax(1) == run.test_labels
        assert last.accuracy_test == pytest.approx(float(test_hits.float().mean()))
        leaf = logits.detach().double().requires_grad_(True)
        p = leaf.softmax(1)
        F.cross_entropy(p, run.given, reduction="sum").backward()
        assert leaf.grad is not None
        norms = leaf.grad.norm(dim=1)
        wrong = run.given != run.true
        assert last.gradient_norm_clean == pytest.approx(float(norms[~wrong].mean()), rel=1e-4)
        assert last.gradient_norm_mislabelled == pytest.approx(float(norms[wrong].mean()), rel=1e-4)


def test_without_truth_or_test_pictures_their_metrics_are_absent() -> None:
    run = replace(
        small_run(),
        true=None,
        test_features=torch.zeros(0, DIM),
        test_labels=torch.zeros(0, dtype=torch.long),
    )
    record = train(small_engine, SCALE, [run], RECIPE).metrics[0][-1]
    assert record.accuracy_true is record.accuracy_test is None
    assert record.gradient_norm_clean is record.gradient_norm_mislabelled is None


def test_runs_side_by_side_equal_runs_alone_on_a_real_tower(tmp_path: Path) -> None:
    backbone = load_backbone(write_model(tmp_path / "model"), device="cpu")
    tower = take_text_tower(backbone.model.double())
    names = ["red", "dark green", "blue", "a rather long name"]
    layout = build_layout(backbone.tokenizer, names, VECTORS)
    engine = SharedPrefixEngine(tower, layout, class_specific=False)

    def one(number: int, loss: str) -> TrainingRun:
        draws = torch.Generator().manual_seed(number)
        start = 0.02 * torch.randn(VECTORS, tower.width, generator=draws)
        run = small_run(9, seed=number, loss=loss, draws_from=number, start=start, dim=16)
        run.given[number % 9] = number % CLASSES
        return replace(
            run,
            features=run.features.double(),
            test_features=run.test_features.double(),
        )

    runs = [one(0, "ce"), one(1, "dspt"), one(2, "gce"), one(3, "ce"), one(4, "mae")]
    together = train(engine, 100.0, runs, RECIPE)
    for number, run in enumerate(runs):
        alone = train(engine, 100.0, [run], RECIPE)
        torch.testing.assert_close(
            together.context[number], alone.context[0], rtol=0, atol=1e-9, check_dtype=False
        )
        for a, b in zip(together.metrics[number], alone.metrics[0], strict=True):
            known = b.model_dump(exclude_none=True)
            assert a.model_dump(exclude_none=True) == pytest.approx(known, rel=1e-6)
    assert len({record[-1].train_loss for record in together.metrics}) == 5


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_going_on_from_any_epoch_gives_the_identical_result(stop: int, views: int) -> None:
    runs = [small_run(10, seed, loss, views) for seed, loss in ((0, "dspt"), (7, "ce"))]
    states: list[TrainingState] = []
    whole = train(small_engine, SCALE, runs, RECIPE, on_epoch=states.append)
    assert [state.epoch for state in states] == [0, 1, 2, 3, 4]
    assert [len(state.metrics[0]) for state in states] == [1, 2, 3, 4, 5]
    again = train(small_engine, SCALE, runs, RECIPE, state=states[stop])
    assert same(again, whole)
    assert len(states[stop].metrics[0]) == stop + 1, "the given state was changed"


METHODS = ("elr", "nlprompt", "joapr")


def method_run(
    name: str, n: int = 24, seed: int = 1, dtype: torch.dtype = torch.float32
) -> TrainingRun:
    run = small_run(n, seed, draws_from=seed)
    return replace(
        run,
        features=run.features.to(dtype),
        test_features=run.test_features.to(dtype),
        objective=build_objective(name, {}, run.given, CLASSES, seed),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [0, 2, 4, 5])
def test_a_method_with_a_memory_goes_on_to_the_identical_result(
    stop: int, method: str, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 7})
    states: list[TrainingState] = []
    whole = train(small_engine, SCALE, [method_run(method)], recipe, on_epoch=states.append)
    save_checkpoint(tmp_path / "kept", states[stop], "me")
    kept = load_checkpoint(tmp_path / "kept", "me", torch.device("cpu"))
    again = train(small_engine, SCALE, [method_run(method)], recipe, state=kept)
    assert same(again, whole)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_side_by_side_equals_the_method_alone(method: str) -> None:
    def engine(context: Tensor) -> Tensor:
        draws = torch.Generator().manual_seed(5)
        weights = torch.randn(CLASSES, VECTORS * WIDTH, DIM, generator=draws).double()
        flat = context.double().flatten(1)
        return F.normalize(torch.einsum("kw,cwd->kcd", flat, weights).tanh(), dim=-1)

    wide = torch.float64
    runs = [method_run(method, seed=seed, dtype=wide) for seed in (1, 2)]
    runs += [method_run("dspt", seed=3, dtype=wide), method_run("ce", seed=4, dtype=wide)]
    together = train(engine, SCALE, runs, RECIPE)
    for number, run in enumerate(runs):
        alone = train(engine, SCALE, [run], RECIPE)
        torch.testing.assert_close(together.context[number], alone.context[0], rtol=1e-6, atol=1e-6)
    assert not torch.equal(together.context[0], together.context[1])


def test_training_leaves_the_callers_objective_as_it_was() -> None:
    run = method_run("elr")
    first = train(small_engine, SCALE, [run], RECIPE)
    assert not run.objective.state()["memory"].any()
    assert same(train(small_engine, SCALE, [run], RECIPE), first)


def test_the_seed_decides_and_nothing_else_does() -> None:
    first = train(small_engine, SCALE, [small_run(seed=0)], RECIPE)
    torch.manual_seed(99)
    assert same(train(small_engine, SCALE, [small_run(seed=0)], RECIPE), first)
    other = train(small_engine, SCALE, [small_run(seed=1)], RECIPE)
    assert not torch.equal(other.context, first.context)


def test_true_and_test_labels_do_not_touch_training() -> None:
    run = small_run(loss="dspt")
    plain = train(small_engine, SCALE, [run], RECIPE)
    for changed in (
        replace(run, true=None),
        replace(run, true=run.given),
        replace(run, test_labels=(run.test_labels + 1) % CLASSES),
        replace(run, test_features=-run.test_features),
    ):
        assert torch.equal(train(small_engine, SCALE, [changed], RECIPE).context, plain.context)


def recording(seen: list[list[int]]) -> PerSampleLoss:
    """Cross-entropy that notes the labels of every batch."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        if len(target) < 90:  # metrics look at all samples at once
            seen.append(sorted(target.tolist()))
        return F.cross_entropy(logits, target, reduction="none")

    return loss


def test_the_last_incomplete_batch_is_left_out_and_comes_back() -> None:
    batches: list[list[int]] = []
    steps: list[tuple[int, int]] = []
    run = small_run(10, loss=recording(batches), classes=CLASSES)
    run = replace(run, true=None)
    train(
        small_engine,
        SCALE,
        [run],
        Recipe(epochs=6, batch_size=4),
        on_step=lambda done, total: steps.append((done, total)),
    )
    assert [len(batch) for batch in batches] == [4] * 12
    assert steps == [(i, 12) for i in range(1, 13)]
    left_out = {int(i) for e in range(6) for i in keyed_order(1, f"batches/{e}", range(10))[8:]}
    assert len(left_out) > 4  # not always the same two


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    batches: list[list[int]] = []
    run = replace(small_run(5, loss=recording(batches)), true=None)
    train(small_engine, SCALE, [run], Recipe(epochs=3, batch_size=32))
    assert batches == [sorted(run.given.tolist())] * 3


def test_every_sample_is_seen_once_an_epoch() -> None:
    batches: list[list[int]] = []
    run = replace(small_run(12, loss=recording(batches)), true=None)
    run = with_labels(run, torch.arange(12) % CLASSES)
    train(small_engine, SCALE, [run], RECIPE)
    for epoch in range(4):
        labels = [label for batch in batches[3 * epoch : 3 * epoch + 3] for label in batch]
        assert sorted(labels) == sorted(run.given.tolist())


def test_with_views_training_never_sees_the_plain_picture() -> None:
    run = replace(small_run(8, views=3), true=None)
    plain = train(small_engine, SCALE, [run], RECIPE)
    run.features[:, 0] = float("nan")
    blind = train(small_engine, SCALE, [run], RECIPE)
    assert torch.equal(blind.context, plain.context)


@pytest.mark.parametrize("view", [1, 2])
def test_with_views_training_sees_every_augmented_one(view: int) -> None:
    run = replace(small_run(8, views=3), true=None)
    run.features[:, view] = float("nan")
    with pytest.raises(DivergedError):
        train(small_engine, SCALE, [run], RECIPE)


def test_divergence_is_an_error_that_names_the_remedy() -> None:
    with pytest.raises(DivergedError, match=r"lower recipe\.lr") as caught:
        train(small_engine, SCALE, [small_run()], Recipe(epochs=9, lr=1e38, weight_decay=10.0))
    assert len(str(caught.value).splitlines()) == 1


def test_one_diverging_run_is_noticed_among_others() -> None:
    bad = small_run(loss=lambda logits, target: logits.sum(1) * float("inf"))
    with pytest.raises(DivergedError):
        train(small_engine, SCALE, [small_run(), replace(bad, true=None)], RECIPE)


def test_runs_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        train(small_engine, SCALE, [small_run(8), small_run(12)], RECIPE)
