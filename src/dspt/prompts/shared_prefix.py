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
from torch.utils.checkpoint import checkpoint

from dspt.backbones.text_tower import TextTower
from dspt.prompts.layout import PromptLayout

_KeysAndValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Group:
    """Classes whose own parts have the same length, side by side in the packed row."""

    classes: int
    length: int

    @property
    def tokens(self) -> int:
        return self.classes * self.length


@dataclass(frozen=True)
class _Rows:
    """A row of tokens and context vectors that goes through the tower side by side.

    Attributes:
        tokens: what stands there without context, position included, [n, W].
        places: where context vectors stand, [m].
        index: which one stands there, [m].
        positions: their position embeddings, [m, W].
    """

    tokens: Tensor
    places: Tensor
    index: Tensor
    positions: Tensor

    def embed(self, context: Tensor) -> Tensor:
        """Input of the first layer; context [K, all vectors, W] -> [K, n, W]."""
        if not len(self.places):
            return self.tokens.expand(len(context), -1, -1)
        vectors = context[:, self.index].to(self.tokens.dtype) + self.positions
        return self.tokens.expand(len(context), -1, -1).index_copy(1, self.places, vectors)


@dataclass(frozen=True)
class _Chunk:
    """Some classes' own tokens, packed, classes ordered by length.

    Attributes:
        rows: the tokens.
        groups: classes of one length, in order.
        read: where each class's feature is read, [classes].
        first_qkv: queries, keys and values of the first layer where they do not depend on the
            context, [n, 3 W].
    """

    rows: _Rows
    groups: tuple[_Group, ...]
    read: Tensor
    first_qkv: Tensor | None


class SharedPrefixEngine:
    """Class features of K prompts at once, differentiable by the context vectors.

    Args:
        tower: frozen text tower.
        layout: C prompts.
        class_specific: whether every class has context vectors of its own.
        classes_at_once: classes in memory at a time while training, None for all. With fewer, a
            chunk's states are computed again in the backward pass: one forward pass more, exactly
            the same gradient, and memory for one chunk only.
    """

    def __init__(
        self,
        tower: TextTower,
        layout: PromptLayout,
        *,
        class_specific: bool,
        classes_at_once: int | None = None,
    ) -> None:
        self.tower = tower
        device = tower.token_embedding.device
        self._ids, self._slots = layout.ids.to(device), layout.slots.to(device)
        if class_specific:
            first = layout.n_ctx * torch.arange(layout.num_classes, device=device)
            self._slots = torch.where(self._slots < 0, -1, self._slots + first[:, None])
        lengths = tower.read_positions(self._ids) + 1
        self._prefix = _shared_length(self._ids, self._slots, int(lengths.min()) - 1)
        order = torch.argsort(lengths, stable=True)
        self._unsort = torch.argsort(order)
        zero = torch.zeros(self._prefix, dtype=torch.long, device=device)
        self._shared = self._rows(zero, torch.arange(self._prefix, device=device))
        self._chunks = [
            self._chunk(classes, lengths[classes])
            for classes in order.split(classes_at_once or len(order))
        ]

    def _rows(self, classes: Tensor, positions: Tensor) -> _Rows:
        """The tokens at these positions of these classes' prompts."""
        slot = self._slots[classes, positions]
        table, dtype = self.tower.positional_embedding, self.tower.compute_dtype
        tokens = self.tower.token_embedding[self._ids[classes, positions]].to(dtype)
        places = (slot >= 0).nonzero()[:, 0]
        return _Rows(
            tokens=tokens + table[positions].to(dtype),
            places=places,
            index=slot[places],
            positions=table[positions[places]].to(dtype),
        )

    def _chunk(self, classes: Tensor, lengths: Tensor) -> _Chunk:
        own = lengths - self._prefix
        positions = [torch.arange(self._prefix, int(n), device=own.device) for n in lengths]
        rows = self._rows(classes.repeat_interleave(own), torch.cat(positions))
        block, first_qkv = self.tower.blocks[0], None
        if not len(rows.places):
            with torch.no_grad():
                first_qkv = F.linear(block.ln_1(rows.tokens), block.qkv_weight, block.qkv_bias)
        return _Chunk(rows, _groups(own), own.cumsum(0) - 1, first_qkv)

    def training_bytes(self, runs: int) -> int:
        """Upper bound of what a step keeps in memory for the gradient, weights not counted.

        With ``classes_at_once`` it is that of the largest chunk; the shared states come on top.
        """
        chunks = (
            sum(
                group.classes * bytes_per_class(self.tower, self._prefix, group.length)
                for group in chunk.groups
            )
            for chunk in self._chunks
        )
        shared = self._prefix * bytes_per_class(self.tower, self._prefix, 1)
        return runs * (max(chunks) + shared)

    def __call__(self, context: Tensor) -> Tensor:
        """Features of all classes under each prompt.

        Args:
            context: [K, M, W] shared by the classes, or [K, C, M, W] class-specific.

        Returns:
            L2-normalised features [K, C, D], fp32 (float64 for a float64 tower).
        """
        vectors = context.reshape(len(context), -1, context.shape[-1])
        shared = self._shared_states(vectors)
        if len(self._chunks) > 1 and torch.is_grad_enabled():
            parts = [
                checkpoint(self._own_features, chunk, vectors, shared, use_reentrant=False)
                for chunk in self._chunks
            ]
        else:
            parts = [self._own_features(chunk, vectors, shared) for chunk in self._chunks]
        return torch.cat(parts, dim=1)[:, self._unsort]

    def _shared_states(self, vectors: Tensor) -> list[_KeysAndValues]:
        """Keys and values of the shared tokens in every layer, each [K, H, P, d]."""
        x = self._shared.embed(vectors)
        states: list[_KeysAndValues] = []
        for block in self.tower.blocks:
            qkv = F.linear(block.ln_1(x), block.qkv_weight, block.qkv_bias)
            q, k, v = (self._heads(part) for part in qkv.chunk(3, dim=-1))
            states.append((k, v))
            if len(states) < len(self.tower.blocks):
                attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                attended = attended.transpose(1, 2).flatten(2)
                x = block.add_mlp(block.add_attended(x, attended))
        return states

    def _own_features(self, chunk: _Chunk, vectors: Tensor, shared: list[_KeysAndValues]) -> Tensor:
        """Features of a chunk's classes, [K, classes, D]."""
        x = chunk.rows.embed(vectors)
        *inner, last = self.tower.blocks
        for depth, block in enumerate(inner):
            if depth == 0 and chunk.first_qkv is not None:
                qkv = chunk.first_qkv.expand(len(x), -1, -1)
            else:
                qkv = F.linear(block.ln_1(x), block.qkv_weight, block.qkv_bias)
            q, k, v = qkv.chunk(3, dim=-1)
            attended = self._attend(chunk.groups, q, k, v, shared[depth])
            x = block.add_mlp(block.add_attended(x, attended))

        # In the last layer only the tokens that are read ask, and only they are taken further.
        width = self.tower.width
        normed = last.ln_1(x)
        q = F.linear(normed[:, chunk.read], last.qkv_weight[:width], last.qkv_bias[:width])
        kv = F.linear(normed, last.qkv_weight[width:], last.qkv_bias[width:])
        k, v = kv.chunk(2, dim=-1)
        attended = self._attend(chunk.groups, q, k, v, shared[-1])
        x = last.add_mlp(last.add_attended(x[:, chunk.read], attended))
        features = self.tower.project(x)
        return F.normalize(
            features if features.dtype == torch.float64 else features.float(), dim=-1
        )

    def _attend(
        self, groups: tuple[_Group, ...], q: Tensor, k: Tensor, v: Tensor, shared: _KeysAndValues
    ) -> Tensor:
        """Attention of own tokens to the shared ones and to those before them in their class.

        Args:
            groups: how the packed row divides into classes.
            q: queries of all own tokens, or of each class's last one, [K, n, W].
            k, v: of all own tokens, [K, n, W].
            shared: keys and values of the shared tokens, [K, H, P, d] each.

        Returns:
            As ``q``, [K, n, W].
        """
        # Split once: the gradient is one concatenation, where slices would each fill a whole row.
        present = [group.tokens for group in groups]
        asking = present if q.shape == k.shape else [group.classes for group in groups]
        outputs = [
            _split_attention(
                self._heads(q_part), self._heads(k_part), self._heads(v_part), shared, group.classes
            )
            for group, q_part, k_part, v_part in zip(
                groups, q.split(asking, 1), k.split(present, 1), v.split(present, 1), strict=True
            )
        ]
        return torch.cat(outputs, dim=2).transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        """[K, n, W] -> [K, H, n, W / H]."""
        return x.unflatten(-1, (self.tower.heads, -1)).transpose(1, 2)


def _split_attention(
    q: Tensor, own_k: Tensor, own_v: Tensor, shared: _KeysAndValues, classes: int
) -> Tensor:
    """Causal attention over shared and own keys, without copying the shared ones for each class.

    Args:
        q: queries of the last m of each class's n tokens, [K, H, classes * m, d].
        own_k, own_v: [K, H, classes * n, d].
        shared: keys and values, [K, H, P, d] each.
        classes: number of classes.

    Returns:
        [K, H, classes * m, d].
    """
    shared_k, shared_v = shared
    q = q * q.shape[-1] ** -0.5
    own_q, own_k, own_v = (t.unflatten(2, (classes, -1)) for t in (q, own_k, own_v))
    to_own = own_q @ own_k.transpose(-1, -2)
    m, n = to_own.shape[-2:]
    if m > 1:
        later = torch.ones(m, n, dtype=torch.bool, device=q.device).triu_(1 + n - m)
        to_own = to_own.masked_fill(later, float("-inf"))
    to_shared = (q @ shared_k.transpose(-1, -2)).unflatten(2, (classes, -1))
    scores = torch.cat([to_shared, to_own], dim=-1)
    if scores.dtype in (torch.float16, torch.bfloat16):
        weights = scores.float().softmax(dim=-1).to(scores.dtype)
    else:
        weights = scores.softmax(dim=-1)
    on_shared, on_own = weights.split([shared_k.shape[2], n], dim=-1)
    return on_shared.flatten(2, 3) @ shared_v + (on_own @ own_v).flatten(2, 3)


def bytes_per_class(tower: TextTower, shared: int, own: int) -> int:
    """Upper bound of the bytes that autograd keeps for one class of one prompt.

    Per token and layer it keeps both norms' inputs (2 W), queries, keys and values as attention
    wants them (some of them twice, 6 W at most), the MLP's hidden layer before its activation and
    the attention weights; a frozen linear layer keeps nothing.

    Args:
        tower: gives widths, heads and layers.
        shared: number P of tokens that all classes share.
        own: number of tokens of the class's own.
    """
    width, hidden = tower.width, tower.blocks[0].fc_weight.shape[0]
    token = 8.5 * width + hidden + 2 * tower.heads * (shared + own)
    floats = own * (len(tower.blocks) - 1) * token + own * 4 * width + 8 * width
    return int(floats * tower.compute_dtype.itemsize)


def _shared_length(ids: Tensor, slots: Tensor, most: int) -> int:
    """How many leading positions are the same in all prompts (at most ``most``)."""
    differs = ((ids != ids[:1]) | (slots != slots[:1])).any(0)[:most].nonzero()
    return int(differs[0]) if len(differs) else most


def _groups(sorted_lengths: Tensor) -> tuple[_Group, ...]:
    lengths, counts = torch.unique_consecutive(sorted_lengths, return_counts=True)
    return tuple(
        _Group(int(count), int(length)) for length, count in zip(lengths, counts, strict=True)
    )
