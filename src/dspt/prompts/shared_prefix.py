"""Text features with no redundant work, exact.

CLIP's text tower is causal and its feature is read at one token, [EOT]. Three facts follow, and
each removes work without changing a result (``plain.py`` computes the same without them):

1. A token never sees what stands after it. So the tokens that all prompts begin with ([SOS] and,
   with shared context and the class name at the end, the context vectors) have the same states in
   every class: they are computed once per run, and each class only adds its own few tokens.
2. Tokens after [EOT] influence nothing that is read: they are not computed. What remains differs in
   length by class; the tokens of all classes lie packed in one long row, so linear layers and norms
   do no work for padding. Only the little attention among a class's own tokens needs equal lengths:
   it runs over groups of classes of one length.
3. After the last layer only the state at [EOT] is read: there, queries, output projection and MLP
   are computed for one token per class.

What does not depend on the context vectors in the first layer is computed once per engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dspt.backbones.text_tower import TextBlock, TextTower
from dspt.prompts.layout import PromptLayout


@dataclass(frozen=True)
class _Group:
    """Classes whose own parts have the same length, side by side in the packed row."""

    classes: int
    length: int

    @property
    def tokens(self) -> int:
        return self.classes * self.length


class SharedPrefixEngine:
    """Class features of K prompts at once, differentiable by the context vectors.

    Args:
        tower: frozen text tower.
        layout: C prompts.
        class_specific: whether every class has context vectors of its own.
    """

    def __init__(self, tower: TextTower, layout: PromptLayout, *, class_specific: bool) -> None:
        self.tower = tower
        device = tower.token_embedding.device
        ids, slots = layout.ids.to(device), layout.slots.to(device)
        lengths = tower.read_positions(ids) + 1
        prefix = _shared_length(ids, slots, class_specific, int(lengths.min()) - 1)

        own = lengths - prefix
        order = torch.argsort(own, stable=True)
        self._unsort = torch.argsort(order)
        self._groups = _groups(own[order])
        self._last = own[order].cumsum(0) - 1  # where each class's feature is read

        # The packed row: every class's own tokens, classes ordered by length.
        packed_class = order.repeat_interleave(own[order])
        packed_position = torch.cat(
            [torch.arange(prefix, int(n), device=device) for n in lengths[order]]
        )
        rows = torch.cat([torch.zeros_like(order[:1]).expand(prefix), packed_class])
        positions = torch.cat([torch.arange(prefix, device=device), packed_position])
        slot = slots[rows, positions]
        embedding, position_table = tower.token_embedding, tower.positional_embedding
        dtype = tower.compute_dtype
        self._tokens = embedding[ids[rows, positions]].to(dtype) + position_table[positions].to(
            dtype
        )
        self._context_rows = (slot >= 0).nonzero()[:, 0]
        self._context_index = slot[self._context_rows]
        if class_specific:
            self._context_index = self._context_index + layout.n_ctx * rows[self._context_rows]
        self._context_positions = position_table[positions[self._context_rows]].to(dtype)
        self._prefix = prefix
        self._first_qkv: Tensor | None = None
        if not bool((slot[prefix:] >= 0).any()):
            first = tower.blocks[0]
            with torch.no_grad():
                normed = first.ln_1(self._tokens[prefix:])
                self._first_qkv = F.linear(normed, first.qkv_weight, first.qkv_bias)

    def __call__(self, context: Tensor) -> Tensor:
        """Features of all classes under each prompt.

        Args:
            context: [K, M, W] shared by the classes, or [K, C, M, W] class-specific.

        Returns:
            L2-normalised features [K, C, D], fp32 (float64 for a float64 tower).
        """
        x = self._embed(context)
        *inner, last = self.tower.blocks
        for depth, block in enumerate(inner):
            attended = self._attend(self._project_qkv(block, x, first=depth == 0))
            x = block.mlp(x + F.linear(attended, block.out_weight, block.out_bias))
        x = self._last_layer(last, x)
        features = self.tower.project(x[:, self._unsort])
        return F.normalize(
            features if features.dtype == torch.float64 else features.float(), dim=-1
        )

    def _embed(self, context: Tensor) -> Tensor:
        """Input of the first layer: shared tokens, then the packed row. [K, P + T, W]."""
        runs = context.shape[0]
        vectors = context.reshape(runs, -1, context.shape[-1]).to(self._tokens.dtype)
        vectors = vectors[:, self._context_index] + self._context_positions
        return self._tokens.expand(runs, -1, -1).index_copy(1, self._context_rows, vectors)

    def _project_qkv(self, block: TextBlock, x: Tensor, *, first: bool) -> Tensor:
        """Queries, keys and values of all tokens, [K, P + T, 3 W]."""
        if first and self._first_qkv is not None:
            prefix = F.linear(block.ln_1(x[:, : self._prefix]), block.qkv_weight, block.qkv_bias)
            return torch.cat([prefix, self._first_qkv.expand(len(x), -1, -1)], dim=1)
        return F.linear(block.ln_1(x), block.qkv_weight, block.qkv_bias)

    def _heads(self, x: Tensor) -> Tensor:
        """[K, n, W] -> [K, H, n, W / H]."""
        return x.unflatten(-1, (self.tower.heads, -1)).transpose(1, 2)

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attention of all tokens, [K, P + T, 3 W] -> [K, P + T, W].

        The shared tokens see each other; a class's own tokens see the shared ones and each other.
        """
        # One split for all: its gradient is one concatenation, where slices would each fill a
        # whole row with zeros.
        shared, *own = qkv.split([self._prefix, *(group.tokens for group in self._groups)], dim=1)
        q, prefix_k, prefix_v = (self._heads(part) for part in shared.chunk(3, dim=-1))
        outputs = [F.scaled_dot_product_attention(q, prefix_k, prefix_v, is_causal=True)]
        for group, part in zip(self._groups, own, strict=True):
            q, k, v = (self._heads(third) for third in part.chunk(3, dim=-1))
            n = group.length
            hidden = torch.ones(n, n, dtype=torch.bool, device=q.device).triu_(1)
            outputs.append(_split_attention(q, prefix_k, prefix_v, k, v, group.classes, hidden))
        return torch.cat(outputs, dim=2).transpose(1, 2).flatten(2)

    def _last_layer(self, block: TextBlock, x: Tensor) -> Tensor:
        """Last layer at the read tokens only, classes ordered by length, [K, C, W]."""
        width = self.tower.width
        read = x[:, self._prefix + self._last]
        q = F.linear(block.ln_1(read), block.qkv_weight[:width], block.qkv_bias[:width])
        kv = F.linear(block.ln_1(x), block.qkv_weight[width:], block.qkv_bias[width:])
        shared, *own = kv.split([self._prefix, *(group.tokens for group in self._groups)], dim=1)
        prefix_k, prefix_v = (self._heads(part) for part in shared.chunk(2, dim=-1))
        queries = q.split([group.classes for group in self._groups], dim=1)
        outputs = []
        for group, asking, part in zip(self._groups, queries, own, strict=True):
            k, v = (self._heads(half) for half in part.chunk(2, dim=-1))
            asked = self._heads(asking)
            outputs.append(_split_attention(asked, prefix_k, prefix_v, k, v, group.classes, None))
        attended = torch.cat(outputs, dim=2).transpose(1, 2).flatten(2)
        return block.mlp(read + F.linear(attended, block.out_weight, block.out_bias))


def _split_attention(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    own_k: Tensor,
    own_v: Tensor,
    classes: int,
    hidden: Tensor | None,
) -> Tensor:
    """Softmax attention over shared and own keys without copying the shared ones for each class.

    Args:
        q: queries, [K, H, classes * m, d].
        prefix_k, prefix_v: shared keys and values, [K, H, P, d].
        own_k, own_v: [K, H, classes * n, d].
        classes: number of classes in the group.
        hidden: [m, n], True where a query must not see an own key.

    Returns:
        [K, H, classes * m, d].
    """
    q = q * q.shape[-1] ** -0.5
    own_q, own_k, own_v = (t.unflatten(2, (classes, -1)) for t in (q, own_k, own_v))
    to_own = own_q @ own_k.transpose(-1, -2)
    if hidden is not None:
        to_own = to_own.masked_fill(hidden, float("-inf"))
    to_prefix = (q @ prefix_k.transpose(-1, -2)).unflatten(2, (classes, -1))
    scores = torch.cat([to_prefix, to_own], dim=-1)
    if scores.dtype in (torch.float16, torch.bfloat16):
        weights = scores.float().softmax(dim=-1).to(scores.dtype)
    else:
        weights = scores.softmax(dim=-1)
    on_prefix, on_own = weights.split([prefix_k.shape[2], own_k.shape[3]], dim=-1)
    return on_prefix.flatten(2, 3) @ prefix_v + (on_own @ own_v).flatten(2, 3)


def _shared_length(ids: Tensor, slots: Tensor, class_specific: bool, most: int) -> int:
    """How many leading positions are the same in all prompts (at most ``most``)."""
    same = (ids == ids[:1]).all(0) & (slots == slots[:1]).all(0)
    if class_specific:
        same &= (slots < 0).all(0)
    differs = (~same[:most]).nonzero()
    return int(differs[0]) if len(differs) else most


def _groups(sorted_lengths: Tensor) -> list[_Group]:
    lengths, counts = torch.unique_consecutive(sorted_lengths, return_counts=True)
    return [_Group(int(count), int(length)) for length, count in zip(lengths, counts, strict=True)]
