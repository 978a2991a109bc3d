"""Evidence: each number against an independent computation, and no trace of it in the prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import write_model
from torch import Tensor

from dspt.backbones import load_backbone, take_text_tower
from dspt.losses import per_sample_loss
from dspt.methods import build_objective
from dspt.prompts import TextEngine, build_layout
from dspt.prompts.plain import plain_features
from dspt.prompts.shared_prefix import SharedPrefixEngine
from dspt.result import EpochMetrics, Evidence, UpdateEvidence
from dspt.training.checkpoint import load_checkpoint, save_checkpoint
from dspt.training.evidence import BINS, features_and_updates, update_is_due
from dspt.training.loop import TrainingState, train
from dspt.training.objective import Objective
from dspt.training.recipe import Recipe
from dspt.training.run import TrainingRun

CLASSES, VECTORS, WIDTH, DIM = 4, 3, 5, 6
SCALE = 20.0
RECIPE = Recipe(epochs=4, batch_size=2, lr=0.05, warmup_lr=0.01)
METHODS = ("ce", "gce", "mae", "dspt", "nlprompt", "joapr", "elr")


def small_engine(context: Tensor) -> Tensor:
    """A differentiable stand-in for a text tower, in float64: [K, M, W] -> [K, C, D]."""
    draws = torch.Generator().manual_seed(5)
    weights = torch.randn(CLASSES, VECTORS * WIDTH, DIM, generator=draws).double()
    flat = context.double().flatten(1)
    return F.normalize(torch.einsum("kw,cwd->kcd", flat, weights).tanh(), dim=-1)


def small_run(
    method: str = "dspt", n: int = 32, seed: int = 1, *, dim: int = DIM, wrong: int = 11
) -> TrainingRun:
    draws = torch.Generator().manual_seed(seed)
    true = torch.arange(n) % CLASSES
    given = true.clone()
    given[:wrong] = (given[:wrong] + 1 + torch.arange(wrong) % (CLASSES - 1)) % CLASSES
    return TrainingRun(
        features=F.normalize(torch.randn(n, 1, dim, generator=draws), dim=-1).double(),
        given=given,
        true=true,
        test_features=torch.zeros(0, dim, dtype=torch.float64),
        test_labels=torch.zeros(0, dtype=torch.long),
        context=torch.randn(VECTORS, WIDTH, generator=draws),
        objective=build_objective(method, {}, given, CLASSES, seed),
        seed=seed,
        zero_shot=torch.randint(CLASSES, (n,), generator=draws),
    )


def silent(run: TrainingRun) -> TrainingRun:
    return replace(run, zero_shot=None)


def last(run: TrainingRun, recipe: Recipe = RECIPE) -> tuple[TrainingState, Evidence]:
    state = train(small_engine, SCALE, [run], recipe)
    evidence = state.metrics[0][-1].evidence
    assert evidence is not None
    return state, evidence


def part_gradient(run: TrainingRun, context: Tensor, rows: Tensor) -> Tensor:
    """Of the sum over ``rows`` of the loss, over all samples, sample by sample by autograd."""
    total = torch.zeros(context.numel(), dtype=torch.float64)
    for row in rows.nonzero()[:, 0]:
        leaf = context.double().clone().requires_grad_(True)
        logits = SCALE * run.features[row, 0] @ small_engine(leaf[None])[0].T
        loss = run.objective.loss(logits[None], run.given[row : row + 1])
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        total += gradient.flatten()
    return total / len(run.given)


@pytest.mark.parametrize("method", ["ce", "gce", "mae", "dspt"])
def test_gradient_at_the_context_is_the_sum_of_the_samples_own(method: str) -> None:
    run = small_run(method)
    state, evidence = last(run)
    wrong = run.given != run.true
    w = part_gradient(run, state.context[0], wrong)
    c = part_gradient(run, state.context[0], ~wrong)
    update = evidence.update
    assert update is not None
    assert update.norm_clean == pytest.approx(float(c.norm()), rel=1e-5)
    assert update.norm_mislabelled == pytest.approx(float(w.norm()), rel=1e-5)
    assert update.norm == pytest.approx(float((c + w).norm()), rel=1e-5)
    cosine = float(F.cosine_similarity(c, w, dim=0))
    assert update.cosine == pytest.approx(cosine, rel=1e-4, abs=1e-6)
    assert update.mislabelled_share == pytest.approx(float(w.norm() / (c.norm() + w.norm())))
    along = float(w @ (c + w) / (c + w).dot(c + w))
    assert update.mislabelled_projection == pytest.approx(along, rel=1e-4, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), wrong=st.integers(0, 32), method=st.sampled_from(METHODS))
def test_shares_of_both_parts_sum_to_one(seed: int, wrong: int, method: str) -> None:
    """Exchanging the parts gives the other part's shares."""
    run = small_run(method, seed=seed, wrong=wrong)
    assert run.true is not None
    right = run.given == run.true
    other = replace(run, true=torch.where(right, (run.given + 1) % CLASSES, run.given))

    def measure(one: TrainingRun) -> UpdateEvidence:
        _, (update,) = features_and_updates(small_engine, one.context[None], [one], SCALE, True)
        assert update is not None
        return update

    first, second = measure(run), measure(other)
    assert first.mislabelled_share is not None
    assert second.mislabelled_share is not None
    assert 0 <= first.mislabelled_share <= 1
    assert first.mislabelled_share + second.mislabelled_share == pytest.approx(1, abs=1e-9)
    assert first.mislabelled_projection is not None
    assert second.mislabelled_projection is not None
    total = first.mislabelled_projection + second.mislabelled_projection
    assert total == pytest.approx(1, abs=1e-6)
    assert first.norm == pytest.approx(second.norm)


def test_samples_are_counted_and_shared_out_by_hand() -> None:
    run = small_run("dspt")
    state, evidence = last(run)
    assert run.true is not None
    assert run.zero_shot is not None
    logits = SCALE * run.features[:, 0] @ small_engine(state.context)[0].T
    p = logits.softmax(1)
    says = logits.argmax(1).tolist()
    parts: dict[str, list[int]] = {"all": [], "clean": [], "mislabelled": []}
    for i, (label, truth) in enumerate(zip(run.given.tolist(), run.true.tolist(), strict=True)):
        parts["all"].append(i)
        parts["clean" if label == truth else "mislabelled"].append(i)
    for name, rows in parts.items():
        part = getattr(evidence, name)
        p_given = [float(p[i, run.given[i]]) for i in rows]
        counts = [0] * BINS
        for value in p_given:
            counts[min(int(value * BINS), BINS - 1)] += 1
        assert part.n == len(rows)
        assert part.probability_histogram == counts
        assert part.probability_given == pytest.approx(sum(p_given) / len(rows), rel=1e-6)
        for field, labels in (
            ("as_given", run.given),
            ("as_true", run.true),
            ("as_zero_shot", run.zero_shot),
        ):
            hits = sum(says[i] == int(labels[i]) for i in rows)
            assert getattr(part, field) == pytest.approx(hits / len(rows))
    record = state.metrics[0][-1]
    assert evidence.clean is not None
    assert evidence.mislabelled is not None
    assert evidence.clean.gradient_norm == pytest.approx(record.gradient_norm_clean)
    assert evidence.mislabelled.gradient_norm == pytest.approx(record.gradient_norm_mislabelled)
    assert evidence.clean.as_given == evidence.clean.as_true
    assert evidence.all.as_given == pytest.approx(record.accuracy_given)


@pytest.mark.parametrize("n", [32, 37])
def test_histograms_hold_every_sample_even_at_the_ends(n: int) -> None:
    run = small_run("ce", n)
    # The scale makes the model certain: probabilities of exactly 0 and 1 occur.
    state = train(small_engine, 1e4, [run], RECIPE)
    for record in state.metrics[0]:
        evidence = record.evidence
        assert evidence is not None
        assert evidence.clean is not None
        assert evidence.mislabelled is not None
        both = zip(
            evidence.clean.probability_histogram,
            evidence.mislabelled.probability_histogram,
            strict=True,
        )
        assert [a + b for a, b in both] == evidence.all.probability_histogram
        assert sum(evidence.all.probability_histogram) == n
        assert evidence.all.probability_histogram[-1] > 0
        assert evidence.all.probability_histogram[0] > 0


@pytest.mark.parametrize("quiet_one", [False, True])
def test_runs_side_by_side_have_the_evidence_of_runs_alone(quiet_one: bool) -> None:
    runs = [small_run(method, seed=number) for number, method in enumerate(METHODS)]
    if quiet_one:
        runs[2] = silent(runs[2])
    together = train(small_engine, SCALE, runs, RECIPE)
    for number, run in enumerate(runs):
        alone = train(small_engine, SCALE, [run], RECIPE)
        for a, b in zip(together.metrics[number], alone.metrics[0], strict=True):
            assert (a.evidence is None) == (quiet_one and number == 2)
            assert flat(a.model_dump()) == pytest.approx(flat(b.model_dump()), rel=1e-4, abs=1e-6)


def flat(value: object, name: str = "") -> dict[str, float]:
    """Every number of nested records under its path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}.{key}").items()}
    if isinstance(value, list):
        return {k: v for i, part in enumerate(value) for k, v in flat(part, f"{name}.{i}").items()}
    return {} if value is None else {name: float(value)}  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [0, 2, 4])
def test_going_on_gives_the_identical_evidence(stop: int, method: str, tmp_path: Path) -> None:
    states: list[TrainingState] = []
    whole = train(small_engine, SCALE, [small_run(method)], RECIPE, on_epoch=states.append)
    save_checkpoint(tmp_path / "kept", states[stop], "me")
    kept = load_checkpoint(tmp_path / "kept", "me", torch.device("cpu"))
    again = train(small_engine, SCALE, [small_run(method)], RECIPE, state=kept)
    assert again.metrics == whole.metrics
    assert all(record.evidence is not None for record in whole.metrics[0])


def tower_engines(folder: Path) -> tuple[dict[str, TextEngine], int]:
    """The engine in one piece and in chunks, and open_clip's own pass; width of the context."""
    backbone = load_backbone(write_model(folder / "model"), device="cpu")
    tower = take_text_tower(backbone.model)
    names = ["red", "dark green", "blue", "a rather long name"]
    layout = build_layout(backbone.tokenizer, names, VECTORS)
    return {
        "whole": SharedPrefixEngine(tower, layout, class_specific=False),
        "chunks": SharedPrefixEngine(tower, layout, class_specific=False, classes_at_once=2),
        "plain": lambda context: plain_features(backbone.model, layout, context),
    }, tower.width


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, TextEngine], int]:
    return tower_engines(tmp_path_factory.mktemp("towers"))


def tower_run(method: str, width: int, seed: int = 1) -> TrainingRun:
    run = small_run(method, seed=seed, dim=16)
    draws = torch.Generator().manual_seed(seed)
    return replace(
        run,
        features=run.features.float(),
        test_features=run.test_features.float(),
        context=0.02 * torch.randn(VECTORS, width, generator=draws),
    )


@pytest.mark.parametrize("name", ["whole", "chunks", "plain"])
def test_evidence_does_not_change_the_prompt(
    name: str, towers: tuple[dict[str, TextEngine], int]
) -> None:
    engines, width = towers
    recipe = RECIPE.model_copy(update={"epochs": 3})
    runs = [tower_run(method, width, number) for number, method in enumerate(METHODS)]
    with_it = train(engines[name], 100.0, runs, recipe)
    without = train(engines[name], 100.0, [silent(run) for run in runs], recipe)
    assert torch.equal(with_it.context, without.context)
    assert torch.equal(with_it.momentum, without.momentum)
    for a, b in zip(with_it.metrics, without.metrics, strict=True):
        assert [r.model_copy(update={"evidence": None}) for r in a] == b


def test_the_engine_in_chunks_gives_the_same_evidence(
    towers: tuple[dict[str, TextEngine], int],
) -> None:
    engines, width = towers
    runs = [tower_run("ce", width), tower_run("dspt", width, 2)]
    context = torch.stack([run.context for run in runs])
    found = {
        name: features_and_updates(engine, context, runs, 100.0, True)[1]
        for name, engine in engines.items()
    }
    for name in ("chunks", "plain"):
        for a, b in zip(found[name], found["whole"], strict=True):
            assert a is not None
            assert b is not None
            assert a.model_dump() == pytest.approx(b.model_dump(), rel=1e-3, abs=1e-6)


def test_without_truth_only_what_can_be_said_is_said() -> None:
    run = small_run("dspt")
    _, known = last(run)
    state, evidence = last(replace(run, true=None))
    assert evidence.clean is evidence.mislabelled is None
    assert evidence.all.as_true is None
    assert evidence.all.model_copy(update={"as_true": known.all.as_true}) == known.all
    update = evidence.update
    assert update is not None
    assert known.update is not None
    assert update.norm == pytest.approx(known.update.norm)
    assert update.norm_clean is update.norm_mislabelled is update.cosine is None
    assert update.mislabelled_share is update.mislabelled_projection is None
    record = state.metrics[0][-1]
    assert record.gradient_norm_clean is record.gradient_norm_mislabelled is None


def test_without_wrong_labels_their_part_is_empty() -> None:
    _, evidence = last(small_run("dspt", wrong=0))
    assert evidence.mislabelled is not None
    assert evidence.clean == evidence.all
    assert evidence.mislabelled.n == sum(evidence.mislabelled.probability_histogram) == 0
    assert evidence.mislabelled.as_given is evidence.mislabelled.gradient_norm is None
    assert evidence.update is not None
    assert evidence.update.cosine is None
    assert evidence.update.mislabelled_share == evidence.update.norm_mislabelled == 0


def test_a_gradient_of_zero_has_no_shares() -> None:
    run = small_run()
    still = Objective(lambda logits, target: 0 * logits.sum(dim=1), run.given, CLASSES, 1)
    _, evidence = last(replace(run, objective=still))
    assert evidence.update is not None
    assert evidence.update.norm == 0
    assert evidence.update.mislabelled_share is evidence.update.mislabelled_projection is None


@pytest.mark.parametrize(
    ("steps", "epochs", "measured"),
    [
        (16, 3, [0, 1, 2, 3]),
        (200, 2, [0, 1, 2]),
        (8, 5, [0, 2, 4, 5]),
        (13, 4, [0, 2, 4]),
        (1, 20, [0, 16, 20]),
    ],
)
def test_short_epochs_are_not_all_measured(steps: int, epochs: int, measured: list[int]) -> None:
    assert [e for e in range(epochs + 1) if update_is_due(e, epochs, steps)] == measured


def test_extra_passes_are_at_most_one_in_sixteen_steps() -> None:
    calls = [0]

    def counting(context: Tensor) -> Tensor:
        calls[0] += torch.is_grad_enabled()
        return small_engine(context)

    recipe = RECIPE.model_copy(update={"epochs": 9, "batch_size": 8})
    state = train(counting, SCALE, [small_run()], recipe)
    measured = [r.epoch for r in state.metrics[0] if r.evidence and r.evidence.update]
    assert measured == [0, 4, 8, 9]
    assert calls[0] == 9 * 4 + len(measured)


def test_records_without_evidence_are_still_read() -> None:
    state, _ = last(silent_record := small_run())
    record = state.metrics[0][-1]
    assert EpochMetrics.model_validate_json(record.model_dump_json()) == record
    old = json.loads(record.model_dump_json())
    del old["evidence"]
    assert EpochMetrics.model_validate(old).evidence is None
    quiet = train(small_engine, SCALE, [silent(silent_record)], RECIPE)
    assert all(r.evidence is None for r in quiet.metrics[0])


def test_methods_own_values_are_measured() -> None:
    """A partition changes whose gradient counts: NLPrompt's is that of its mixed loss."""
    run = small_run("nlprompt")
    objective = run.objective
    objective.begin_epoch(0, SCALE * run.features[:, 0] @ small_engine(run.context[None])[0].T)
    _, (update,) = features_and_updates(small_engine, run.context[None], [run], SCALE, True)
    assert update is not None
    clean = objective.clean  # type: ignore[attr-defined]
    assert bool(clean.any())
    assert not bool(clean.all())
    leaf = run.context.double().requires_grad_(True)
    logits = SCALE * run.features[:, 0] @ small_engine(leaf[None])[0].T
    ce, mae = (per_sample_loss(name)(logits, run.given) for name in ("ce", "mae"))
    (gradient,) = torch.autograd.grad((clean * ce + ~clean * mae).mean(), leaf)
    assert update.norm == pytest.approx(float(gradient.norm()), rel=1e-5)
