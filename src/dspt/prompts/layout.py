"""Which token or context vector stands where in each class's prompt.

The layout is the whole specification of a prompt: both the fast engine and open_clip's own forward
pass are given the same two integer arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dspt.errors import UserError


@dataclass(frozen=True)
class PromptLayout:
    """Token ids of all prompts, and which positions the context vectors take.

    Attributes:
        ids: token ids, [C, L], padded as the tokenizer pads; positions of context vectors hold an
            ordinary token that only keeps the place.
        slots: [C, L]; -1 for a token, m for context vector m of the prompt.
        n_ctx: number M of context vectors of a prompt.
    """

    ids: Tensor
    slots: Tensor
    n_ctx: int

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.ids)


def build_layout(
    tokenizer: Callable[[Sequence[str]], Tensor],
    class_names: Sequence[str],
    n_ctx: int,
    position: str = "end",
) -> PromptLayout:
    """Lay out ``[SOS] [v1..vM] [class name] [.] [EOT]`` for every class.

    Source: CoOp (Zhou et al. 2022); "middle" puts the class name after M // 2 vectors, "front"
    before all of them; the full stop always ends the sentence.

    Works with any tokenizer that returns padded rows: the rows of ``"name."`` are tokenized as they
    are, and M positions are opened in them.

    Args:
        tokenizer: texts -> ids [n, L].
        class_names: C names as a person would write them.
        n_ctx: M.
        position: "end", "middle" or "front".

    Raises:
        UserError: when a name has no token, or a prompt does not fit into L tokens.
    """
    frame = _frame(tokenizer)
    named = tokenizer(list(class_names))
    stopped = tokenizer([f"{name}." for name in class_names])
    all_ids, all_slots = [], []
    for name, bare, row in zip(class_names, named, stopped, strict=True):
        used = frame.content_length(row)
        name_length = frame.content_length(bare) - frame.trail - frame.lead
        after_name = frame.lead + name_length
        if not torch.equal(bare[:after_name], row[:after_name]):
            # "c++." is "c", "+", "+.": the stop has become part of the name's last word.
            after_name = used - frame.trail
        if name_length < 1:
            raise UserError(f"class {name!r}: the tokenizer makes no token of this name; rename it")
        if used + n_ctx > frame.length:
            raise UserError(
                f"class {name!r}: its {name_length} tokens and {n_ctx} context vectors do not fit "
                f"into {frame.length} tokens; shorten the name or take fewer context vectors"
            )
        first = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        ids = torch.cat(
            [
                row[: frame.lead],
                row.new_full((first,), frame.word),
                row[frame.lead : after_name],
                row.new_full((n_ctx - first,), frame.word),
                row[after_name : frame.length - n_ctx],
            ]
        )
        slots = torch.full((frame.length,), -1, dtype=torch.long)
        slots[frame.lead : frame.lead + first] = torch.arange(first)
        slots[after_name + first : after_name + n_ctx] = torch.arange(first, n_ctx)
        all_ids.append(ids)
        all_slots.append(slots)
    return PromptLayout(torch.stack(all_ids), torch.stack(all_slots), n_ctx)


def words_of(tokenizer: Callable[[Sequence[str]], Tensor], text: str) -> Tensor:
    """Token ids of the words of ``text``, without what the tokenizer puts around them. [m]."""
    frame = _frame(tokenizer)
    row = tokenizer([text])[0]
    return row[frame.lead : frame.content_length(row) - frame.trail]


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer puts around every text."""

    lead: int  # tokens before the words: 1 for CLIP's [SOS], 0 for SigLIP
    trail: int  # tokens after them that are no padding: 1 for CLIP's [EOT]
    pad: int
    length: int
    word: int  # id of an ordinary word, to keep the place of a context vector

    def content_length(self, row: Tensor) -> int:
        """Number of tokens of a row before the padding."""
        kept = (row != self.pad).nonzero()
        return int(kept[-1]) + 1 if len(kept) else 0


def _frame(tokenizer: Callable[[Sequence[str]], Tensor]) -> _Frame:
    empty, a, dog = tokenizer(["", "a", "dog"])
    lead = int((a != dog).nonzero()[0])
    frame = _Frame(lead, 0, int(empty[-1]), len(empty), int(a[lead]))
    return replace(frame, trail=frame.content_length(empty) - lead)
