"""Which given labels are probably wrong: evidence for every sample, none of it from a model that
was trained on the sample's own label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from dspt.audit.prompts import LEARNERS, out_of_fold_prompts
from dspt.backbones import Backbone
from dspt.correction import MIN_SAMPLES, Correction, correct
from dspt.correction.constants import CONSTANTS
from dspt.correction.folds import stratified_folds
from dspt.errors import UserError
from dspt.losses import suppression
from dspt.progress import Progress, Silent

EVIDENCE = {
    "suspicion": "doubt, had the nearest pictures a say in it; the default ranking",
    "doubt": "1 - P(true label = given label) by the noise channel; sums to the estimated number",
    "neighbours": "share of the most similar pictures' corrected labels that is another class",
    "suppression": "share of cross-entropy's gradient that DSPT refuses, out-of-fold DSPT prompt",
    "margin": "best other class against the given one, mean log-probability of the prompts",
    "disagreement": "share of out-of-fold prompts and zero-shot that prefer another class",
    "zero_shot": "1 - probability of the given label under the untrained model",
}
"""What is measured of every sample; higher means more suspicious."""


@dataclass(frozen=True)
class Audit:
    """Evidence for every sample, in the order of the samples.

    Attributes:
        scores: by name of :data:`EVIDENCE`, [n] each.
        proposed: most probable true class, [n]; the given one where it stands.
        confidence: its probability, [n].
        correction: noise rate, transition and posterior.
        prompt_logits: scaled out-of-fold logits [n, C] of each learner's prompts, by its name.
    """

    scores: dict[str, np.ndarray]
    proposed: np.ndarray
    confidence: np.ndarray
    correction: Correction
    prompt_logits: dict[str, np.ndarray]

    @property
    def probabilities(self) -> np.ndarray:
        """Pooled out-of-fold P(true = c | picture), [n, C]: what cleanlab asks for."""
        return self.correction.probabilities

    def order(self, by: str = "suspicion") -> np.ndarray:
        """Samples from the most to the least suspicious; ties keep their order."""
        return np.argsort(-self.scores[by], kind="stable")


def audit_labels(
    backbone: Backbone,
    class_names: tuple[str, ...],
    features: Tensor,
    given: Tensor,
    template: str,
    *,
    seed: int = 1,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Audit:
    """Measure how probable it is that each given label is wrong.

    Args:
        backbone: frozen model.
        class_names: C names.
        features: L2-normalised image features, [n, D].
        given: labels that may be wrong, [n].
        template: zero-shot prompt with ``{}`` for the class name.
        seed: of folds, starts and batches.
        progress: where to report to.
        checkpoint: file that keeps the unfinished training of the prompts, so that the same call
            goes on from it; the caller removes it. None for no such file.

    Raises:
        UserError: with too few samples to be judged by others.
    """
    progress = progress or Silent()
    if len(given) < MIN_SAMPLES:
        raise UserError(
            f"audit: {len(given)} pictures are too few to judge each by the others; give at least "
            f"{MIN_SAMPLES}"
        )
    labels = given.cpu().numpy()
    untrained = backbone.zero_shot_features(class_names, template)
    anchor = (backbone.logit_scale * features @ untrained.t()).double().cpu().numpy()
    fold = stratified_folds(labels, CONSTANTS.folds, seed)
    prompts = out_of_fold_prompts(
        backbone, class_names, features, given, fold, seed, progress, checkpoint
    )
    with progress.task("noise channel") as advance:
        correction = correct(
            features.double().cpu().numpy(), labels, anchor, seed=seed, on_progress=advance
        )
    rows = np.arange(len(labels))
    log_p = np.log(np.clip(softmax(prompts, axis=-1), 1e-300, None)).mean(axis=0)
    others = log_p.copy()
    others[rows, labels] = -np.inf
    opinions = np.concatenate([prompts, anchor[None]]).argmax(axis=-1)
    names = [learner.name for learner in LEARNERS]
    return Audit(
        scores={
            "suspicion": correction.suspicion,
            "doubt": 1 - correction.posterior[rows, labels],
            "neighbours": correction.neighbours,
            "suppression": suppression(
                torch.from_numpy(prompts[names.index("dspt")]), torch.from_numpy(labels)
            ).numpy(),
            "margin": others.max(axis=1) - log_p[rows, labels],
            "disagreement": (opinions != labels).mean(axis=0),
            "zero_shot": 1 - softmax(anchor, axis=1)[rows, labels],
        },
        proposed=correction.posterior.argmax(axis=1),
        confidence=correction.posterior.max(axis=1),
        correction=correction,
        prompt_logits=dict(zip(names, prompts, strict=True)),
    )
