"""The same call gives the same bytes. Other processes: ``acceptance/test_commands.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import write_model, write_pictures

import dspt

SETTINGS: dict[str, Any] = {
    "shots": 4,
    "noise": "symmetric:0.5",
    "seed": 7,
    "views": 1,
    "recipe": {"epochs": 3, "batch_size": 4, "lr": 0.05},
}
EQUAL = ("prompt.safetensors", "metrics.jsonl", "labels.csv", "suspects.csv", "config.json")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ground")
    write_model(folder / "model")
    write_pictures(folder / "pictures", n=6)
    return folder


def run(ground: Path, name: str, cache: str) -> dict[str, bytes]:
    out = ground / name
    dspt.fit(
        ground / "pictures",
        str(ground / "model"),
        out=out,
        cache=ground / cache,
        device="cpu",
        **SETTINGS,
    )
    return {file: (out / file).read_bytes() for file in EQUAL}


@pytest.mark.parametrize("threads", [1, 2])
def test_repeats_are_equal_to_the_byte(ground: Path, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first = run(ground, f"first-{threads}", f"cache-{threads}")
        torch.rand(17)  # global random numbers play no part
        again = run(ground, f"again-{threads}", f"fresh-{threads}")
        filled = run(ground, f"filled-{threads}", f"fresh-{threads}")
    finally:
        torch.set_num_threads(before)
    assert first == again == filled
    values = [json.loads(line)["train_loss"] for line in first["metrics.jsonl"].splitlines()]
    assert len(set(values)) == 4, "it did train"
