from __future__ import annotations

from pathlib import Path

import pytest
from tests.audit.ground import WRONG, write_planted
from tests.tiny import write_model

import dspt.audit.prompts as prompts


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that knows the colours by name."""
    return write_model(tmp_path_factory.mktemp("audit-model") / "model")


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 8 pictures, in which :data:`WRONG` show another class."""
    return write_planted(tmp_path_factory.mktemp("audit") / "colours", WRONG)


@pytest.fixture(autouse=True)
def _one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about what is done with the evidence, not about its quality."""
    monkeypatch.setattr(prompts, "EPOCHS", 1)
