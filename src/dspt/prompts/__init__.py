"""Prompts: context vectors, the tokens around them, and the engine that makes features of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from dspt.backbones import Backbone
from dspt.errors import UserError
from dspt.prompts.context import initial_context
from dspt.prompts.graphed import GraphedEngine
from dspt.prompts.layout import PromptLayout, build_layout
from dspt.prompts.plain import plain_features
from dspt.prompts.shared_prefix import SharedPrefixEngine

__all__ = ["PromptLayout", "TextEngine", "build_layout", "initial_context", "text_engine"]

MEMORY_LIMIT = 2 * 2**30
"""Bytes that training keeps for the gradient by class and token, at most."""

TextEngine = Callable[[Tensor], Tensor]
"""``context [K, M, W] or [K, C, M, W] -> normalised class features [K, C, D]``."""


def text_engine(
    backbone: Backbone,
    class_names: Sequence[str],
    n_ctx: int,
    *,
    position: str = "end",
    class_specific: bool = False,
    runs: int = 1,
    memory_limit: int = MEMORY_LIMIT,
    cuda_graph: bool = False,
) -> TextEngine:
    """The best exact way to compute class features for this backbone.

    Towers in the frozen form run without redundant work; the others through open_clip's own forward
    pass (``backbone.text_note`` says which and why).

    Args:
        backbone: frozen model.
        class_names: C names.
        n_ctx: number M of context vectors.
        position: of the class name: "end", "middle" or "front".
        class_specific: whether every class has context vectors of its own.
        runs: number K of prompts that will train side by side.
        memory_limit: bytes that training may keep for the gradient; with more classes than fit,
            they are computed in chunks, and again in the backward pass. The limit is fixed, not
            what happens to be free, so that results do not depend on the hour.
        cuda_graph: record the engine as a CUDA graph, which a GPU that waits for the host gains
            from. Opt-in: its gain has not been measured yet.

    Raises:
        UserError: when a graph is asked for and cannot be had: on a CPU, for a tower without the
            frozen form, or for more classes than fit into ``memory_limit``.
    """
    layout = build_layout(backbone.tokenizer, class_names, n_ctx, position)
    if cuda_graph and backbone.device.type != "cuda":
        raise UserError(f"cuda_graph: needs a GPU, but the model lies on {backbone.device}")
    if backbone.text_tower is None:
        if cuda_graph:
            raise UserError(f"cuda_graph: cannot be had, the {backbone.text_note}")
        return lambda context: plain_features(backbone.model, layout, context)
    engine = SharedPrefixEngine(backbone.text_tower, layout, class_specific=class_specific)
    needed = engine.training_bytes(runs)
    if needed <= memory_limit:
        return GraphedEngine(engine) if cuda_graph else engine
    if cuda_graph:
        raise UserError(
            f"cuda_graph: {len(class_names)} classes do not fit into {memory_limit} bytes at once; "
            "such steps do not wait for the host, do without it"
        )
    return SharedPrefixEngine(
        backbone.text_tower,
        layout,
        class_specific=class_specific,
        classes_at_once=max(1, len(class_names) * memory_limit // needed),
    )
