"""What can be known of CUDA graphs without a GPU; the rest is in tests/gpu."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from tests.models import tiny_backbone
from torch import Tensor

from dspt.errors import UserError
from dspt.prompts import text_engine
from dspt.prompts.graphed import GraphedEngine

NAMES = ["dog", "great white shark"]


def test_a_graph_is_refused_where_it_cannot_be_had() -> None:
    backbone = tiny_backbone()
    with pytest.raises(UserError, match="cuda_graph: needs a GPU, but the model lies on cpu"):
        text_engine(backbone, NAMES, 4, cuda_graph=True)
    elsewhere = dataclasses.replace(backbone, device=torch.device("cuda"))
    with pytest.raises(UserError, match="cuda_graph: 2 classes do not fit into 1000 bytes"):
        text_engine(elsewhere, NAMES, 4, cuda_graph=True, memory_limit=1000)
    plain = dataclasses.replace(elsewhere, text_tower=None, text_note="text tower runs plainly")
    with pytest.raises(UserError, match="cannot be had, the text tower runs plainly"):
        text_engine(plain, NAMES, 4, cuda_graph=True)
    assert isinstance(text_engine(elsewhere, NAMES, 4, cuda_graph=True), GraphedEngine)
    assert not isinstance(text_engine(elsewhere, NAMES, 4), GraphedEngine)


def test_recorded_once_a_shape_and_only_for_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[tuple[int, ...]] = []
    output: list[Tensor] = []

    def record(call: Callable[[Tensor], Tensor], samples: tuple[Tensor]) -> object:
        recorded.append(tuple(samples[0].shape))
        assert samples[0].requires_grad

        def replay(context: Tensor) -> Tensor:
            output.append(call(context))
            return output[-1]

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    engine = GraphedEngine(lambda context: 2 * context)
    assert torch.equal(engine(torch.ones(1, 2, 3)), torch.full((1, 2, 3), 2.0))
    assert recorded == []
    for runs in (1, 2, 1, 2):
        context = torch.ones(runs, 2, 3, requires_grad=True)
        features = engine(context)
        output[-1].detach().zero_()  # as the next replay would overwrite it
        assert features.detach().eq(2).all()
        features.sum().backward()
        assert context.grad is not None
        assert context.grad.eq(2).all()
        with torch.no_grad():
            engine(context)
    assert recorded == [(1, 2, 3), (2, 2, 3)]


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(call: object, samples: object) -> object:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", full)
    with pytest.raises(UserError, match=r"CUDA graph .*too little GPU memory"):
        GraphedEngine(lambda context: context)(torch.ones(1, requires_grad=True))
