from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import WordTokenizer, clip_tokenizer

from dspt.errors import UserError
from dspt.prompts import build_layout
from dspt.prompts.layout import words_of

SOS, EOT, STOP = 49406, 49407, 269
DOG, GREAT, WHITE, SHARK = 1929, 830, 1579, 7980
A = 320


def described(layout: object, row: int) -> list[object]:
    """A prompt as a list: "v0", "v1", ... for context vectors, numbers for tokens, no padding."""
    ids, slots = layout.ids[row], layout.slots[row]  # type: ignore[attr-defined]
    read = int(ids.argmax())
    assert not ids[read + 1 :].any(), "something stands behind [EOT]"
    assert bool((slots[read:] < 0).all())
    return [
        f"v{slot}" if slot >= 0 else token
        for token, slot in zip(ids[: read + 1].tolist(), slots[: read + 1].tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("position", "dog", "shark"),
    [
        (
            "end",
            [SOS, "v0", "v1", "v2", DOG, STOP, EOT],
            [SOS, "v0", "v1", "v2", GREAT, WHITE, SHARK, STOP, EOT],
        ),
        (
            "middle",
            [SOS, "v0", DOG, "v1", "v2", STOP, EOT],
            [SOS, "v0", GREAT, WHITE, SHARK, "v1", "v2", STOP, EOT],
        ),
        (
            "front",
            [SOS, DOG, "v0", "v1", "v2", STOP, EOT],
            [SOS, GREAT, WHITE, SHARK, "v0", "v1", "v2", STOP, EOT],
        ),
    ],
)
def test_every_token_has_its_place(position: str, dog: list, shark: list) -> None:
    layout = build_layout(clip_tokenizer(), ["dog", "great white shark"], 3, position)
    assert described(layout, 0) == dog
    assert described(layout, 1) == shark
    assert layout.ids.shape == layout.slots.shape == (2, 77)
    assert (layout.num_classes, layout.n_ctx) == (2, 3)


@pytest.mark.parametrize(
    ("name", "name_tokens", "stop"),
    [
        ("b-52", [321, 268, 276, 273], [STOP]),
        ("naïve", [1097, 35689, 563], [STOP]),
        ("日本", [39121, 19277, 361], [STOP]),
        ("Dog", [DOG], [STOP]),
        ("  great   white shark ", [GREAT, WHITE, SHARK], [STOP]),
        # The tokenizer glues the stop to what stands before it, so it belongs to the name.
        ("u.s.", [340, 269, 338, 852], []),
        ("c++", [322, 10, 25238], []),
        ("+", [25238], []),
        ("?", [41251], []),
        (".", [852], []),
    ],
)
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_names_that_are_no_plain_words(
    name: str, name_tokens: list[int], stop: list[int], position: str
) -> None:
    layout = build_layout(clip_tokenizer(), [name], 2, position)
    middle: list[object] = {
        "end": ["v0", "v1", *name_tokens],
        "middle": ["v0", *name_tokens, "v1"],
        "front": [*name_tokens, "v0", "v1"],
    }[position]
    assert described(layout, 0) == [SOS, *middle, *stop, EOT]


@pytest.mark.parametrize("words", range(1, 21))
def test_names_of_up_to_twenty_tokens(words: int) -> None:
    name = " ".join(["dog", "shark"] * 10).split()[:words]
    layout = build_layout(clip_tokenizer(), [" ".join(name)], 16)
    tokens = [DOG if word == "dog" else SHARK for word in name]
    vectors = [f"v{m}" for m in range(16)]
    assert described(layout, 0) == [SOS, *vectors, *tokens, STOP, EOT]


@given(
    st.text(max_size=30),
    st.sampled_from([1, 4, 16]),
    st.sampled_from(["end", "middle", "front"]),
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_laid_out_whole_or_refused(name: str, n_ctx: int, position: str) -> None:
    """Without the context vectors the prompt is the tokenizer's own row of "name."."""
    tokenizer = clip_tokenizer()
    bare = tokenizer([name])[0]
    if bare[1] == EOT:
        with pytest.raises(UserError, match="no token of this name"):
            build_layout(tokenizer, [name], n_ctx, position)
        return
    if int(tokenizer([f"{name}."])[0].argmax()) + 1 + n_ctx > 77:
        with pytest.raises(UserError, match="do not fit"):
            build_layout(tokenizer, [name], n_ctx, position)
        return
    layout = build_layout(tokenizer, [name], n_ctx, position)
    kept = layout.slots[0] < 0
    own = layout.ids[0][kept]
    assert torch.equal(own, tokenizer([f"{name}."])[0][: len(own)])
    assert layout.slots[0][~kept].tolist() == list(range(n_ctx))
    assert described(layout, 0)[0] == SOS


def test_a_prompt_that_just_fits_and_one_that_does_not() -> None:
    fits = " ".join(["dog"] * (77 - 16 - 3))
    layout = build_layout(clip_tokenizer(), [fits], 16)
    assert layout.ids[0, -1] == EOT
    with pytest.raises(UserError, match=r"59 tokens and 16 context vectors .* into 77 tokens"):
        build_layout(clip_tokenizer(), ["cat", fits + " dog"], 16)
    with pytest.raises(UserError, match="do not fit"):
        build_layout(clip_tokenizer(), ["dog " * 500], 1)


@pytest.mark.parametrize("name", ["", "   "])
def test_a_name_without_a_token_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no token of this name"):
        build_layout(clip_tokenizer(), ["dog", name], 4)


def test_words_of_a_text() -> None:
    assert words_of(clip_tokenizer(), "a photo of a").tolist() == [A, 1125, 539, A]
    assert words_of(clip_tokenizer(), "").tolist() == []


def test_tokenizer_without_a_start_token() -> None:
    """As SigLIP's: nothing in front, and the padding is the end token itself."""
    tokenizer = WordTokenizer(8, start=None, end=1, pad=1, stop=2)
    tokenizer(["a dog white shark"])
    a, dog, white, shark = range(10, 14)
    end = build_layout(tokenizer, ["dog", "white shark"], 2)
    assert end.slots.tolist() == [[0, 1, *[-1] * 6]] * 2
    assert end.ids.tolist() == [
        [a, a, dog, 2, 1, 1, 1, 1],
        [a, a, white, shark, 2, 1, 1, 1],
    ]
    front = build_layout(tokenizer, ["dog", "white shark"], 2, "front")
    assert front.slots.tolist() == [
        [-1, 0, 1, -1, -1, -1, -1, -1],
        [-1, -1, 0, 1, -1, -1, -1, -1],
    ]
    assert front.ids[1].tolist() == [white, shark, a, a, 2, 1, 1, 1]
    assert words_of(tokenizer, "white shark").tolist() == [white, shark]
    with pytest.raises(UserError, match="do not fit into 8"):
        build_layout(tokenizer, ["white shark dog dog dog dog"], 2)


def test_tokenizer_that_drops_punctuation() -> None:
    tokenizer = WordTokenizer(9, start=5, end=6, pad=0, stop=None)
    tokenizer(["a dog white shark"])
    a, dog, white, shark = range(10, 14)
    front = build_layout(tokenizer, ["dog", "white shark"], 3, "front")
    assert front.ids.tolist() == [
        [5, dog, a, a, a, 6, 0, 0, 0],
        [5, white, shark, a, a, a, 6, 0, 0],
    ]
    assert front.slots[1].tolist() == [-1, -1, -1, 0, 1, 2, -1, -1, -1]
    with pytest.raises(UserError, match="no token of this name"):
        build_layout(tokenizer, ["."], 1)
