"""Fixtures over results made up in ``made.py``."""

from __future__ import annotations

from types import ModuleType

import pytest
from tests.report import made as makers

from dspt.result import RunResult


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """Makers of results, suspects and thumbnails."""
    return makers


@pytest.fixture(scope="session")
def grid() -> list[RunResult]:
    """Four methods, four rates, three seeds."""
    return makers.sweep()
