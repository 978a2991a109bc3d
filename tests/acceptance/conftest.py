from __future__ import annotations

from pathlib import Path

import pytest
from tests.acceptance.calling import Caller
from tests.tiny import write_model, write_pictures


@pytest.fixture
def dspt(capsys: pytest.CaptureFixture[str]) -> Caller:
    """The command line, in this process."""
    return Caller(capsys)


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a few pictures, for all tests of this folder."""
    folder = tmp_path_factory.mktemp("acceptance")
    write_model(folder / "model")
    write_pictures(folder / "pictures", ("red", "green", "blue"), 6)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPT_CACHE", str(ground / "cache"))
