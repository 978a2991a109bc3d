"""Real data sets for tests: too large for the repository, so tests skip where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "DSPT_DATA"


def shared_data(name: str) -> Path:
    """Folder of a real data set, below $DSPT_DATA or else ../shared/data beside the repository.

    Skips the test, with the reason, when it is not there.
    """
    fallback = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get(VARIABLE) or fallback)
    if not (root / name).exists():
        pytest.skip(f"no real data: {name} is not in {root}; set {VARIABLE}")
    return root / name
