"""Which given labels the trained prompt refuses."""

from __future__ import annotations

import torch
from torch import Tensor

from dspt.losses import logit_gradient_norm, per_sample_loss
from dspt.result import Suspect


def rank_suspects(
    logits: Tensor, zero_shot_logits: Tensor, given: Tensor, true: Tensor | None, keys: list[str]
) -> list[Suspect]:
    """Training samples ordered by how much gradient DSPT refuses their given label.

    Args:
        logits: scaled logits of the trained prompt, [n, C].
        zero_shot_logits: of the untrained model, [n, C].
        given: labels that training saw, [n].
        true: where they are known, [n].
        keys: ids of the pictures, n of them.
    """
    full = logit_gradient_norm(per_sample_loss("ce"), logits.double(), given)
    kept = logit_gradient_norm(per_sample_loss("dspt"), logits.double(), given)
    # A sample at which cross-entropy itself has no gradient left agrees perfectly: nothing refused.
    suppression = torch.where(
        full > 1e-12, 1 - kept / full.clamp(min=1e-12), torch.zeros_like(full)
    )
    probabilities = logits.double().softmax(dim=-1)
    top, proposed = probabilities.max(dim=-1)
    given_p = probabilities.gather(1, given[:, None])[:, 0]
    zero_shot = zero_shot_logits.argmax(dim=-1)
    order = torch.argsort(suppression, descending=True, stable=True).tolist()
    return [
        Suspect(
            id=keys[i],
            given=int(given[i]),
            proposed=int(proposed[i]),
            zero_shot=int(zero_shot[i]),
            true=None if true is None else int(true[i]),
            probability_given=float(given_p[i]),
            probability_proposed=float(top[i]),
            suppression=min(1.0, max(0.0, float(suppression[i]))),
        )
        for i in order
    ]
