"""Text features by open_clip's own forward pass: the specification of the fast path.

Every class's full row of tokens goes through the model's ``encode_text``; only the rows of the
token embedding at the context positions are exchanged. That works for any text tower whose
embedding module can be found, bidirectional ones and Hugging Face encoders included.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dspt.prompts.layout import PromptLayout


def embedding_module(model: Any) -> nn.Embedding:
    """The token embedding of an open_clip model."""
    tower = getattr(model, "text", model)
    if hasattr(tower, "token_embedding"):
        embedding = tower.token_embedding
    else:  # HFTextEncoder wraps a transformers model
        embedding = tower.transformer.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def plain_features(
    model: Any, layout: PromptLayout, context: Tensor, rows_at_once: int = 512
) -> Tensor:
    """Class features of K prompts, differentiable by the context vectors.

    Args:
        model: open_clip model, frozen.
        layout: C prompts of L tokens.
        context: [K, M, W] shared by the classes, or [K, C, M, W].
        rows_at_once: prompts per call of the model when no gradient is needed.

    Returns:
        L2-normalised features [K, C, D], fp32 (float64 for a float64 model).
    """
    embedding = embedding_module(model)
    device = embedding.weight.device
    ids, slots = layout.ids.to(device), layout.slots.to(device)
    runs, classes = context.shape[0], layout.num_classes
    is_context = slots >= 0
    index = slots.clamp(min=0)
    if torch.is_grad_enabled() and context.requires_grad:
        rows_at_once = runs * classes
    features = []
    for run in range(runs):
        for start in range(0, classes, rows_at_once):
            part = slice(start, start + rows_at_once)
            vectors = (
                context[run][index[part]]
                if context.ndim == 3
                else torch.stack(
                    [own[i] for own, i in zip(context[run, part], index[part], strict=True)]
                )
            )
            mask = is_context[part][..., None]

            def exchange(
                module: nn.Module,
                args: Any,
                output: Tensor,
                mask: Tensor = mask,
                vectors: Tensor = vectors,
            ) -> Tensor:
                return torch.where(mask, vectors.to(output.dtype), output)

            handle = embedding.register_forward_hook(exchange)
            try:
                encoded = model.encode_text(ids[part])
            finally:
                handle.remove()
            features.append(F.normalize(_at_least_fp32(encoded), dim=-1))
    return torch.cat(features).reshape(runs, classes, -1)


def _at_least_fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
