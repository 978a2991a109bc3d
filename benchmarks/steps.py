"""The training steps that are compared: CoOp's plain one, and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dspt.backbones import Backbone
from dspt.prompts import TextEngine, build_layout, text_engine
from dspt.prompts.plain import plain_features

N_CTX = 16
BATCH = 32


def context_of(backbone: Backbone, runs: int = 1, n_ctx: int = N_CTX) -> Tensor:
    """Context vectors to train, [K, M, W]."""
    assert backbone.text_tower is not None
    start = torch.randn(runs, n_ctx, backbone.text_tower.width, generator=_generator())
    return (0.02 * start).to(backbone.device).requires_grad_(True)


def plain_step(
    backbone: Backbone, names: Sequence[str], *, image_tower: bool
) -> Callable[[], object]:
    """One step as the field's code takes it: pictures and all 77 tokens of all classes anew.

    Args:
        backbone: model.
        names: of the classes.
        image_tower: whether the pictures are encoded too, or their features are at hand.
    """
    layout = build_layout(backbone.tokenizer, names, N_CTX)
    pictures = torch.randn(BATCH, 3, *backbone.image_size, generator=_generator())
    return step_of(
        backbone,
        context_of(backbone),
        lambda context: plain_features(backbone.model, layout, context),
        pictures.to(backbone.device) if image_tower else None,
        len(names),
    )


def fast_step(
    backbone: Backbone,
    names: Sequence[str],
    runs: int = 1,
    *,
    n_ctx: int = N_CTX,
    position: str = "end",
) -> Callable[[], object]:
    """One step of ours, with cached image features, for K prompts at once."""
    engine = text_engine(backbone, names, n_ctx, position=position, runs=runs)
    return step_of(backbone, context_of(backbone, runs, n_ctx), engine, None, len(names))


def step_of(
    backbone: Backbone, context: Tensor, engine: TextEngine, pictures: Tensor | None, classes: int
) -> Callable[[], object]:
    """A step of SGD on cross-entropy, whatever computes the class features."""
    runs = len(context)
    target = torch.arange(runs * BATCH, device=backbone.device) % classes
    stored = torch.randn(runs, BATCH, backbone.embed_dim, generator=_generator())
    stored = F.normalize(stored, dim=-1).to(backbone.device)
    optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        features = stored if pictures is None else backbone.encode_image(pictures)[None]
        logits = backbone.logit_scale * features @ engine(context).transpose(1, 2)
        loss = F.cross_entropy(logits.flatten(0, 1), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
