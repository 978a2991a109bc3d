"""Which given labels the trained prompt refuses."""

from __future__ import annotations

import torch
from torch import Tensor

from dspt.losses import suppression
from dspt.result import Suspect


def rank_suspects(
    logits: Tensor,
    zero_shot_logits: Tensor,
    given: Tensor,
    true: Tensor | None,
    keys: list[str],
    posterior: Tensor | None = None,
) -> list[Suspect]:
    """Training samples ordered by how much gradient DSPT refuses their given label.

    With a posterior they are ordered by its doubt in the given label, and the probabilities are
    the posterior's.

    Args:
        logits: scaled logits of the trained prompt, [n, C].
        zero_shot_logits: of the untrained model, [n, C].
        given: labels that training saw, [n].
        true: where they are known, [n].
        keys: ids of the pictures, n of them.
        posterior: P(true = c | picture, given label) of a method that estimates it, [n, C].
    """
    refused = suppression(logits.double(), given)
    probabilities = logits.double().softmax(dim=-1) if posterior is None else posterior
    top, proposed = probabilities.max(dim=-1)
    given_p = probabilities.gather(1, given[:, None])[:, 0]
    zero_shot = zero_shot_logits.argmax(dim=-1)
    score = refused if posterior is None else 1 - given_p
    order = torch.argsort(score, descending=True, stable=True).tolist()
    return [
        Suspect(
            id=keys[i],
            given=int(given[i]),
            proposed=int(proposed[i]),
            zero_shot=int(zero_shot[i]),
            true=None if true is None else int(true[i]),
            probability_given=float(given_p[i]),
            probability_proposed=float(top[i]),
            suppression=float(refused[i]),
        )
        for i in order
    ]
