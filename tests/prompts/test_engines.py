"""The fast engine, open_clip's own pass with exchanged embeddings, and written-out texts agree."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIP
from tests.models import (
    WordTokenizer,
    backbone_of,
    build_model,
    clip_tokenizer,
    tiny_backbone,
    tiny_backbone_fp64,
    tiny_config,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dspt.backbones import Backbone
from dspt.configuration import PromptConfig
from dspt.errors import UserError
from dspt.prompts import PromptLayout, TextEngine, build_layout, initial_context, text_engine
from dspt.prompts.plain import plain_features
from dspt.prompts.shared_prefix import SharedPrefixEngine

MIXED = ["dog", "great white shark", "cat", "siberian husky", "b-52", "a very long name of a class"]
SAME_START = ["great white shark", "great white heron", "great grey owl", "great"]
ONE_LENGTH = ["dog", "cat", "owl", "shark"]
PREFIXES = ["dog", "dog dog", "dog dog dog"]
# The word that keeps the place of a context vector in the token ids, as a name of its own.
STOPS = ["naïve u.s.", "dog dog u.s. dog", "u.s.", "dog dog", "dog u.s. dog", "naïve dog dog"]
PLACE_KEEPERS = ["a", "a a", "a a dog"]
POSITIONS = ["end", "middle", "front"]
WORDS = ["dog", "cat", "great", "white", "shark", "u.s.", "b-52", "naïve", "antirrhinum", "7"]


def engines(
    backbone: Backbone, names: list[str], n_ctx: int, position: str, class_specific: bool
) -> tuple[TextEngine, TextEngine]:
    """(fast, plain) for the same prompts."""
    layout = build_layout(backbone.tokenizer, names, n_ctx, position)
    assert backbone.text_tower is not None
    fast = SharedPrefixEngine(backbone.text_tower, layout, class_specific=class_specific)
    return fast, lambda context: plain_features(backbone.model, layout, context)


def random_context(
    names: list[str], n_ctx: int, class_specific: bool, runs: int, dtype: torch.dtype, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (runs, len(names), n_ctx, 32) if class_specific else (runs, n_ctx, 32)
    return 0.3 * torch.randn(shape, generator=generator, dtype=dtype)


def features_and_gradient(engine: TextEngine, context: Tensor) -> tuple[Tensor, Tensor]:
    leaf = context.clone().requires_grad_(True)
    features = engine(leaf)
    direction = torch.randn(
        features.shape, generator=torch.Generator().manual_seed(1), dtype=features.dtype
    )
    (features * direction).sum().backward()
    assert leaf.grad is not None
    return features.detach(), leaf.grad


def assert_agree(
    fast: TextEngine, plain: TextEngine, context: Tensor, features_atol: float, gradient_rtol: float
) -> None:
    ours, our_gradient = features_and_gradient(fast, context)
    theirs, their_gradient = features_and_gradient(plain, context)
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=0, atol=features_atol)
    assert their_gradient.norm() > 1e-3, "the context has no influence: nothing was compared"
    assert (our_gradient - their_gradient).norm() <= gradient_rtol * their_gradient.norm()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("class_specific", [False, True], ids=["shared", "class-specific"])
@pytest.mark.parametrize("n_ctx", [1, 4, 16])
@pytest.mark.parametrize("runs", [1, 3])
def test_fast_is_plain(position: str, class_specific: bool, n_ctx: int, runs: int) -> None:
    """At fp64's exactness, and at fp32's."""
    for backbone, dtype, features_atol, gradient_rtol in [
        (tiny_backbone_fp64(), torch.float64, 1e-10, 1e-10),
        (tiny_backbone(), torch.float32, 1e-5, 1e-4),
    ]:
        fast, plain = engines(backbone, MIXED, n_ctx, position, class_specific)
        context = random_context(MIXED, n_ctx, class_specific, runs, dtype)
        assert_agree(fast, plain, context, features_atol, gradient_rtol)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("class_specific", [False, True], ids=["shared", "class-specific"])
@pytest.mark.parametrize(
    "names",
    [SAME_START, ONE_LENGTH, PREFIXES, PLACE_KEEPERS, STOPS, ["dog"], ["dog", "dog"]],
    ids=[
        "same-start",
        "one-length",
        "prefixes",
        "place-keepers",
        "stops",
        "one-class",
        "twice-the-same",
    ],
)
def test_fast_is_plain_for_special_lists_of_names(
    names: list[str], class_specific: bool, position: str
) -> None:
    fast, plain = engines(tiny_backbone_fp64(), names, 3, position, class_specific)
    context = random_context(names, 3, class_specific, 2, torch.float64)
    assert_agree(fast, plain, context, 1e-10, 1e-10)


@given(
    st.lists(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(POSITIONS),
    st.booleans(),
    st.integers(1, 9),
    st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_fast_is_plain_for_any_names(
    names: list[str], position: str, class_specific: bool, n_ctx: int, seed: int
) -> None:
    fast, plain = engines(tiny_backbone_fp64(), names, n_ctx, position, class_specific)
    context = random_context(names, n_ctx, class_specific, 1, torch.float64, seed)
    assert_agree(fast, plain, context, 1e-10, 1e-10)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("class_specific", [False, True], ids=["shared", "class-specific"])
def test_fast_is_plain_for_shallow_towers(layers: int, class_specific: bool) -> None:
    """The first layer has a short cut, the last one another: here they meet."""
    backbone = backbone_of(build_model(tiny_config(layers=layers)).double())
    for position in POSITIONS:
        fast, plain = engines(backbone, MIXED, 4, position, class_specific)
        context = random_context(MIXED, 4, class_specific, 2, torch.float64)
        assert_agree(fast, plain, context, 1e-10, 1e-10)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("class_specific", [False, True], ids=["shared", "class-specific"])
@pytest.mark.parametrize("pooling", ["last", "argmax"])
def test_fast_is_plain_without_a_start_token(
    position: str, class_specific: bool, pooling: str
) -> None:
    """Then class-specific prompts, or names in front, have no token in common at all."""
    if pooling == "last":
        tokenizer = WordTokenizer(12, start=None, end=1, pad=1, stop=2)
    else:
        tokenizer = WordTokenizer(12, start=None, end=63, pad=0, stop=2)
    config = tiny_config(context_length=12, vocab_size=64, pool_type=pooling)
    backbone = backbone_of(build_model(config).double(), tokenizer)
    names = ["dog", "cat", "great white shark"]
    fast, plain = engines(backbone, names, 2, position, class_specific)
    context = random_context(names, 2, class_specific, 2, torch.float64)
    assert_agree(fast, plain, context, 1e-10, 1e-10)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("class_specific", [False, True], ids=["shared", "class-specific"])
def test_prompts_side_by_side_are_the_prompts_alone(position: str, class_specific: bool) -> None:
    for engine in engines(tiny_backbone_fp64(), MIXED, 4, position, class_specific):
        context = random_context(MIXED, 4, class_specific, 5, torch.float64)
        together, gradient = features_and_gradient(engine, context)
        for k in range(5):
            leaf = context[k : k + 1].clone().requires_grad_(True)
            alone = engine(leaf)
            torch.testing.assert_close(together[k], alone[0].detach(), rtol=0, atol=1e-12)
        assert (together[0] - together[1]).abs().max() > 1e-3
        generator = torch.Generator().manual_seed(1)
        direction = torch.randn(together.shape, generator=generator, dtype=torch.float64)
        (alone[0] * direction[4]).sum().backward()
        torch.testing.assert_close(gradient[4], leaf.grad[0], rtol=1e-10, atol=1e-12)


def test_the_order_of_the_classes_does_not_matter() -> None:
    context = random_context(MIXED, 4, False, 1, torch.float64)
    fast, _ = engines(tiny_backbone_fp64(), MIXED, 4, "end", False)
    turned, _ = engines(tiny_backbone_fp64(), MIXED[::-1], 4, "end", False)
    torch.testing.assert_close(fast(context)[0], turned(context)[0].flip(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("class_specific", [False, True], ids=["shared", "class-specific"])
def test_the_tokens_of_a_template_are_exactly_the_prior(class_specific: bool) -> None:
    """Start "a photo of a" and step 0 is the zero-shot classifier, whichever engine runs."""
    backbone = tiny_backbone()
    config = PromptConfig(init="a photo of a", class_specific=class_specific)
    start = initial_context(backbone, config, len(MIXED), seed=0)
    literal = backbone.model.encode_text(clip_tokenizer()([f"a photo of a {n}." for n in MIXED]))
    prior = F.normalize(literal, dim=-1)
    torch.testing.assert_close(prior, backbone.zero_shot_features(MIXED, "a photo of a {}."))
    fast, plain = engines(backbone, MIXED, 4, "end", class_specific)
    torch.testing.assert_close(fast(start[None])[0], prior, rtol=0, atol=1e-5)
    assert torch.equal(plain(start[None])[0], prior), "the same operations on the same numbers"


@pytest.mark.parametrize(("position", "text"), [("front", "{} seen from above."), ("end", "x {}.")])
def test_other_positions_are_the_written_out_text(position: str, text: str) -> None:
    backbone = tiny_backbone()
    words = text.replace("{}", "").rstrip(".").strip()
    start = initial_context(backbone, PromptConfig(init=words), 1, seed=0)
    prior = backbone.zero_shot_features(MIXED, text)
    for engine in engines(backbone, MIXED, len(start), position, False):
        torch.testing.assert_close(engine(start[None])[0], prior, rtol=0, atol=1e-5)


@pytest.mark.parametrize("class_specific", [False, True], ids=["shared", "class-specific"])
def test_bf16_runs_and_is_close(class_specific: bool) -> None:
    from open_clip.model import convert_weights_to_lp

    config = tiny_config()
    half = CLIP(**config, cast_dtype=torch.bfloat16)
    half.load_state_dict(build_model(config).state_dict())
    convert_weights_to_lp(half, torch.bfloat16)
    half.eval().requires_grad_(False)
    context = random_context(MIXED, 4, class_specific, 2, torch.float32)
    exact, _ = engines(tiny_backbone(), MIXED, 4, "end", class_specific)
    exact_features, exact_gradient = features_and_gradient(exact, context)
    for engine in engines(backbone_of(half), MIXED, 4, "end", class_specific):
        features, gradient = features_and_gradient(engine, context)
        assert features.dtype == torch.float32
        assert gradient.dtype == torch.float32
        assert F.cosine_similarity(features, exact_features, dim=-1).min() > 0.999
        flat = gradient.flatten(), exact_gradient.flatten()
        assert F.cosine_similarity(*flat, dim=0) > 0.99


def test_features_have_length_one() -> None:
    for engine in engines(tiny_backbone(), MIXED, 4, "end", False):
        features = engine(random_context(MIXED, 4, False, 2, torch.float32))
        assert features.shape == (2, len(MIXED), 24)
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, len(MIXED)))


def test_plain_in_parts_is_plain_at_once() -> None:
    backbone = tiny_backbone_fp64()
    layout = build_layout(backbone.tokenizer, MIXED, 4, "end")
    for class_specific in (False, True):
        context = random_context(MIXED, 4, class_specific, 2, torch.float64)
        torch.testing.assert_close(
            plain_features(backbone.model, layout, context, rows_at_once=4),
            plain_features(backbone.model, layout, context),
            rtol=0,
            atol=1e-12,
        )


def test_plain_leaves_no_hook_behind_even_when_the_model_fails() -> None:
    backbone = tiny_backbone()
    layout = build_layout(backbone.tokenizer, MIXED, 4, "end")
    context = random_context(MIXED, 4, False, 1, torch.float32)
    too_long = PromptLayout(layout.ids.repeat(1, 2), layout.slots.repeat(1, 2), 4)
    with pytest.raises(RuntimeError):
        plain_features(backbone.model, too_long, context)
    plain_features(backbone.model, layout, context)
    assert not backbone.model.token_embedding._forward_hooks


def test_no_gradient_reaches_the_model() -> None:
    backbone = tiny_backbone()
    for engine in engines(backbone, MIXED, 4, "end", False):
        features_and_gradient(engine, random_context(MIXED, 4, False, 1, torch.float32))
        assert all(p.grad is None for p in backbone.model.parameters())


def products(engine: TextEngine, context: Tensor) -> int:
    """Floating-point operations in matrix products of one forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        engine(context)
    return counter.get_total_flops()


def test_what_the_classes_share_is_computed_once() -> None:
    """The point of the fast engine: beyond the first, a class costs its own few tokens."""
    names = ["dog", "cat", "owl", "shark"]
    work = {}
    for count in (1, 2, 4):
        fast, plain = engines(tiny_backbone(), names[:count], 16, "end", False)
        context = random_context(names, 16, False, 1, torch.float32)
        work[count] = products(fast, context)
        assert work[count] < products(plain, context) / (2.5 * count)
    assert work[4] - work[2] < 1.1 * (work[2] - work[1]) * 2
    assert work[4] < 1.6 * work[1]


def test_what_stands_before_the_context_is_computed_once_per_engine() -> None:
    """A name in front of it costs a step nothing but the attention that is paid to it."""
    context = random_context(ONE_LENGTH, 16, False, 1, torch.float32)
    work = {}
    for words in (1, 2, 8):
        names = [" ".join([name] * words) for name in ONE_LENGTH]
        fast, _ = engines(tiny_backbone(), names, 16, "front", False)
        work[words] = products(fast, context)
        behind, _ = engines(tiny_backbone(), names, 16, "end", False)
        work[-words] = products(behind, context)
    # 16 + 2 tokens ask in all layers but the last, one there: two products over the width.
    asking = 18 * (len(tiny_backbone().text_tower.blocks) - 1) + 1
    assert work[2] - work[1] == len(ONE_LENGTH) * asking * 2 * 2 * 32
    assert 6 * (work[2] - work[1]) == work[8] - work[2]
    assert work[-2] - work[-1] > 3 * (work[2] - work[1])


def test_what_stands_before_the_context_has_no_gradient() -> None:
    fast, _ = engines(tiny_backbone(), MIXED, 4, "front", False)
    assert isinstance(fast, SharedPrefixEngine)
    kept = [
        tensor for row in fast._rows for layer in row.constants for kv in layer for tensor in kv
    ]
    assert sum(tensor.numel() for tensor in kept) > 0
    assert not any(tensor.requires_grad for tensor in kept)
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept) == sum(
        tensor.nbytes for tensor in kept
    ), "nothing else is kept alive with them"


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("class_specific", [False, True], ids=["shared", "class-specific"])
@pytest.mark.parametrize("classes_at_once", [1, 4, 100])
def test_few_classes_at_once_are_all_classes(
    position: str, class_specific: bool, classes_at_once: int
) -> None:
    backbone = tiny_backbone_fp64()
    layout = build_layout(backbone.tokenizer, MIXED, 4, position)
    parts = SharedPrefixEngine(
        backbone.text_tower, layout, class_specific=class_specific, classes_at_once=classes_at_once
    )
    whole, _ = engines(backbone, MIXED, 4, position, class_specific)
    context = random_context(MIXED, 4, class_specific, 2, torch.float64)
    assert_agree(parts, whole, context, 1e-12, 1e-12)
    with torch.no_grad():
        torch.testing.assert_close(parts(context), whole(context), rtol=0, atol=1e-12)


def test_the_door_takes_the_fast_way_where_there_is_one() -> None:
    backbone = tiny_backbone()
    context = random_context(MIXED, 4, False, 1, torch.float32)
    fast = text_engine(backbone, MIXED, 4, position="middle")
    assert isinstance(fast, SharedPrefixEngine)
    refused = dataclasses.replace(backbone, text_tower=None, text_note="as if refused")
    slow = text_engine(refused, MIXED, 4, position="middle")
    assert not isinstance(slow, SharedPrefixEngine)
    torch.testing.assert_close(fast(context), slow(context), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="do not fit"):
        text_engine(backbone, ["dog " * 70], 16)


def bytes_kept_for_the_gradient(engine: SharedPrefixEngine, context: Tensor) -> int:
    """What autograd saves in one call, weights not counted, each block of memory once."""
    tower = engine.tower
    weights = [tower.token_embedding, tower.positional_embedding, tower.projection]
    for block in tower.blocks:
        weights += [*block.ln_1.parameters(), *block.ln_2.parameters()]
        weights += [value for value in vars(block).values() if isinstance(value, Tensor)]
    known = {t.untyped_storage().data_ptr() for t in weights if t is not None}
    kept: dict[int, Tensor] = {}  # holds the tensors, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in known:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        engine(context.clone().requires_grad_(True))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("words", [1, 2, 6])
@pytest.mark.parametrize("layers", [2, 12])
def test_memory_is_known_beforehand(
    layers: int, words: int, quick_gelu: bool, position: str
) -> None:
    config = tiny_config(width=128, heads=2, layers=layers, quick_gelu=quick_gelu)
    backbone = backbone_of(build_model(config))
    assert backbone.text_tower is not None
    names = ["cat"] + [" ".join(["dog"] * words)] * 60
    layout = build_layout(backbone.tokenizer, names, 16, position)
    engine = SharedPrefixEngine(backbone.text_tower, layout, class_specific=False)
    for runs in (1, 3):
        kept = bytes_kept_for_the_gradient(engine, 0.02 * torch.randn(runs, 16, 128))
        bound = engine.training_bytes(runs)
        assert kept <= bound <= 2 * kept


def test_many_classes_are_computed_in_chunks_that_fit() -> None:
    backbone = tiny_backbone()
    names = [f"{a} {b}" for a in WORDS for b in WORDS]
    whole = text_engine(backbone, names, 4)
    assert isinstance(whole, SharedPrefixEngine)
    limit = whole.training_bytes(2) // 5
    chunked = text_engine(backbone, names, 4, runs=2, memory_limit=limit)
    assert isinstance(chunked, SharedPrefixEngine)
    assert chunked.training_bytes(2) <= 1.5 * limit  # classes are not all of one length
    context = random_context(names, 4, False, 2, torch.float32)
    assert_agree(chunked, whole, context, 1e-6, 1e-5)
