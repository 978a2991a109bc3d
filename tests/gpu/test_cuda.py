"""The same code on a GPU. Without one these tests are skipped, and say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import COLOURS, write_model, write_pictures

from dspt.backbones import load_backbone
from dspt.fitting import fit
from dspt.prompts import text_engine

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_model(tmp_path / "model")


def test_auto_takes_the_gpu(model: str) -> None:
    assert load_backbone(model).device.type == "cuda"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_features_and_gradients_are_those_of_the_cpu(model: str, precision: str) -> None:
    names = list(COLOURS)
    context = 0.02 * torch.randn(2, 4, 32)
    found = []
    for device in ("cpu", "cuda"):
        engine = text_engine(
            load_backbone(model, device=device, precision="fp32" if device == "cpu" else precision),
            names,
            4,
        )
        leaf = context.to(device).requires_grad_(True)
        features = engine(leaf)
        features.square().cumsum(-1).sum().backward()
        assert leaf.grad is not None
        assert features.dtype == leaf.grad.dtype == torch.float32
        found.append((features.detach().cpu(), leaf.grad.cpu()))
    tolerance = 1e-5 if precision == "fp32" else 3e-2
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=tolerance)
    difference = (found[0][1] - found[1][1]).norm() / found[0][1].norm()
    assert difference < (1e-4 if precision == "fp32" else 0.1)


def test_a_run_ends_as_on_the_cpu(model: str, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    runs = [
        fit(data, model, device=device, shots=4, noise="symmetric:0.5", recipe={"epochs": 3})
        for device in ("cpu", "cuda")
    ]
    cpu, gpu = (run.model.context.cpu() for run in runs)
    torch.testing.assert_close(cpu, gpu, rtol=1e-3, atol=1e-4)
    assert runs[1].result.time.device.startswith("cuda")
