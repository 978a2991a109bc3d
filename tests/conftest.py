"""Settings of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Before torch loads, and inherited by the commands that tests start: the tests run side by side, so
# each process computes with one thread, and waiting threads sleep.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Image features of the tests go neither into nor come out of the user's cache."""
    before = os.environ.get("DSPT_CACHE")
    os.environ["DSPT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DSPT_CACHE"]
    else:
        os.environ["DSPT_CACHE"] = before
