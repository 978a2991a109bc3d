"""Prompts: context vectors, the tokens around them, and the engine that makes features of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from dspt.backbones import Backbone
from dspt.prompts.context import initial_context
from dspt.prompts.layout import PromptLayout, build_layout
from dspt.prompts.plain import plain_features
from dspt.prompts.shared_prefix import SharedPrefixEngine

__all__ = ["PromptLayout", "TextEngine", "build_layout", "initial_context", "text_engine"]

TextEngine = Callable[[Tensor], Tensor]
"""``context [K, M, W] or [K, C, M, W] -> normalised class features [K, C, D]``."""


def text_engine(
    backbone: Backbone,
    class_names: Sequence[str],
    n_ctx: int,
    *,
    position: str = "end",
    class_specific: bool = False,
) -> TextEngine:
    """The best exact way to compute class features for this backbone.

    Towers in the frozen form run without redundant work; the others through open_clip's own forward
    pass (``backbone.text_note`` says which and why).
    """
    layout = build_layout(backbone.tokenizer, class_names, n_ctx, position)
    if backbone.text_tower is not None:
        return SharedPrefixEngine(backbone.text_tower, layout, class_specific=class_specific)
    return lambda context: plain_features(backbone.model, layout, context)
