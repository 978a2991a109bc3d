"""dspt: prompt tuning for CLIP-like models that wrong labels cannot ruin.

The public names are loaded when first used, so ``import dspt`` costs nothing and the loss alone
needs only torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Backbone": "dspt.backbones",
    "DoubleSoftmaxLoss": "dspt.losses",
    "FitConfig": "dspt.configuration",
    "FittedRun": "dspt.outcome",
    "ImageDataset": "dspt.data",
    "NoiseSpec": "dspt.noise",
    "PromptClassifier": "dspt.estimator",
    "PromptModel": "dspt.model",
    "Recipe": "dspt.training.recipe",
    "RunResult": "dspt.result",
    "UserError": "dspt.errors",
    "audit_labels": "dspt.audit",
    "fit": "dspt.fitting",
    "load_backbone": "dspt.backbones",
    "load_dataset": "dspt.data",
}

if TYPE_CHECKING:
    from dspt.audit import audit_labels as audit_labels
    from dspt.backbones import Backbone as Backbone
    from dspt.backbones import load_backbone as load_backbone
    from dspt.configuration import FitConfig as FitConfig
    from dspt.data import ImageDataset as ImageDataset
    from dspt.data import load_dataset as load_dataset
    from dspt.errors import UserError as UserError
    from dspt.estimator import PromptClassifier as PromptClassifier
    from dspt.fitting import fit as fit
    from dspt.losses import DoubleSoftmaxLoss as DoubleSoftmaxLoss
    from dspt.model import PromptModel as PromptModel
    from dspt.noise import NoiseSpec as NoiseSpec
    from dspt.outcome import FittedRun as FittedRun
    from dspt.result import RunResult as RunResult
    from dspt.training.recipe import Recipe as Recipe

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dspt' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
