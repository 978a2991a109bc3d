"""The self-adjusting method: no noise rate to give, no loss to choose, nothing to tune."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dspt.correction import MIN_SAMPLES, Correction, correct
from dspt.errors import UserError
from dspt.methods.bounds import LabelledFeatures, LinearHead


@dataclass(frozen=True)
class CorrectedHead(LinearHead):
    """A linear head and what was found out about the labels on the way."""

    correction: Correction


class Auto:
    """Corrects the labels first: zero-shot, linear heads held near it, and a noise channel.

    Heads of seven strengths, which never saw the labels they judge, and zero-shot are weighed by
    how well they explain the given labels through an estimated noise channel; the labels' posterior
    trains the next heads, three times over. The result is one linear head, a product of these
    experts and of heads that learned the corrected labels without a prior. It trains no prompt: the
    derivation, what breaks it and what it costs are in ``docs/auto.md``.

    Source: this project; the channel is forward correction (Patrini et al., "Making Deep Neural
    Networks Robust to Label Noise", CVPR 2017) with EM, as Dawid and Skene (1979) did for raters.
    """

    def __call__(self, data: LabelledFeatures) -> CorrectedHead:
        """Estimate and fit.

        Raises:
            UserError: with fewer than eight pictures.
        """
        if len(data.given) < MIN_SAMPLES:
            raise UserError(
                f"method: auto judges each picture by the others and needs at least {MIN_SAMPLES}, "
                f"not {len(data.given)}; add pictures or take another method"
            )
        device = data.features.device
        zero_shot = data.backbone.logit_scale * data.backbone.zero_shot_features(
            data.class_names, data.template
        )
        anchor = data.features @ zero_shot.t()
        correction = correct(
            data.features.cpu().numpy(),
            data.given.cpu().numpy(),
            anchor.cpu().numpy(),
            seed=data.seed,
            on_progress=data.on_progress,
        )
        change = torch.from_numpy(correction.classifier.change.T).float().to(device)
        return CorrectedHead(
            weight=correction.classifier.anchor_weight * zero_shot + change,
            bias=zero_shot.new_zeros(len(zero_shot)),
            correction=correction,
        )
