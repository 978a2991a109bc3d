"""Half precision ends in numbers or in an error that says so, never in NaN."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import write_model, write_pictures

import dspt
from dspt.backbones import load_backbone
from dspt.errors import UserError

RECIPE = {"epochs": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a model, and one whose text tower needs numbers that fp16 has not."""
    folder = tmp_path_factory.mktemp("half")
    write_pictures(folder / "pictures", n=5)
    write_model(folder / "model")
    write_model(folder / "large")
    file = folder / "large" / "open_clip_model.safetensors"
    state = load_file(file)
    state["ln_final.weight"] *= 1e5
    state["text_projection"] *= 1e3
    save_file(state, file)
    return folder


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", ["dspt", "gce", "nlprompt"])
def test_prompt_and_losses_are_finite(
    ground: Path, tmp_path: Path, precision: str, method: str
) -> None:
    backbone = load_backbone(str(ground / "model"), device="cpu", precision=precision)
    run = dspt.fit(
        ground / "pictures",
        backbone,
        method=method,
        noise="symmetric:0.5",
        recipe=RECIPE,
        cache=tmp_path,
    )
    assert torch.isfinite(run.model.context).all()
    assert run.model.context.dtype == torch.float32
    assert all(abs(epoch.train_loss or 0.0) < 100 for epoch in run.result.epochs)


@pytest.mark.parametrize("method", ["dspt", "ce", "zero-shot"])
def test_a_text_tower_that_overflows_is_an_error(ground: Path, tmp_path: Path, method: str) -> None:
    half = load_backbone(str(ground / "large"), device="cpu", precision="fp16")
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"not finite|diverged") as caught:
        dspt.fit(
            ground / "pictures", half, method=method, out=out, recipe=RECIPE, cache=tmp_path / "c"
        )
    assert "fp32" in str(caught.value)
    assert not (out / "result.json").exists()
    with pytest.raises(UserError, match="try bf16 or fp32"):
        half.encode_text(["a"])


def test_the_same_tower_is_fine_where_its_numbers_fit(ground: Path, tmp_path: Path) -> None:
    whole = load_backbone(str(ground / "large"), device="cpu")
    run = dspt.fit(ground / "pictures", whole, recipe=RECIPE, cache=tmp_path)
    assert torch.isfinite(run.model.context).all()
