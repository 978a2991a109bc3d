"""What every table is read against: the untrained model, and a linear probe without any prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dspt.seeding import keyed_order

if TYPE_CHECKING:
    from dspt.backbones import Backbone

PROBE_GRID = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
PROBE_FOLDS = 4
ABSENT = -1e4  # bias of a class that no given label names: never predicted, yet finite


@dataclass(frozen=True)
class LinearHead:
    """Logits are ``features @ weight.T + bias``; weight [C, D], bias [C], fp32."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LabelledFeatures:
    """What a method without a prompt may use.

    Attributes:
        features: L2-normalised image features of the training pictures, [N, D].
        given: their labels, [N].
        class_names: C names.
        template: the data set's hand-written prompt.
        backbone: frozen model.
        seed: of everything drawn.
        on_progress: told of (steps done, steps in all) by a method that takes long.
    """

    features: Tensor
    given: Tensor
    class_names: Sequence[str]
    template: str
    backbone: Backbone
    seed: int
    on_progress: Callable[[int, int], None] | None = None


class ZeroShot:
    """The untrained model with one hand-written template.

    Source: CLIP, Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021; the template of each data set is CoOp's.
    """

    def __call__(self, data: LabelledFeatures) -> LinearHead:
        """Class features of the template, times the logit scale."""
        features = data.backbone.zero_shot_features(data.class_names, data.template)
        return _head(data.backbone, features)


class ZeroShotEnsemble:
    """The untrained model with the mean class feature of CLIP's 80 ImageNet templates.

    Source: CLIP, Radford et al., ICML 2021, section 3.1.4; the templates are open_clip's copy.
    """

    def __call__(self, data: LabelledFeatures) -> LinearHead:
        """Normalised mean of the normalised class features, times the logit scale."""
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        features = torch.stack(
            [
                data.backbone.zero_shot_features(data.class_names, template("{}"))
                for template in OPENAI_IMAGENET_TEMPLATES
            ]
        )
        return _head(data.backbone, torch.nn.functional.normalize(features.mean(0), dim=-1))


def _head(backbone: Backbone, features: Tensor) -> LinearHead:
    return LinearHead(backbone.logit_scale * features, features.new_zeros(len(features)))


class LinearProbe:
    """Logistic regression on the image features; no text, no prior.

    Source: CLIP, Radford et al., ICML 2021, section 3.2 and appendix A.3 (L-BFGS, L2 penalty); the
    solver is scikit-learn's.

    Args:
        c: inverse strength of the L2 penalty; 0 chooses it from a grid by 4-fold cross-validation
            on the given labels.

    Raises:
        ValueError: when ``c`` is negative.
    """

    def __init__(self, *, c: float = 0.0) -> None:
        if not 0 <= c < float("inf"):
            raise ValueError(f"c must be at least 0, not {c}")
        self.c = c

    def __call__(self, data: LabelledFeatures) -> LinearHead:
        """Fit on the given labels; a class without any is never predicted."""
        x = data.features.double().cpu().numpy()
        y = data.given.cpu().numpy()
        present = np.unique(y)
        weight = np.zeros((len(data.class_names), x.shape[1]))
        bias = np.full(len(data.class_names), ABSENT)
        if len(present) == 1:
            bias[present] = 0.0
        else:
            fitted = _regression(self.c or _chosen_c(x, y, data.seed)).fit(x, y)
            if len(present) == 2:  # one row: the log odds of the second class
                weight[present[1]], bias[present] = fitted.coef_[0], (0.0, fitted.intercept_[0])
            else:
                weight[present], bias[present] = fitted.coef_, fitted.intercept_
        device = data.features.device
        return LinearHead(
            torch.from_numpy(weight).float().to(device), torch.from_numpy(bias).float().to(device)
        )


def _chosen_c(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """Best of :data:`PROBE_GRID` in accuracy on held-out folds; the smaller of equals."""
    order = keyed_order(seed, "linear-probe/folds", range(len(y)))
    fold = np.empty(len(y), dtype=np.int64)
    fold[order] = np.arange(len(y)) % PROBE_FOLDS
    hits = dict.fromkeys(PROBE_GRID, 0)
    for number in range(PROBE_FOLDS):
        kept, held = fold != number, fold == number
        if not held.any() or len(np.unique(y[kept])) < 2:
            continue
        for c in PROBE_GRID:
            hits[c] += int((_regression(c).fit(x[kept], y[kept]).predict(x[held]) == y[held]).sum())
    return max(PROBE_GRID, key=lambda c: (hits[c], -c))


def _regression(c: float):  # type: ignore[no-untyped-def]
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=1000)
