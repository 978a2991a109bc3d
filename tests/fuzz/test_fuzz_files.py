"""A small campaign of ``tools/reliability/fuzz_files.py``, and whether it would notice."""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from tests.tiny import write_model

from dspt.backbones import load_backbone
from dspt.errors import UserError

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "reliability" / "fuzz_files.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_files", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def test_no_mutated_file_is_a_traceback_a_hang_or_a_wrong_value(
    fuzz: ModuleType, tmp_path: Path
) -> None:
    backbone = load_backbone(write_model(tmp_path / "model"), device="cpu")
    (tmp_path / "files").mkdir()
    tallies = fuzz.campaign(fuzz.Ground(tmp_path / "files", backbone), inputs=720, seed=11)
    assert len(tallies) == 12
    for name, tally in tallies.items():
        assert not tally.failures, name
        assert tally.inputs == 60
        assert tally.outcomes["refused"], f"{name}: a fuzzer that changes nothing finds nothing"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("one line"), "refused"),
        (ValueError("a bug"), "failed"),
        (RecursionError("deep"), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_what_counts_as_a_failure(fuzz: ModuleType, error: Exception, expected: str) -> None:
    def attempt(dice: random.Random) -> str:
        raise error

    assert fuzz.tried(fuzz.Target(attempt), random.Random(0), 5.0)[0] == expected


def test_a_hang_is_a_failure(fuzz: ModuleType) -> None:
    def attempt(dice: random.Random) -> str:
        time.sleep(30)
        return "accepted"

    outcome, said = fuzz.tried(fuzz.Target(attempt), random.Random(0), 0.1)
    assert outcome == "failed"
    assert "more than 0.1 s" in said


def test_mutations_are_a_function_of_the_dice(fuzz: ModuleType) -> None:
    for number in range(200):
        first, again = random.Random(number), random.Random(number)
        assert fuzz.mutated_text("a: 1\nb: [x, 2]\n", first) == fuzz.mutated_text(
            "a: 1\nb: [x, 2]\n", again
        )
        assert fuzz.mutated_bytes(bytes(90), first) == fuzz.mutated_bytes(bytes(90), again)
