from __future__ import annotations

import pytest
from tests.acceptance.calling import Caller


@pytest.fixture
def dspt(capsys: pytest.CaptureFixture[str]) -> Caller:
    """The command line, in this process."""
    return Caller(capsys)
