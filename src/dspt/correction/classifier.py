"""The classifier that remains: a product of experts, which is one linear head.

While labels are corrected every head is held near zero-shot, for only the prior tells a wrong label
from a right one. Once they are corrected the prior has done its work, and heads that start from
nothing learn what it does not know. Both kinds are weighed by how well they explain the given
labels of samples that they did not see, through the channel that was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dspt.correction.channel import sharpened, weigh_experts
from dspt.correction.heads import anchored_heads
from dspt.correction.nested import Judgement


@dataclass(frozen=True)
class Classifier:
    """Logits are ``anchor_weight * zero-shot's + features @ change``.

    Attributes:
        anchor_weight: share of zero-shot's logits that is left, 0 to 1.
        change: what is added to that share of the class embeddings, [D, C].
        weights: of zero-shot, the heads held near it and the free ones if there are any, [1 + S]
            or [1 + 2 S]; of a head and its sharpened copy together.
    """

    anchor_weight: float
    change: np.ndarray
    weights: np.ndarray

    def logits(self, features: np.ndarray, anchor: np.ndarray) -> np.ndarray:
        """Of any samples, from their features [n, D] and zero-shot logits [n, C]; [n, C]."""
        logits: np.ndarray = self.anchor_weight * anchor + features @ self.change
        return logits


def product_of_experts(
    features: np.ndarray,
    anchor: np.ndarray,
    given: np.ndarray,
    found: Judgement,
    free: np.ndarray | None,
) -> Classifier:
    """Train both kinds of heads on all corrected labels and average their logits.

    Args:
        features: L2-normalised image features, [n, D].
        anchor: zero-shot logits, [n, C].
        given: labels, int64 [n].
        found: the last judgement of these samples.
        free: p(c | x_i) of the free heads that did not see the samples, [S, n, C]; None for none.
    """
    starts = [anchor] if free is None else [anchor, np.zeros_like(anchor)]
    kinds = [found.heads] if free is None else [found.heads, free]
    copies = [sharpened(heads, factor) for heads in kinds for factor in found.copies]
    experts = np.concatenate([found.experts[:1], *copies])
    weights = weigh_experts(experts, given, found.channel.transition)
    by_copy = weights[1:].reshape(len(kinds), len(found.copies), len(found.strengths))
    # A sharpened copy has the same logits, that many times.
    votes = np.einsum("kcs,c->ks", by_copy, found.copies)
    total = weights[0] + votes.sum()
    heads = [
        anchored_heads(features, start, found.channel.posterior, found.strengths)
        for start in starts
    ]
    return Classifier(
        anchor_weight=float((weights[0] + votes[0].sum()) / total),
        change=np.tensordot(votes / total, np.stack(heads), axes=2),
        weights=np.concatenate([weights[:1], by_copy.sum(axis=1).ravel()]),
    )
