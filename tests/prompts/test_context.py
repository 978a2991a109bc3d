from __future__ import annotations

import subprocess
import sys
from hashlib import sha256

import pytest
import torch
from tests.models import backbone_of, build_model, clip_tokenizer, tiny_backbone, tiny_config

from dspt.configuration import PromptConfig
from dspt.errors import UserError
from dspt.prompts import initial_context

PINNED = [-0.0111292265, 0.0128971990, 0.0158162322, -0.0143406121]


def random_start(
    seed: int, *, n_ctx: int | None = None, class_specific: bool = False
) -> torch.Tensor:
    config = PromptConfig(n_ctx=n_ctx, class_specific=class_specific)
    return initial_context(tiny_backbone(), config, 5, seed)


def test_a_seed_names_the_start_and_zero_is_a_seed() -> None:
    for seed in (0, 1, -3, 2**40):
        torch.manual_seed(seed % 7)
        first = random_start(seed)
        torch.rand(3)
        assert torch.equal(first, random_start(seed))
    seeds = [random_start(seed) for seed in (0, 1, 2, -1)]
    for i, a in enumerate(seeds):
        for b in seeds[i + 1 :]:
            assert (a - b).abs().mean() > 0.01


def test_drawing_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    random_start(3)
    assert torch.equal(before, torch.get_rng_state())


def test_the_random_start_is_normal_with_deviation_002() -> None:
    start = random_start(0, n_ctx=500)
    assert start.shape == (500, 32)
    assert start.dtype == torch.float32
    assert start.std().item() == pytest.approx(0.02, rel=0.03)
    assert start.mean().item() == pytest.approx(0.0, abs=6e-4)
    inside = (start.abs() < 0.02).float().mean().item()
    assert inside == pytest.approx(0.683, abs=0.02)


def test_shapes() -> None:
    assert random_start(0).shape == (16, 32)
    assert random_start(0, n_ctx=4).shape == (4, 32)
    own = random_start(0, n_ctx=4, class_specific=True)
    assert own.shape == (5, 4, 32)
    assert (own[0] - own[1]).abs().mean() > 0.01


def test_a_fresh_process_and_a_later_version_start_alike() -> None:
    """If the pinned numbers fail, old runs cannot be reproduced any more: do not update them."""
    code = """
from hashlib import sha256
from types import SimpleNamespace
import torch
from dspt.configuration import PromptConfig
from dspt.prompts import initial_context
model = torch.nn.Module()
model.token_embedding = torch.nn.Embedding(9, 32)
backbone = SimpleNamespace(model=model, device="cpu")
start = initial_context(backbone, PromptConfig(), 5, seed=0)
print(sha256(start.numpy().tobytes()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start = random_start(0)
    assert done.stdout.strip() == sha256(start.numpy().tobytes()).hexdigest()
    assert start[0, :4].tolist() == pytest.approx(PINNED, abs=1e-8)


def test_a_template_starts_at_its_token_embeddings() -> None:
    backbone = tiny_backbone()
    table = backbone.model.token_embedding.weight
    ids = clip_tokenizer()(["a photo of a"])[0, 1:5]
    start = initial_context(backbone, PromptConfig(init="a photo of a"), 5, seed=0)
    assert torch.equal(start, table[ids])
    for n_ctx in (4, 8, 16):
        config = PromptConfig(init="a photo of a", n_ctx=n_ctx)
        repeated = initial_context(backbone, config, 5, seed=0)
        assert torch.equal(repeated, table[ids].repeat(n_ctx // 4, 1))
    config = PromptConfig(init="a photo of a", class_specific=True)
    own = initial_context(backbone, config, 5, seed=0)
    assert torch.equal(own, table[ids].expand(5, 4, 32))


@pytest.mark.parametrize("class_specific", [False, True])
def test_training_the_start_does_not_write_into_the_model(class_specific: bool) -> None:
    backbone = tiny_backbone()
    before = backbone.model.token_embedding.weight.clone()
    config = PromptConfig(init="a photo of a", class_specific=class_specific)
    start = initial_context(backbone, config, 5, seed=0)
    start[0] += 1.0
    assert torch.equal(before, backbone.model.token_embedding.weight)
    if class_specific:
        assert not torch.equal(start[0], start[1]), "the classes share one storage"


def test_the_start_is_fp32_for_towers_in_half_precision() -> None:
    half = backbone_of(build_model(tiny_config()).bfloat16())
    for init in ("random", "a photo of a"):
        assert initial_context(half, PromptConfig(init=init), 5, seed=0).dtype == torch.float32


def test_a_template_that_does_not_fill_the_context_is_refused() -> None:
    with pytest.raises(UserError, match=r"'a photo of a' has 4 tokens.*multiple of 4 \(got 6\)"):
        initial_context(tiny_backbone(), PromptConfig(init="a photo of a", n_ctx=6), 5, seed=0)
    with pytest.raises(UserError, match="multiple of 4"):
        initial_context(tiny_backbone(), PromptConfig(init="a photo of a", n_ctx=2), 5, seed=0)
    with pytest.raises(UserError, match="holds no words"):
        initial_context(tiny_backbone(), PromptConfig(init="  "), 5, seed=0)
