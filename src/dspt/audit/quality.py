"""How good an audit was, where the true labels are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dspt.audit.record import EvidenceQuality, Quality


def measure_quality(
    scores: Mapping[str, np.ndarray], given: np.ndarray, true: np.ndarray
) -> Quality:
    """Hold every kind of evidence against the labels that are really wrong.

    Args:
        scores: by name of the evidence, [n] each; higher is more suspicious.
        given, true: labels, [n].
    """
    wrong = given != true
    count = int(wrong.sum())
    ranked = 0 < count < len(wrong)
    return Quality(
        n_wrong=count,
        noise_rate=count / len(wrong),
        evidence={name: _ranking(score, wrong) for name, score in scores.items()} if ranked else {},
    )


def _ranking(score: np.ndarray, wrong: np.ndarray) -> EvidenceQuality:
    from sklearn.metrics import average_precision_score, roc_auc_score

    first = np.argsort(-score, kind="stable")[: wrong.sum()]
    return EvidenceQuality(
        auroc=float(roc_auc_score(wrong, score)),
        average_precision=float(average_precision_score(wrong, score)),
        precision_at_true_rate=float(wrong[first].mean()),
    )
