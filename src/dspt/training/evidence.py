"""What is measured about a run after every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dspt.evaluation import share
from dspt.prompts import TextEngine
from dspt.result import EpochMetrics, Evidence, SampleEvidence, UpdateEvidence
from dspt.training.objective import Batch
from dspt.training.run import TrainingRun

BINS = 20
"""Bins of the histogram of the given label's probability."""

STEPS_PER_UPDATE_EVIDENCE = 16
"""Two more backward passes cost about as much as one step: one for every 16 steps, at most."""


def measure_epoch(
    run: TrainingRun,
    class_features: Tensor,
    logit_scale: float,
    *,
    epoch: int,
    lr: float | None,
    train_loss: float | None,
    update: UpdateEvidence | None = None,
) -> EpochMetrics:
    """The run with its prompt as it stands.

    Args:
        run: what was trained.
        class_features: of the prompt, [C, D].
        logit_scale: factor on the cosine similarity.
        epoch: number of finished epochs.
        lr: learning rate of the last one.
        train_loss: mean over its batches.
        update: from :func:`features_and_updates`, where it was measured.
    """
    plain = run.features[:, 0]
    logits = logit_scale * plain @ class_features.t()
    predicted = logits.argmax(dim=1)
    clean = wrong = norms = None
    if run.true is not None or run.zero_shot is not None:
        norms = _logit_gradient_norms(run, logits, class_features, logit_scale)
    if run.true is not None and norms is not None:
        right = run.given == run.true
        clean, wrong = _mean(norms[right]), _mean(norms[~right])
    test = None
    if len(run.test_labels):
        test_logits = run.test_features @ class_features.t()
        test = share(test_logits.argmax(dim=1) == run.test_labels)
    evidence = None
    if run.zero_shot is not None and norms is not None:
        evidence = _evidence(run, run.zero_shot, logits, predicted, norms, update)
    return EpochMetrics(
        epoch=epoch,
        lr=lr,
        train_loss=train_loss,
        accuracy_given=share(predicted == run.given),
        accuracy_true=None if run.true is None else share(predicted == run.true),
        accuracy_test=test,
        gradient_norm_clean=clean,
        gradient_norm_mislabelled=wrong,
        evidence=evidence,
    )


def _logit_gradient_norms(
    run: TrainingRun, logits: Tensor, class_features: Tensor, logit_scale: float
) -> Tensor:
    """Norm of each sample's own gradient by its logits, [N]."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_(True)
        values = _values(run, leaf, class_features, logit_scale)
        # Samples do not mix, so the gradient of the sum holds every sample's own gradient.
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return gradient.norm(dim=-1)


def _values(run: TrainingRun, logits: Tensor, class_features: Tensor, logit_scale: float) -> Tensor:
    """Loss of every training sample as the run's objective sees it now, [N]."""
    rows = torch.arange(len(logits), device=logits.device)
    batch = Batch(rows, run.features[:, 0], logits, class_features, logit_scale, None)
    return run.objective.values(batch)


def _evidence(
    run: TrainingRun,
    zero_shot: Tensor,
    logits: Tensor,
    predicted: Tensor,
    norms: Tensor,
    update: UpdateEvidence | None,
) -> Evidence:
    p_given = torch.softmax(logits, dim=-1).gather(1, run.given[:, None])[:, 0].double()
    bins = (p_given * BINS).long().clamp(max=BINS - 1)
    # One table, read once: a GPU is waited for once an epoch and set of samples.
    table = torch.stack(
        [
            norms.double(),
            p_given,
            (predicted == run.given).double(),
            (predicted == zero_shot).double(),
            torch.zeros_like(p_given) if run.true is None else (predicted == run.true).double(),
        ],
        dim=1,
    )

    def of(rows: Tensor) -> SampleEvidence:
        mine = table[rows]
        n = len(mine)
        norm, p, given, zero, true = (mine.sum(dim=0) / n).tolist() if n else [None] * 5
        return SampleEvidence(
            n=n,
            gradient_norm=norm,
            probability_given=p,
            probability_histogram=torch.bincount(bins[rows], minlength=BINS).tolist(),
            as_given=given,
            as_true=None if run.true is None else true,
            as_zero_shot=zero,
        )

    right = None if run.true is None else run.given == run.true
    return Evidence(
        all=of(torch.ones_like(run.given, dtype=torch.bool)),
        clean=None if right is None else of(right),
        mislabelled=None if right is None else of(~right),
        update=update,
    )


def update_is_due(epoch: int, epochs: int, steps: int) -> bool:
    """Whether the gradient at the context vectors is measured after ``epoch`` finished epochs.

    At the start, at the end, and every n-th epoch, n the least that lets 16 steps pass in between:
    every epoch where one has 16 steps or more.

    Args:
        epoch: from 0, the start.
        epochs: in all.
        steps: of an epoch.
    """
    every = -(-STEPS_PER_UPDATE_EVIDENCE // steps)
    return epoch % every == 0 or epoch == epochs


def features_and_updates(
    engine: TextEngine,
    context: Tensor,
    runs: Sequence[TrainingRun],
    logit_scale: float,
    due: bool,
) -> tuple[Tensor, list[UpdateEvidence | None]]:
    """Class features of K prompts as they stand and, if due, whose gradient moves their context.

    Both parts' gradients come from one call of the engine for all runs: two backward passes.

    Args:
        engine: context vectors -> class features.
        context: [K, M, W] or [K, C, M, W].
        runs: K runs; those without ``zero_shot`` are not asked for evidence.
        logit_scale: factor on the cosine similarity.
        due: whether to measure gradients at all.

    Returns:
        Features [K, C, D] without gradient, and a record or None for each run.
    """
    asked = [due and run.zero_shot is not None for run in runs]
    with torch.set_grad_enabled(any(asked)):
        leaf = context.detach().requires_grad_(any(asked))
        features = engine(leaf)
    standing = features.detach()
    if not any(asked):
        return standing, [None] * len(runs)
    # By the class features first, for each run; then all runs together through the text tower.
    parts = torch.stack(
        [
            _gradients_by_features(run, own, logit_scale)
            if wanted
            else own.new_zeros(2, *own.shape)
            for run, own, wanted in zip(runs, standing, asked, strict=True)
        ],
        dim=1,
    )
    (clean,) = torch.autograd.grad(features, leaf, parts[0], retain_graph=True)
    (wrong,) = torch.autograd.grad(features, leaf, parts[1])
    return standing, [
        _update(c.double().flatten(), w.double().flatten(), run.true is not None)
        if wanted
        else None
        for run, c, w, wanted in zip(runs, clean, wrong, asked, strict=True)
    ]


def _gradients_by_features(run: TrainingRun, class_features: Tensor, logit_scale: float) -> Tensor:
    """Of the mean loss by the class features: clean part and mislabelled part, [2, C, D].

    Where the truth is unknown, the first holds all samples.
    """
    with torch.enable_grad():
        leaf = class_features.detach().requires_grad_(True)
        logits = logit_scale * run.features[:, 0] @ leaf.t()
        values = _values(run, logits, leaf, logit_scale)
        clean = torch.ones_like(values) if run.true is None else (run.given == run.true).to(values)
        gradients = [
            torch.autograd.grad(values, leaf, part / len(values), retain_graph=True)[0]
            for part in (clean, 1 - clean)
        ]
    return torch.stack(gradients)


def _update(clean: Tensor, wrong: Tensor, known: bool) -> UpdateEvidence:
    """From the parts' gradients, each [n]."""
    whole = clean + wrong
    c, w, norm, between, along = torch.stack(
        [clean.norm(), wrong.norm(), whole.norm(), clean @ wrong, wrong @ whole]
    ).tolist()
    if not known:
        return UpdateEvidence(
            norm=norm,
            norm_clean=None,
            norm_mislabelled=None,
            cosine=None,
            mislabelled_share=None,
            mislabelled_projection=None,
        )
    return UpdateEvidence(
        norm=norm,
        norm_clean=c,
        norm_mislabelled=w,
        cosine=between / (c * w) if c * w else None,
        mislabelled_share=w / (c + w) if c + w else None,
        mislabelled_projection=along / norm**2 if norm else None,
    )


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if values.numel() else None
