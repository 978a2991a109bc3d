"""How context vectors start."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dspt.backbones import Backbone
from dspt.configuration import PromptConfig
from dspt.errors import UserError
from dspt.prompts.layout import words_of
from dspt.prompts.plain import embedding_module
from dspt.seeding import derived_seed

RANDOM_N_CTX = 16
RANDOM_STD = 0.02


def initial_context(
    backbone: Backbone, config: PromptConfig, num_classes: int, seed: int
) -> Tensor:
    """The context vectors before training.

    ``init="random"`` draws N(0, 0.02), as CoOp does; it can cost much of the zero-shot accuracy at
    once. Any other ``init`` is a text whose token embeddings are the start, so that training begins
    exactly at the hand-written prompt; with more vectors than the text has tokens, it is repeated.

    Args:
        backbone: gives the tokenizer and the token embeddings.
        config: number of vectors, start, shared or class-specific.
        num_classes: C.
        seed: of the random start.

    Returns:
        [M, W] in fp32, or [C, M, W] when class-specific.

    Raises:
        UserError: when ``n_ctx`` is no multiple of the text's token count.
    """
    embedding = embedding_module(backbone.model).weight
    if config.init == "random":
        n_ctx = config.n_ctx or RANDOM_N_CTX
        shape = (num_classes, n_ctx) if config.class_specific else (n_ctx,)
        generator = np.random.Generator(np.random.PCG64(derived_seed(seed, "context")))
        start = generator.standard_normal((*shape, embedding.shape[1]), dtype=np.float32)
        return torch.from_numpy(start * np.float32(RANDOM_STD)).to(backbone.device)
    ids = words_of(backbone.tokenizer, config.init).to(embedding.device)
    if not len(ids):
        raise UserError(f"prompt.init: {config.init!r} holds no words")
    n_ctx = config.n_ctx or len(ids)
    if n_ctx % len(ids):
        raise UserError(
            f"prompt.n_ctx: {config.init!r} has {len(ids)} tokens, so n_ctx must be a multiple "
            f"of {len(ids)} (got {n_ctx})"
        )
    start_vectors = embedding[ids].detach().float().repeat(n_ctx // len(ids), 1)
    if config.class_specific:
        start_vectors = start_vectors.expand(num_classes, -1, -1)
    return start_vectors.clone()
