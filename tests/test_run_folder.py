from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.test_files import holding, killed

from dspt.configuration import FitConfig, build_config
from dspt.errors import UserError
from dspt.run_folder import CHECKPOINT_FILE, LOCK_FILE, claim, release, sole_writer


def config(**fields: object) -> FitConfig:
    return build_config(**{"data": "demo", **fields})


def test_a_run_of_other_settings_is_not_claimed(tmp_path: Path) -> None:
    assert claim(tmp_path, config(), overwrite=False)
    assert not claim(tmp_path, config(), overwrite=False)
    with pytest.raises(UserError, match="seed: 1 there, 2 here"):
        claim(tmp_path, config(seed=2), overwrite=False)
    (tmp_path / CHECKPOINT_FILE).write_text("half")
    (tmp_path / "notes.txt").write_text("mine")
    assert claim(tmp_path, config(seed=2), overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "notes.txt"]
    release(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_left_of_a_folder_in_which_nothing_came_to_be(tmp_path: Path) -> None:
    notes: list[str] = []
    with sole_writer(tmp_path / "run", notes.append):
        assert [p.name for p in (tmp_path / "run").iterdir()] == [LOCK_FILE]
    assert list(tmp_path.iterdir()) == []
    with sole_writer(tmp_path / "run", notes.append):
        (tmp_path / "run" / "result").write_text("x")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["result"]
    assert notes == []


@pytest.mark.skipif(os.name != "posix", reason="locks and signals of POSIX")
def test_another_process_is_waited_for_and_a_killed_one_is_not(tmp_path: Path) -> None:
    other = holding("lock", tmp_path / LOCK_FILE)
    notes: list[str] = []
    entered = threading.Event()

    def work() -> None:
        with sole_writer(tmp_path, notes.append):
            entered.set()

    waiting = threading.Thread(target=work)
    waiting.start()
    assert not entered.wait(0.3)
    killed(other)
    assert entered.wait(10)
    waiting.join()
    assert "waiting" in notes[0]
