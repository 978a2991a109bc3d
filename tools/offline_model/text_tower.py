"""The text tower: open_clip's text transformer, distilled onto the closed-form targets.

The tower never sees a picture. It learns to map a phrase, in any prompt, to the phrase's target.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from itertools import pairwise

import open_clip
import torch
import torch.nn.functional as F
from lexicon import Lexicon
from open_clip.tokenizer import SimpleTokenizer
from settings import (
    CONSTANT_NORM,
    CONTEXT_LENGTH,
    EMBED_DIM,
    IMAGE_CONSTANT,
    IMAGE_SIZE,
    SEED,
    SEMANTIC_DIM,
    TEXT_CONSTANT,
    TEXT_HEADS,
    TEXT_LAYERS,
    TEXT_WIDTH,
    TIMM_MODEL,
    VOCAB_SIZE,
    Work,
)
from torch import Tensor, nn

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of {}.",
    "a picture of a {}.",
    "an image of {}",
    "a {}",
    "the {}",
    "an emoji of {}.",
    "a drawing of a {}.",
    "clip art of a {}.",
    "a type of {}",
    "{}.",
    "this is a {}.",
    "an icon showing {}",
    "a blurry photo of a {}.",
    "a good photo of {}.",
    "an object: {}",
    "a photo of a {}, a type of object.",
    "a centered picture of a {}.",
)

# Learned contexts usually start as N(0, 0.02): token rows get the same scale, so that neither
# drowns the other.
CONTEXT_STD = 0.02
TOKEN_NORM = CONTEXT_STD * math.sqrt(TEXT_WIDTH)

_MAX_PHRASE_TOKENS = 18
_SCALE = 16.0
_PEAK_RATE, _FLOOR_RATE, _WARM_UP = 1.5e-3, 1e-5, 100
_WEIGHT_DECAY = 0.02


def model_config() -> dict:
    """The `model_cfg` of the open_clip configuration file."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "timm_model_name": TIMM_MODEL,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "timm_proj_bias": True,
            "image_size": IMAGE_SIZE,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": VOCAB_SIZE,
            "width": TEXT_WIDTH,
            "heads": TEXT_HEADS,
            "layers": TEXT_LAYERS,
        },
    }


def build_clip() -> open_clip.CLIP:
    """An untrained model of the shipped architecture."""
    config = model_config()
    return open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])


def tokenizer() -> SimpleTokenizer:
    """Plain CLIP byte-pair encoding."""
    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


def forward_text(model: nn.Module, embedded: Tensor, last: Tensor) -> Tensor:
    """Projected features at position `last` of each row; rows may be shorter than the context."""
    length = embedded.shape[1]
    x = embedded + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x[torch.arange(len(x)), last])
    return x @ model.text_projection


@torch.no_grad()
def encode_names(
    model: nn.Module, names: list[str], template: str = "a photo of a {}.", batch: int = 256
) -> Tensor:
    """Unit text features of class names in one template."""
    encode = tokenizer()
    ids = encode([template.format(name) for name in names])
    last = ids.argmax(-1)
    length = int(last.max()) + 1
    parts = []
    for start in range(0, len(ids), batch):
        rows = slice(start, start + batch)
        embedded = model.token_embedding(ids[rows, :length])
        parts.append(F.normalize(forward_text(model, embedded, last[rows]), dim=-1))
    return torch.cat(parts)


def token_strings() -> list[str]:
    """The readable string of every vocabulary entry ('' where it is only part of a character)."""
    encode = tokenizer()
    strings = []
    for index in range(VOCAB_SIZE):
        piece = encode.decoder[index].removesuffix("</w>")
        raw = bytes(encode.byte_decoder[char] for char in piece if char in encode.byte_decoder)
        strings.append(raw.decode("utf-8", errors="ignore").strip())
    return strings


def initialise(model: nn.Module, token_targets: Tensor, generator: torch.Generator) -> None:
    """Start near 'sum the meanings of the tokens': from plain noise training is far slower.

    Every token row starts as the target of the token's own string, the first two layers pass
    values through almost unchanged, and the text projection is almost the identity.
    """

    def noise(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    identity = torch.eye(TEXT_WIDTH)
    with torch.no_grad():
        rows = noise(VOCAB_SIZE, TEXT_WIDTH, scale=0.005)
        rows[:, :SEMANTIC_DIM] += TOKEN_NORM * token_targets
        rows[-2:] = noise(2, TEXT_WIDTH, scale=CONTEXT_STD)  # start and end of text
        model.token_embedding.weight.copy_(rows)
        for block in model.transformer.resblocks[:2]:
            weight = block.attn.in_proj_weight
            weight[: 2 * TEXT_WIDTH] *= 0.3
            weight[2 * TEXT_WIDTH :] = identity + noise(TEXT_WIDTH, TEXT_WIDTH, scale=0.01)
            mixing = 0.3 * identity + noise(TEXT_WIDTH, TEXT_WIDTH, scale=0.01)
            block.attn.out_proj.weight.copy_(mixing)
        projection = 0.08 * identity + noise(TEXT_WIDTH, TEXT_WIDTH, scale=0.003)
        model.text_projection.copy_(projection)


@dataclass
class _Row:
    """One training text: token ids, and how many noise vectors follow the start token."""

    ids: list[int]
    noise: int


class _Sampler:
    """Puts phrases into prompts: bare, in a template, or behind a random context."""

    def __init__(self, phrases: list[str], generator: random.Random) -> None:
        encode = tokenizer()
        self.random = generator
        self.start, self.end = VOCAB_SIZE - 2, VOCAB_SIZE - 1
        self.stop = encode.encode(".")
        self.phrases = [encode.encode(phrase)[:_MAX_PHRASE_TOKENS] for phrase in phrases]
        self.templates = [
            tuple(encode.encode(part) for part in template.split("{}")) for template in TEMPLATES
        ]
        pieces = [*self.phrases, *(part for pair in self.templates for part in pair), self.stop]
        self.used = sorted({token for piece in pieces for token in piece})

    def row(self, index: int) -> _Row:
        """A random prompt around phrase number `index`."""
        phrase, draw = self.phrases[index], self.random.random()
        if draw < 0.4:
            return _Row([self.start, *phrase, self.end], 0)
        if draw < 0.8:
            before, after = self.random.choice(self.templates)
            return _Row([self.start, *before, *phrase, *after, self.end], 0)
        # Prompt learners put trained vectors in front of the name. Contexts of random tokens
        # and of noise teach the tower to keep reading the name behind them.
        count = self.random.choice((self.random.randint(1, 5), self.random.randint(1, 16)))
        after = self.stop if self.random.random() < 0.5 else []
        if draw < 0.92:
            filler = self.random.choices(self.used, k=count)
            return _Row([self.start, *filler, *phrase, *after, self.end], 0)
        return _Row([self.start, *[0] * count, *phrase, *after, self.end], count)


def train_text_tower(
    work: Work,
    lexicon: Lexicon,
    token_targets: Tensor,
    anchors: Tensor,
    steps: int,
    batch_size: int = 224,
) -> open_clip.CLIP:
    """Distil the targets into a fresh text tower and return the whole (half-built) model.

    `anchors` are the unit rows of the ImageNet classes: matching the softmax over them teaches
    the differences that decide a classification, which the plain cosine hardly weighs.
    """
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = build_clip()
    initialise(model, token_targets, generator)
    sampler = _Sampler(lexicon.phrases, random.Random(SEED))
    trainer = _Trainer(model, sampler, lexicon.targets, anchors, generator)
    order = torch.multinomial(
        lexicon.weights, batch_size * steps, replacement=True, generator=generator
    ).view(steps, batch_size)
    began = time.time()
    for step in range(steps):
        warm = min(1.0, (step + 1) / _WARM_UP)
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        report = trainer.step(order[step].tolist(), _PEAK_RATE * warm * cosine + _FLOOR_RATE)
        if step % 100 == 0 or step == steps - 1:
            print(f"text step {step} {report} {time.time() - began:.0f}s", flush=True)
        if step % 500 == 499:  # something to fall back on when a long run is cut off
            trainer.write_back()
            torch.save(text_state(model), work.cache("text_tower_partial.pt"))
    trainer.write_back()
    return model.eval().requires_grad_(False)


def text_state(model: nn.Module) -> dict[str, Tensor]:
    """The text tower's part of the state dict."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith("visual.")}


class _Trainer:
    def __init__(
        self,
        model: open_clip.CLIP,
        sampler: _Sampler,
        targets: Tensor,
        anchors: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.model, self.sampler = model, sampler
        self.targets, self.anchors, self.generator = targets, anchors, generator
        # Only rows of tokens that occur are trained: a dense optimiser over all 49,408 rows
        # would spend most of its time on rows without a gradient.
        self.rows = torch.tensor([*sampler.used, sampler.start, sampler.end])
        self.position = torch.zeros(VOCAB_SIZE, dtype=torch.long)
        self.position[self.rows] = torch.arange(len(self.rows))
        self.table = nn.Parameter(model.token_embedding.weight.detach()[self.rows].clone())
        named = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if not name.startswith(("visual.", "token_embedding", "logit_"))
        ]
        matrices = [p for name, p in named if p.ndim >= 2 and "embedding" not in name]
        others = [p for name, p in named if p.ndim < 2 or "embedding" in name]
        self.parameters = [*matrices, *others, self.table]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": _WEIGHT_DECAY},
                {"params": [*others, self.table], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.smooth: float | None = None

    def step(self, indices: list[int], rate: float) -> str:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        rows = [self.sampler.row(index) for index in indices]
        by_length = sorted(range(len(rows)), key=lambda at: len(rows[at].ids))
        chunks = _split(by_length, (0.4, 0.3, 0.2, 0.1))
        output = torch.cat([self._forward([rows[at] for at in chunk]) for chunk in chunks])
        target = self.targets[torch.tensor([indices[at] for at in by_length])]
        loss, cosine = self._loss(output, target)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.smooth = cosine if self.smooth is None else 0.98 * self.smooth + 0.02 * cosine
        return f"cosine {self.smooth:.3f} loss {loss.item():.3f}"

    def _forward(self, rows: list[_Row]) -> Tensor:
        length = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        noisy = torch.zeros(len(rows), length, dtype=torch.bool)
        for at, row in enumerate(rows):
            ids[at, : len(row.ids)] = torch.tensor(row.ids)
            noisy[at, 1 : 1 + row.noise] = True
        embedded = F.embedding(self.position[ids], self.table)
        if noisy.any():
            noise = torch.randn(embedded.shape, generator=self.generator) * CONTEXT_STD
            embedded = torch.where(noisy[..., None], noise, embedded)
        last = torch.tensor([len(row.ids) - 1 for row in rows])
        # Half precision is several times faster on recent CPUs; weights and losses stay in fp32.
        with torch.autocast("cpu", torch.bfloat16):
            output = forward_text(self.model, embedded, last)
        return output.float()

    def _loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, float]:
        semantic = output[:, :SEMANTIC_DIM]
        unit = F.normalize(semantic, dim=-1)
        cosine = (unit * target).sum(-1).mean()
        anchored = _divergence(unit @ self.anchors.t(), target @ self.anchors.t())
        relational = _divergence(unit @ target.t(), target @ target.t())
        # Unit length in the semantic part, a fixed number in the text's constant dimension,
        # nothing in the image's.
        shape = (
            ((semantic.norm(dim=-1) - 1) ** 2).mean()
            + ((output[:, TEXT_CONSTANT] - CONSTANT_NORM) ** 2).mean()
            + (output[:, IMAGE_CONSTANT] ** 2).mean()
        )
        loss = 2 * (1 - cosine) + anchored + 0.5 * relational + 0.3 * shape
        return loss, cosine.item()

    def write_back(self) -> None:
        """Put the trained token rows into the model's full table."""
        with torch.no_grad():
            self.model.token_embedding.weight[self.rows] = self.table


def _divergence(similarity: Tensor, wanted: Tensor) -> Tensor:
    """KL divergence between the softmaxes of two similarity matrices."""
    log_p, q = (_SCALE * similarity).log_softmax(-1), (_SCALE * wanted).softmax(-1)
    return F.kl_div(log_p, q, reduction="batchmean")


def _split(items: list[int], shares: tuple[float, ...]) -> list[list[int]]:
    """Cut a list into consecutive parts of the given shares."""
    bounds = [0]
    for share in shares:
        bounds.append(bounds[-1] + round(share * len(items)))
    bounds[-1] = len(items)
    return [items[a:b] for a, b in pairwise(bounds) if b > a]
