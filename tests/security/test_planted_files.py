"""Files that would run code if they were unpickled, or take all memory if they were believed."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import write_model

from dspt.backbones import Backbone, load_backbone
from dspt.bench.grid import read_grid
from dspt.configuration import FitConfig
from dspt.errors import UserError
from dspt.feature_cache import FeatureCache
from dspt.model import LinearModel, PromptModel, load_model
from dspt.noise import NoiseSpec, resolve
from dspt.result import RunResult
from dspt.run_folder import refuse_other_run
from dspt.training.checkpoint import load_checkpoint


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def as_pickle(file: Path, marker: Path) -> None:
    file.write_bytes(pickle.dumps(Trap(marker)))


def as_torch(file: Path, marker: Path) -> None:
    torch.save({"weight": torch.zeros(1), "context": Trap(marker)}, file)


def as_numpy(file: Path, marker: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.array([Trap(marker)], dtype=object), allow_pickle=True)


def as_huge_header(file: Path, marker: Path) -> None:
    file.write_bytes(struct.pack("<Q", 2**63 - 1) + b"{}" * 20)


def as_huge_tensor(file: Path, marker: Path) -> None:
    shape = [2**20, 2**30]
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]}
    header = json.dumps(dict.fromkeys(("context",), tensor)).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))


def as_overflow(file: Path, marker: Path) -> None:
    shape = [2**32, 2**32, 4]  # the product of the sizes is 0 in 64 bits
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    header = json.dumps({"context": tensor}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)


def as_nested(file: Path, marker: Path) -> None:
    file.write_bytes(b"[" * 200_000)


PLANTED = [
    *(as_pickle, as_torch, as_numpy),
    *(as_huge_header, as_huge_tensor, as_overflow, as_nested),
]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("tiny") / "model"), device="cpu")


def one_line(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("plant", PLANTED)
def test_nothing_planted_is_executed_or_believed(
    backbone: Backbone, tmp_path: Path, marker: Path, plant: Callable[[Path, Path], None]
) -> None:
    def planted(name: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        plant(file, marker)
        return file

    for name in ("prompt.safetensors", "head.safetensors", "prompt.pt", "prompt.pkl"):
        file = planted(name)
        for load in (PromptModel.load, LinearModel.load, load_model):
            assert str(file) in one_line(lambda load=load, file=file: load(file, backbone=backbone))
    config = FitConfig(data="demo")  # type: ignore[call-arg]
    one_line(lambda: RunResult.read(planted("result.json")))
    one_line(lambda: refuse_other_run(planted("run/config.json").parent, config))
    one_line(lambda: read_grid(planted("grid.yaml")))
    for name in ("matrix.csv", "matrix.json", "matrix.npy", "matrix.pkl"):
        spec = NoiseSpec(kind="matrix", matrix=str(planted(name)))
        one_line(lambda spec=spec: resolve(spec))
    told: list[str] = []
    checkpoint = planted("checkpoint.safetensors")
    assert load_checkpoint(checkpoint, "me", torch.device("cpu"), told.append) is None
    assert len(told) == 1
    shard = planted("cache/v1-picture/shard.safetensors")
    assert FeatureCache(tmp_path / "cache", 0).damaged == [shard]
    assert not marker.exists()


@pytest.mark.parametrize("plant", [as_pickle, as_torch])
@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "weights.pth"])
def test_planted_weights_are_refused_in_one_line(
    tmp_path: Path, marker: Path, plant: Callable[[Path, Path], None], name: str
) -> None:
    folder = Path(write_model(tmp_path / "model"))
    (folder / "open_clip_model.safetensors").unlink()
    plant(folder / name, marker)
    said = one_line(lambda: load_backbone(str(folder), device="cpu"))
    assert "nothing in it was run" in said
    assert "weights_only" not in said, "torch's advice to run it is not handed on"
    assert not marker.exists()


def test_honest_weights_in_a_pickle_are_read(backbone: Backbone, tmp_path: Path) -> None:
    folder = Path(write_model(tmp_path / "model"))
    stored = folder / "open_clip_model.safetensors"
    torch.save(load_file(stored), folder / "open_clip_pytorch_model.bin")
    stored.unlink()
    assert load_backbone(str(folder), device="cpu").fingerprint == backbone.fingerprint


def test_an_old_torch_reads_no_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(write_model(tmp_path / "model"))
    stored = folder / "open_clip_model.safetensors"
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    load_backbone(str(folder), device="cpu")
    torch.save(load_file(stored), folder / "open_clip_pytorch_model.bin")
    stored.unlink()
    assert "torch 2.6" in one_line(lambda: load_backbone(str(folder), device="cpu"))


@pytest.mark.parametrize("plant", [as_huge_header, as_huge_tensor, as_overflow])
def test_planted_safetensors_weights_are_refused(
    tmp_path: Path, marker: Path, plant: Callable[[Path, Path], None]
) -> None:
    folder = Path(write_model(tmp_path / "model"))
    plant(folder / "open_clip_model.safetensors", marker)
    assert "does not load" in one_line(lambda: load_backbone(str(folder), device="cpu"))


def test_yaml_builds_no_objects(tmp_path: Path, marker: Path) -> None:
    file = tmp_path / "grid.yaml"
    for tag in ("python/object/apply:pathlib.Path.touch", "python/name:os.system", "binary"):
        file.write_text(f"data: !!{tag} ['{marker}']\n")
        one_line(lambda: read_grid(file))
    assert not marker.exists()
