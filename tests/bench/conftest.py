from __future__ import annotations

from pathlib import Path

import pytest
from tests.bench.ground import run
from tests.tiny import write_model, write_pictures

from dspt.bench.run import Bench


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a few pictures."""
    folder = tmp_path_factory.mktemp("bench")
    write_model(folder / "model")
    write_pictures(folder / "pictures" / "train", ("red", "green", "blue"), 6)
    write_pictures(folder / "pictures" / "test", ("red", "green", "blue"), 4, first=50)
    return folder


@pytest.fixture(scope="session")
def undisturbed(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench that was computed in one go."""
    made, outcome = run(ground, tmp_path_factory.mktemp("undisturbed"))
    assert len(outcome.computed) == len(made.cells)
    return made
