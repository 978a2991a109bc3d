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


@pytest.mark.parametrize("position", ["end", "front"])
def test_a_cuda_graph_computes_what_the_engine_computes(model: str, position: str) -> None:
    backbone = load_backbone(model, device="cuda")
    names = list(COLOURS)
    plain = text_engine(backbone, names, 4, position=position)
    graphed = text_engine(backbone, names, 4, position=position, cuda_graph=True)
    generator = torch.Generator().manual_seed(0)
    for runs in (1, 3, 1):  # a shape again, with other numbers
        start = 0.02 * torch.randn(runs, 4, 32, generator=generator)
        found = []
        for engine in (plain, graphed):
            leaf = start.to("cuda").requires_grad_(True)
            features = engine(leaf)
            features.square().cumsum(-1).sum().backward()
            assert leaf.grad is not None
            found.append((features.detach(), leaf.grad.clone()))
        torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(graphed(start.cuda()), found[0][0], rtol=0, atol=1e-5)


def test_a_step_does_not_wait_for_the_host(model: str) -> None:
    backbone = load_backbone(model, device="cuda")
    engine = text_engine(backbone, list(COLOURS), 4)
    leaf = (0.02 * torch.randn(1, 4, 32, device="cuda")).requires_grad_(True)
    engine(leaf).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine(leaf).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_run_ends_as_on_the_cpu(model: str, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    runs = [
        fit(data, model, device=device, shots=4, noise="symmetric:0.5", recipe={"epochs": 3})
        for device in ("cpu", "cuda")
    ]
    cpu, gpu = (run.model.context.cpu() for run in runs)
    torch.testing.assert_close(cpu, gpu, rtol=1e-3, atol=1e-4)
    assert runs[1].result.time.device.startswith("cuda")
