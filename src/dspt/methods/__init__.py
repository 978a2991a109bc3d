"""Methods by name: every loss as plain prompt tuning, what goes beyond a loss, and the bounds.

A method is one function or class in one file, and its docstring and signature are its entry in
``dspt methods``: the first paragraph says what it computes, the paragraph that begins with
"Source:" where it comes from, keyword arguments with defaults are its options. A new loss is a
function named in :data:`dspt.losses.LOSSES`; anything else is named in the tables here. The guide
is ``docs/new-method.md``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dspt.errors import UserError, did_you_mean
from dspt.losses import LOSSES
from dspt.methods.auto import Auto, CorrectedHead
from dspt.methods.bounds import (
    LabelledFeatures,
    LinearHead,
    LinearProbe,
    ZeroShot,
    ZeroShotEnsemble,
)
from dspt.methods.early_learning import EarlyLearning
from dspt.methods.joapr import JoAPR
from dspt.methods.nlprompt import NLPrompt
from dspt.training.objective import Objective

Options = Mapping[str, float | str]

OBJECTIVES: Mapping[str, Callable[..., Objective]] = {
    "elr": EarlyLearning,
    "nlprompt": NLPrompt,
    "joapr": JoAPR,
}
"""Methods that train a prompt and are more than a loss."""

BOUNDS: Mapping[str, Callable[..., Callable[[LabelledFeatures], LinearHead]]] = {
    "zero-shot": ZeroShot,
    "zero-shot-ensemble": ZeroShotEnsemble,
    "linear-probe": LinearProbe,
}
"""The untrained model and a probe without any prior: what every table is read against."""

HEADS: Mapping[str, Callable[..., Callable[[LabelledFeatures], LinearHead]]] = {
    **BOUNDS,
    "auto": Auto,
}
"""Methods that give a linear head and train no prompt."""

Kind = Literal["loss", "prompt", "bound", "head"]

_GIVEN = ("logits", "target", "given", "num_classes", "seed")


@dataclass(frozen=True)
class MethodCard:
    """What is known of a method.

    Attributes:
        name: on the command line.
        kind: "loss" for plain prompt tuning with a loss, "prompt" for what goes beyond a loss,
            "bound" for what every table is read against, "head" for other methods without a prompt.
        summary: what it computes, from its docstring.
        source: paper and equation, from its docstring.
        options: name and default of each.
    """

    name: str
    kind: Kind
    summary: str
    source: str
    options: Mapping[str, float | str]


def method_names() -> list[str]:
    """All methods, the bounds first."""
    return [*HEADS, *LOSSES, *OBJECTIVES]


def trains_prompt(name: str) -> bool:
    """Whether the method trains context vectors."""
    return name not in HEADS


def method_card(name: str) -> MethodCard:
    """Describe a method.

    Raises:
        UserError: for an unknown name, with what was probably meant.
    """
    function = _function(name)
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    sources = [text for text in paragraphs if text.startswith("Source:")]
    return MethodCard(
        name=name,
        kind=_kind(name),
        summary=" ".join(paragraphs[0].split()),
        source=" ".join(sources[0].removeprefix("Source:").split()) if sources else "",
        options={
            key: parameter.default
            for key, parameter in inspect.signature(function).parameters.items()
            if key not in _GIVEN
        },
    )


def check_method(name: str, options: Options) -> None:
    """Refuse what cannot be run, before any work is done.

    Raises:
        UserError: for an unknown method or option, or a value of the wrong kind or out of range.
    """
    card = method_card(name)
    for option, value in options.items():
        if option not in card.options:
            allowed = f"it has {', '.join(card.options)}" if card.options else "it has none"
            hint = did_you_mean(option, card.options)
            raise UserError(f"method_options: {name!r} has no option {option!r}; {allowed}{hint}")
        if isinstance(value, str) != isinstance(card.options[option], str):
            wanted = "words" if isinstance(card.options[option], str) else "a number"
            raise UserError(f"method_options: {option} of {name!r} must be {wanted}, not {value!r}")
    try:
        if name in HEADS:
            HEADS[name](**options)
            return
        probe = build_objective(name, options, torch.zeros(2, dtype=torch.long), 2, 0)
        if name in LOSSES:
            probe.loss(torch.zeros(2, 2), probe.given)
    except ValueError as error:
        raise UserError(f"method_options: {error}") from None


def build_objective(
    name: str, options: Options, given: Tensor, num_classes: int, seed: int
) -> Objective:
    """What a run of this method minimises.

    Args:
        name: of a method that trains a prompt.
        options: of the method.
        given: labels of the run's training samples, [N].
        num_classes: C.
        seed: of everything that the method draws.

    Raises:
        ValueError: when an option is out of range; :func:`check_method` says it in one line.
    """
    if name in LOSSES:
        return Objective(_bound_loss(name, options), given, num_classes, seed)
    return OBJECTIVES[name](given, num_classes, seed, **options)


def _bound_loss(name: str, options: Options) -> Callable[[Tensor, Tensor], Tensor]:
    function = LOSSES[name]
    if not options:
        return function  # one object for all runs, so that runs side by side share its call
    return lambda logits, target: function(logits, target, **options)


def _kind(name: str) -> Kind:
    if name in LOSSES:
        return "loss"
    if name in OBJECTIVES:
        return "prompt"
    return "bound" if name in BOUNDS else "head"


def _function(name: str) -> Callable[..., Any]:
    for table in (LOSSES, OBJECTIVES, HEADS):
        if name in table:
            return table[name]
    names = method_names()
    raise UserError(
        f"method: {name!r} is unknown; choose from {', '.join(names)}{did_you_mean(name, names)}"
    )


__all__ = [
    "BOUNDS",
    "HEADS",
    "OBJECTIVES",
    "CorrectedHead",
    "LabelledFeatures",
    "LinearHead",
    "MethodCard",
    "Options",
    "build_objective",
    "check_method",
    "method_card",
    "method_names",
    "trains_prompt",
]
