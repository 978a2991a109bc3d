from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dspt.result import EpochMetrics
from dspt.training.checkpoint import FORMAT, _checksum, load_checkpoint, save_checkpoint
from dspt.training.loop import TrainingState

CPU = torch.device("cpu")


def metrics(epoch: int, value: float | None = None) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        lr=None if value is None else 1e-5,
        train_loss=value,
        accuracy_given=1 / 3,
        accuracy_true=value,
        accuracy_test=0.1 + 0.2,
        gradient_norm_clean=5e-324,
        gradient_norm_mislabelled=None,
    )


@pytest.fixture
def state() -> TrainingState:
    torch.manual_seed(0)
    return TrainingState(
        epoch=1,
        context=torch.randn(2, 3, 4),
        momentum=torch.randn(2, 3, 4),
        memory=[{}, {"memory": torch.randn(5, 4), "losses": torch.randn(2, 5).double()}],
        metrics=[[metrics(0), metrics(1, 0.7)], [metrics(0), metrics(1, 1 / 7)]],
    )


def test_round_trip_is_exact(tmp_path: Path, state: TrainingState) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, state, "me")
    back = load_checkpoint(path, "me", CPU)
    assert back is not None
    assert torch.equal(back.context, state.context)
    assert torch.equal(back.momentum, state.momentum)
    assert (back.epoch, back.metrics) == (1, state.metrics)
    assert back.memory[0] == {}
    assert back.memory[1].keys() == state.memory[1].keys()
    for name, tensor in state.memory[1].items():
        assert torch.equal(back.memory[1][name], tensor)
        assert back.memory[1][name].dtype == tensor.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_none_without_a_file(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing", "me", CPU) is None


def test_a_checkpoint_of_another_run_is_not_used(tmp_path: Path, state: TrainingState) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, state, "me")
    assert load_checkpoint(path, "another", CPU) is None


def test_a_truncated_file_counts_as_none(tmp_path: Path, state: TrainingState) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, state, "me")
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert load_checkpoint(path, "me", CPU) is None, length


@pytest.mark.parametrize("content", [b"garbage", b"\xff" * 500, b"{}" * 100, bytes(500)])
def test_garbage_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    assert load_checkpoint(path, "me", CPU) is None


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"metrics": "[[]]"},
        {"epoch": "1", "metrics": "no json"},
        {"epoch": "one", "metrics": "[[]]"},
        {"epoch": "1", "metrics": "[[{}]]"},
        {"epoch": "1", "metrics": "7"},
        {"epoch": "1", "metrics": "[7]"},
        {"epoch": "1", "metrics": "[" * 100_000},
    ],
)
def test_a_header_that_makes_no_sense_counts_as_none(
    tmp_path: Path, header: dict[str, str]
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    about = {"format": FORMAT, "identity": "me", **header}
    zeros = {"context": torch.zeros(1, 2, 3), "momentum": torch.zeros(1, 2, 3)}
    save_file(zeros, path, metadata={**about, "sha256": _checksum(about, zeros)})
    told: list[str] = []
    assert load_checkpoint(path, "me", CPU, told.append) is None
    assert len(told) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_version_is_said_and_not_used(
    tmp_path: Path, state: TrainingState, version: int
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    about = {
        "format": f"dspt-checkpoint-{version}",
        "identity": "me",
        "epoch": "1",
        "metrics": json.dumps([[record.model_dump() for record in run] for run in state.metrics]),
    }
    save_file({"context": state.context, "momentum": state.momentum}, path, metadata=about)
    told: list[str] = []
    assert load_checkpoint(path, "me", CPU, told.append) is None
    assert "older version" in told[0]


def test_a_flipped_bit_anywhere_is_said_and_nothing_is_used(
    tmp_path: Path, state: TrainingState
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, state, "me")
    whole = path.read_bytes()
    for place in range(0, len(whole), 2):
        content = bytearray(whole)
        content[place] ^= 1 << place // 2 % 8
        path.write_bytes(content)
        told: list[str] = []
        assert load_checkpoint(path, "me", CPU, told.append) is None, place
        assert len(told) == 1, place
        assert "starts from the beginning" in told[0]
        assert len(told[0].splitlines()) == 1


def test_nothing_is_said_of_a_checkpoint_of_another_run(
    tmp_path: Path, state: TrainingState
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, state, "me")
    told: list[str] = []
    assert load_checkpoint(path, "another", CPU, told.append) is None
    assert load_checkpoint(tmp_path / "nothing", "me", CPU, told.append) is None
    assert told == []


class _Trap:
    def __reduce__(self) -> object:
        return (pytest.fail, ("a pickle was executed",))


def test_pickles_are_neither_written_nor_executed(tmp_path: Path, state: TrainingState) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, state, "me")
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert path.read_bytes()[8 : 8 + length].startswith(b'{"')
    path.write_bytes(pickle.dumps(_Trap()))
    assert load_checkpoint(path, "me", CPU) is None
    torch.save({"context": _Trap()}, path)
    assert load_checkpoint(path, "me", CPU) is None
