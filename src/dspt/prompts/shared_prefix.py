"""Text features with no redundant work, exact.

CLIP's text tower is causal and its feature is read at one token, [EOT]. Four facts follow, and
each removes work without changing a result (``plain.py`` computes the same without them):

1. A token never sees what stands after it. So the tokens that all prompts begin with ([SOS] and,
   with shared context and the class name at the end, the context vectors) have the same states in
   every class: they are computed once per call, and each class only adds its own few tokens.
2. For the same reason nothing before the first context vector changes while training (a class name
   in front of it): of those tokens only keys and values are needed, computed once per engine.
3. Tokens after [EOT] influence nothing that is read: they are not computed. What remains differs in
   length by class; shared tokens and those of all classes lie packed in one long row, so linear
   layers and norms read their weights once and do no work for padding. Only the little attention
   among a class's own tokens needs equal lengths: it runs over groups of classes of one length.
4. After the last layer only the state at [EOT] is read: there, queries, output projection and MLP
   are computed for one token per class.

The first layer's queries, keys and values of tokens that are no context are computed once, too.
[SOS] goes along with the shared context: one token among hundreds, less than cutting it out costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dspt.backbones.text_tower import TextBlock, TextTower
from dspt.prompts.layout import PromptLayout

_KeysAndValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Group:
    """Classes whose own parts have the same lengths, side by side in the packed row.

    Attributes:
        classes: number of them.
        constant: own tokens before the first context vector, of which only keys and values count.
        length: own tokens in the row.
        mask: 0 where they may look and -inf at what comes later, [length, all keys].
    """

    classes: int
    constant: int
    length: int
    mask: Tensor

    @property
    def tokens(self) -> int:
        return self.classes * self.length


@dataclass(frozen=True)
class _Row:
    """Tokens and context vectors that go through the tower side by side: shared ones, then classes.

    Attributes:
        tokens: what stands there without context, position included, [n, W].
        places: where context vectors stand, [m].
        index: which one stands there, [m].
        positions: their position embeddings, [m, W].
        first_qkv: queries, keys and values of ``tokens`` in the first layer, [n, 3 W].
        shared: how many of the first tokens belong to all classes; 0 when their keys and values
            come from elsewhere.
        groups: classes of one length, in order.
        read: where each class's feature is read, [classes]; None when only keys and values are
            wanted.
        constants: by layer and group, keys and values of the own tokens that do not change,
            [1, H, classes, constant, d] each; empty when there are none.
    """

    tokens: Tensor
    places: Tensor
    index: Tensor
    positions: Tensor
    first_qkv: Tensor
    shared: int
    groups: tuple[_Group, ...]
    read: Tensor | None
    constants: list[list[_KeysAndValues]]

    def embed(self, context: Tensor) -> Tensor:
        """Input of the first layer; context [K, all vectors, W] -> [K, n, W]."""
        vectors = context[:, self.index].to(self.tokens.dtype) + self.positions
        return self.tokens.expand(len(context), -1, -1).index_copy(1, self.places, vectors)

    def first_projections(self, block: TextBlock, x: Tensor) -> Tensor:
        """Queries, keys and values of the first layer: only those of context vectors are new."""
        new = F.linear(block.ln_1(x[:, self.places]), block.qkv_weight, block.qkv_bias)
        return self.first_qkv.expand(len(x), -1, -1).index_copy(1, self.places, new)


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
        ends = tower.read_positions(self._ids) + 1
        self._prefix = _shared_length(self._ids, self._slots, int(ends.min()) - 1)
        # Where a class's computed tokens begin: after what is shared and what never changes.
        starts = (self._slots >= 0).int().argmax(dim=1).clamp(min=self._prefix)
        order = torch.argsort(starts * self._ids.shape[1] + ends, stable=True)
        self._unsort = torch.argsort(order)
        chunks = order.split(classes_at_once or len(order))

        nothing = order[:0]
        shared = self._row(self._prefix, nothing, nothing, nothing, read=False)
        # In a row of their own the shared tokens serve several chunks, or, unchanging, every call.
        self._shared = shared if len(chunks) > 1 and len(shared.places) else None
        self._states: list[_KeysAndValues] = []
        if not len(shared.places):
            with torch.no_grad():
                self._states = self._shared_states(shared, self._no_context())
        joined = 0 if self._shared or self._states else self._prefix
        self._rows = [
            self._row(joined, part, starts[part], ends[part], read=True) for part in chunks
        ]

    def _row(
        self, shared: int, classes: Tensor, starts: Tensor, ends: Tensor, *, read: bool
    ) -> _Row:
        """The shared tokens, if asked for, and each class's from its start to its end, packed."""
        device, lengths = classes.device, ends - starts
        positions = [torch.arange(shared, device=device)]
        positions += [
            torch.arange(int(a), int(b), device=device) for a, b in zip(starts, ends, strict=True)
        ]
        owners = torch.cat([classes.new_zeros(shared), classes.repeat_interleave(lengths)])
        at = torch.cat(positions)
        slot = self._slots[owners, at]
        table, dtype = self.tower.positional_embedding, self.tower.compute_dtype
        places = (slot >= 0).nonzero()[:, 0]
        tokens = self.tower.token_embedding[self._ids[owners, at]].to(dtype) + table[at].to(dtype)
        block = self.tower.blocks[0]
        with torch.no_grad():
            first_qkv = F.linear(block.ln_1(tokens), block.qkv_weight, block.qkv_bias)
        constant = starts - self._prefix
        groups = _groups(self._prefix, constant, lengths)
        return _Row(
            tokens=tokens,
            places=places,
            index=slot[places],
            positions=table[at[places]].to(dtype),
            first_qkv=first_qkv,
            shared=shared,
            groups=groups,
            read=shared + lengths.cumsum(0) - 1 if read else None,
            constants=self._constants(classes, starts, groups) if constant.any() else [],
        )

    @torch.no_grad()
    def _constants(
        self, classes: Tensor, ends: Tensor, groups: tuple[_Group, ...]
    ) -> list[list[_KeysAndValues]]:
        """Keys and values of the tokens between the shared ones and ``ends``, as in ``_Row``."""
        row = self._row(0, classes, torch.full_like(ends, self._prefix), ends, read=False)
        # Classes with equally many constant tokens are one group here, but several of ``groups``
        # where what comes after the constant tokens differs in length.
        counts = [[g.classes for g in groups if g.constant == part.length] for part in row.groups]
        x, found = row.embed(self._no_context()), []
        for depth in range(len(self.tower.blocks)):
            x, _, own = self._layer(depth, row, x, self._states[depth])
            found.append(
                [
                    (k_part.clone(), v_part.clone())  # without their queries
                    for (k, v), sizes in zip(own, counts, strict=True)
                    for k_part, v_part in zip(k.split(sizes, 2), v.split(sizes, 2), strict=True)
                ]
            )
        return found

    def _no_context(self) -> Tensor:
        return self.tower.token_embedding.new_zeros(1, 0, self.tower.width)

    def training_bytes(self, runs: int) -> int:
        """Upper bound of what a step keeps in memory for the gradient, weights not counted.

        With ``classes_at_once`` it is that of the largest chunk. The shared states come on top, and
        keys and values that never change, which are there once however many prompts train.
        """
        chunks = (
            sum(
                group.classes
                * bytes_per_class(self.tower, self._prefix, group.length, group.constant)
                for group in row.groups
            )
            for row in self._rows
        )
        shared = self._prefix * bytes_per_class(self.tower, self._prefix, 1)
        constants = sum(
            tensor.nbytes
            for row in self._rows
            for layer in row.constants
            for pair in layer
            for tensor in pair
        )
        return runs * (max(chunks) + shared) + constants

    def __call__(self, context: Tensor) -> Tensor:
        """Features of all classes under each prompt.

        Args:
            context: [K, M, W] shared by the classes, or [K, C, M, W] class-specific.

        Returns:
            L2-normalised features [K, C, D], fp32 (float64 for a float64 tower).
        """
        vectors = context.reshape(len(context), -1, context.shape[-1])
        states = self._shared_states(self._shared, vectors) if self._shared else self._states
        if len(self._rows) > 1 and torch.is_grad_enabled():
            parts = [
                checkpoint(
                    self._features,
                    row,
                    vectors,
                    states,
                    use_reentrant=False,
                    preserve_rng_state=False,  # nothing is drawn
                )
                for row in self._rows
            ]
        else:
            parts = [self._features(row, vectors, states) for row in self._rows]
        return torch.cat(parts, dim=1)[:, self._unsort]

    def _shared_states(self, row: _Row, vectors: Tensor) -> list[_KeysAndValues]:
        """Keys and values of the shared tokens in every layer, each [K, H, P, d]."""
        x, states = row.embed(vectors), []
        for depth in range(len(self.tower.blocks)):
            x, shared, _ = self._layer(depth, row, x, None)
            states.append(shared)
        return states

    def _features(self, row: _Row, vectors: Tensor, states: list[_KeysAndValues]) -> Tensor:
        """Features of a row's classes, [K, classes, D]."""
        x = row.embed(vectors)
        for depth in range(len(self.tower.blocks)):
            x, _, _ = self._layer(depth, row, x, states[depth] if states else None)
        features = self.tower.project(x)
        return F.normalize(
            features if features.dtype == torch.float64 else features.float(), dim=-1
        )

    def _layer(
        self, depth: int, row: _Row, x: Tensor, shared: _KeysAndValues | None
    ) -> tuple[Tensor, _KeysAndValues, list[_KeysAndValues]]:
        """One layer over a packed row, [K, n, W].

        Args:
            depth: which layer; the last one goes on with the tokens that are read, only.
            row: how ``x`` divides.
            x: the layer's input.
            shared: keys and values of the shared tokens; None when the row holds those tokens.

        Returns:
            The layer's output, keys and values of the shared tokens [K, H, P, d], and those of each
            group's own tokens [K, H, classes, length, d].
        """
        block = self.tower.blocks[depth]
        x, q, k, v = self._projections(depth, row, x)
        own = list(zip(k[1:], v[1:], strict=True))
        if shared is None:
            shared = (k[0].flatten(2, 3), v[0].flatten(2, 3))
        if not q:
            return x, shared, own
        outputs = []
        if q[0].numel():
            seen = F.scaled_dot_product_attention(q[0].flatten(2, 3), *shared, is_causal=True)
            outputs.append(seen.transpose(1, 2))
        for number, group in enumerate(row.groups):
            own_k, own_v = own[number]
            if row.constants:
                own_k, own_v = (
                    torch.cat([before.expand(len(x), -1, -1, -1, -1), new], dim=3)
                    for before, new in zip(row.constants[depth][number], own[number], strict=True)
                )
            seen = _attention(q[number + 1], own_k, own_v, shared, group.mask)
            outputs.append(seen.transpose(1, 2))
        if outputs:
            x = block.add_mlp(block.add_attended(x, torch.cat(outputs, dim=1).flatten(2)))
        return x, shared, own

    def _projections(
        self, depth: int, row: _Row, x: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Queries, keys and values in a layer, each by part of the row: shared tokens, groups.

        Returns:
            The tokens that go on [K, m, W], their queries, and all keys and values, each [K, H,
            classes, tokens, d]. In the last layer the tokens that are read go on; where none is,
            there are no queries.
        """
        block, width = self.tower.blocks[depth], self.tower.width
        classes = [1, *(group.classes for group in row.groups)]
        present = [row.shared, *(group.tokens for group in row.groups)]

        # Split by rows once: the gradient is one concatenation, where slices would each fill a
        # whole row. And bring to heads once: one copy, where each product would make its own.
        def parts(projected: Tensor, tokens: list[int]) -> list[tuple[Tensor, ...]]:
            split = zip(projected.split(tokens, dim=1), classes, strict=True)
            return list(zip(*(self._heads(part, count) for part, count in split), strict=True))

        if depth < len(self.tower.blocks) - 1:
            if depth == 0:
                qkv = row.first_projections(block, x)
            else:
                qkv = F.linear(block.ln_1(x), block.qkv_weight, block.qkv_bias)
            q, k, v = parts(qkv, present)
            return x, q, k, v
        normed = block.ln_1(x)
        kv = F.linear(normed, block.qkv_weight[width:], block.qkv_bias[width:])
        k, v = parts(kv, present)
        if row.read is None:
            return x, (), k, v
        asking = normed[:, row.read]
        asking = F.linear(asking, block.qkv_weight[:width], block.qkv_bias[:width])
        (q,) = parts(asking, [0, *(group.classes for group in row.groups)])
        return x[:, row.read], q, k, v

    def _heads(self, x: Tensor, classes: int) -> Tensor:
        """[K, classes * n, s W] -> [s, K, H, classes, n, W / H], contiguous."""
        parts = x.unflatten(-1, (-1, self.tower.heads, self.tower.width // self.tower.heads))
        return parts.unflatten(1, (classes, -1)).permute(3, 0, 4, 1, 2, 5).contiguous()


def _attention(
    q: Tensor, own_k: Tensor, own_v: Tensor, shared: _KeysAndValues, mask: Tensor
) -> Tensor:
    """Causal attention over shared and own keys, without copying the shared ones for each class.

    Args:
        q: queries of the last m of each class's n tokens, [K, H, classes, m, d].
        own_k, own_v: [K, H, classes, n, d].
        shared: keys and values, [K or 1, H, P, d] each.
        mask: its last m rows are those of the queries, [., P + n].

    Returns:
        [K, H, classes * m, d].
    """
    shared_k, shared_v = shared
    classes, m, d = q.shape[2:]
    to_shared = (q.flatten(2, 3) @ shared_k.transpose(-1, -2)).unflatten(2, (classes, m))
    scores = torch.cat([to_shared, q @ own_k.transpose(-1, -2)], dim=-1)
    wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    weights = torch.add(mask[-m:], wide, alpha=d**-0.5).softmax(dim=-1).to(scores.dtype)
    on_shared, on_own = weights.split([shared_k.shape[2], own_k.shape[3]], dim=-1)
    return on_shared.flatten(2, 3) @ shared_v + (on_own @ own_v).flatten(2, 3)


def bytes_per_class(tower: TextTower, shared: int, own: int, constant: int = 0) -> int:
    """Upper bound of the bytes that autograd keeps for one class of one prompt.

    Per token and layer it keeps both norms' inputs (2 W), queries, keys and values (3 W), the MLP's
    hidden layer before its activation and the attention weights; a frozen linear layer keeps
    nothing. Keys and values that never change are copied beside the others.

    Args:
        tower: gives widths, heads and layers.
        shared: number P of tokens that all classes share.
        own: number of tokens of the class's own that are computed.
        constant: number of those before them that never change.
    """
    width, hidden = tower.width, tower.blocks[0].fc_weight.shape[0]
    keys = shared + constant + own
    token = 6 * width + hidden + 3 * tower.heads * keys
    copied = 2 * width * (constant + own) if constant else 0
    layers = len(tower.blocks)
    floats = (layers - 1) * (own * token + copied) + own * 4 * width + copied + 8 * width
    return int(floats * tower.compute_dtype.itemsize)


def _shared_length(ids: Tensor, slots: Tensor, most: int) -> int:
    """How many leading positions are the same in all prompts (at most ``most``)."""
    differs = ((ids != ids[:1]) | (slots != slots[:1])).any(0)[:most].nonzero()
    return int(differs[0]) if len(differs) else most


def _groups(shared: int, constant: Tensor, lengths: Tensor) -> tuple[_Group, ...]:
    both = torch.stack([constant, lengths], dim=1)
    kinds, counts = torch.unique_consecutive(both, dim=0, return_counts=True)
    groups = []
    for (before, own), count in zip(kinds.tolist(), counts.tolist(), strict=True):
        later = torch.full((own, own), float("-inf"), device=lengths.device).triu_(1)
        groups.append(_Group(count, before, own, F.pad(later, (shared + before, 0))))
    return tuple(groups)
