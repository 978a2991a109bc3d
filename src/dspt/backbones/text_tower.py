"""A text tower of open_clip in one frozen form that the prompt engine can compute with.

The form covers the causal pre-norm transformers that nearly all CLIP models use: the ViT and ResNet
families of OpenAI, LAION, DataComp and MetaCLIP, with GELU or quick-GELU. The tensors are shared
with the open_clip model, not copied. Whatever does not fit is refused with a reason, and the caller
then uses open_clip's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UnsupportedTower(Exception):
    """The text tower does not have the form that is computed here; the message says why."""


@dataclass(frozen=True)
class TextBlock:
    """One pre-norm residual block: attention with fused projections, then a two-layer MLP.

    Shapes, with width W and hidden width F: ``qkv_weight`` [3W, W], ``out_weight`` [W, W],
    ``fc_weight`` [F, W], ``proj_weight`` [W, F]; biases and norms to match. A layer scale is folded
    into ``out_*`` and ``proj_*``.
    """

    ln_1: nn.LayerNorm
    qkv_weight: Tensor
    qkv_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    ln_2: nn.LayerNorm
    fc_weight: Tensor
    fc_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor
    activation: Callable[[Tensor], Tensor]

    def add_attended(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual of the first half: attention's output [..., W] projected onto x [..., W]."""
        return x + F.linear(attended, self.out_weight, self.out_bias)

    def add_mlp(self, x: Tensor) -> Tensor:
        """The second half, residual included; acts on every token by itself, [..., W]."""
        hidden = self.activation(F.linear(self.ln_2(x), self.fc_weight, self.fc_bias))
        return x + F.linear(hidden, self.proj_weight, self.proj_bias)


@dataclass(frozen=True)
class TextTower:
    """A causal text transformer whose feature is read at one token of the sequence.

    Attributes:
        token_embedding: [V, W].
        positional_embedding: [L, W].
        blocks: the layers in order.
        ln_final: norm before the projection.
        projection: [W, D], or None for the identity.
        projection_bias: [D] or None.
        heads: attention heads.
        pooling: where the feature is read: "argmax" (the largest token id, CLIP's [EOT]), "eos"
            (the first token equal to ``eos_id``) or "last".
        eos_id: token id for "eos".
    """

    token_embedding: Tensor
    positional_embedding: Tensor
    blocks: tuple[TextBlock, ...]
    ln_final: nn.LayerNorm
    projection: Tensor | None
    projection_bias: Tensor | None
    heads: int
    pooling: str
    eos_id: int

    @property
    def width(self) -> int:
        """Width W of the transformer."""
        return self.token_embedding.shape[1]

    @property
    def compute_dtype(self) -> torch.dtype:
        """Type of the residual stream, as open_clip casts it."""
        return self.blocks[0].fc_weight.dtype

    def read_positions(self, ids: Tensor) -> Tensor:
        """Index of the token whose state becomes the text's feature.

        Args:
            ids: token ids, [n, L].

        Returns:
            Positions, [n].
        """
        if self.pooling == "last":
            return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
        if self.pooling == "eos":
            return ids.eq(self.eos_id).int().argmax(dim=-1)
        return ids.argmax(dim=-1)

    def project(self, x: Tensor) -> Tensor:
        """Final norm and projection of the read states, [..., W] -> [..., D]."""
        x = self.ln_final(x)
        if self.projection is not None:
            x = x @ self.projection
        return x if self.projection_bias is None else x + self.projection_bias


def take_text_tower(model: nn.Module) -> TextTower:
    """Bring the text tower of an open_clip model into the frozen form.

    Args:
        model: an open_clip ``CLIP`` or ``CustomTextCLIP``.

    Raises:
        UnsupportedTower: when some part works differently; the message names it.
    """
    import open_clip.model as models
    from open_clip.transformer import ResidualAttentionBlock, TextTransformer, Transformer

    # Exact types: a subclass may compute something else under the same attribute names.
    owner: Any
    eos_id: Any
    text: Any = getattr(model, "text", None)
    if type(model) is models.CLIP:
        owner, pooling = model, str(model.text_pool_type)
        eos_id = getattr(model, "text_eos_id", None)  # open_clip before 3.1 has no "eos" pooling
    elif type(model) is models.CustomTextCLIP and type(text) is TextTransformer:
        owner, pooling, eos_id = text, text.pool_type, getattr(text, "eos_id", None)
        if owner.cls_emb is not None:
            raise UnsupportedTower("it appends a class token to the text")
        if owner.use_pad_mask:
            raise UnsupportedTower("it masks padding")
    else:
        tower = type(text if text is not None else model).__name__
        raise UnsupportedTower(f"it is a {tower}, not open_clip's text transformer")
    if pooling not in ("argmax", "eos", "last"):
        raise UnsupportedTower(f"it pools by {pooling!r}")
    mask = owner.attn_mask
    if mask is None:
        raise UnsupportedTower("its attention is bidirectional, so no part of a prompt is shared")
    causal = torch.full_like(mask, float("-inf")).triu_(1)
    if not torch.equal(mask, causal):
        raise UnsupportedTower("its attention mask is not the causal one")
    if type(owner.transformer) is not Transformer:
        raise UnsupportedTower(f"its transformer is a {type(owner.transformer).__name__}")
    resblocks = list(owner.transformer.resblocks)
    for block in resblocks:
        if type(block) is not ResidualAttentionBlock:
            raise UnsupportedTower(f"its layers are {type(block).__name__}")
    projection: Any = owner.text_projection
    bias: Tensor | None = None
    if isinstance(projection, nn.Linear):
        projection, bias = projection.weight.t(), projection.bias
    return TextTower(
        token_embedding=owner.token_embedding.weight.detach(),
        positional_embedding=owner.positional_embedding.detach(),
        blocks=tuple(_take_block(block) for block in resblocks),
        ln_final=owner.ln_final,
        projection=None if projection is None else projection.detach(),
        projection_bias=None if bias is None else bias.detach(),
        heads=resblocks[0].attn.num_heads,
        pooling=pooling,
        eos_id=eos_id,
    )


def _take_block(block: Any) -> TextBlock:
    from open_clip.transformer import QuickGELU

    attention = block.attn
    if attention.in_proj_weight is None or attention.in_proj_bias is None:
        raise UnsupportedTower("its attention has no fused projection with bias")
    out_weight, out_bias = _fold_scale(block.ls_1, attention.out_proj)
    proj_weight, proj_bias = _fold_scale(block.ls_2, block.mlp.c_proj)
    return TextBlock(
        ln_1=block.ln_1,
        qkv_weight=attention.in_proj_weight.detach(),
        qkv_bias=attention.in_proj_bias.detach(),
        out_weight=out_weight,
        out_bias=out_bias,
        ln_2=block.ln_2,
        fc_weight=block.mlp.c_fc.weight.detach(),
        fc_bias=block.mlp.c_fc.bias.detach(),
        proj_weight=proj_weight,
        proj_bias=proj_bias,
        activation=quick_gelu if type(block.mlp.gelu) is QuickGELU else block.mlp.gelu,
    )


def quick_gelu(x: Tensor) -> Tensor:
    """``x sigmoid(1.702 x)`` through SiLU, which keeps one tensor for the gradient and not three.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
    """
    return F.silu(1.702 * x) / 1.702


def _fold_scale(scale: Any, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    weight, bias = linear.weight.detach(), linear.bias.detach()
    if isinstance(scale, nn.Identity):
        return weight, bias
    gamma: Tensor = scale.gamma.detach()
    return weight * gamma[:, None], bias * gamma
