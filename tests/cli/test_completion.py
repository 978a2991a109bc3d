"""What a shell offers when the tabulator key is pressed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from tests.acceptance.calling import in_a_process
from tests.cli.test_help import COMMANDS

from dspt.bench.grid import preset_names
from dspt.data.registry import CARDS
from dspt.methods import method_names

BASH = shutil.which("bash")

PRESS = """
eval "$SCRIPT"
IFS=' ' read -ra COMP_WORDS <<< "$LINE"
[[ $LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_dspt_completion dspt
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""Calls the function that bash calls."""


@pytest.fixture(scope="module")
def script() -> str:
    shown = in_a_process("--show-completion", "bash")
    assert shown.code == 0
    return shown.out


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search path on which ``dspt`` is the one under test."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "dspt").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dspt "$@"\n')
    (folder / "dspt").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def offered(script: str, path: str, line: str) -> set[str]:
    assert BASH is not None
    done = subprocess.run(
        [BASH, "-c", PRESS],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "SCRIPT": script, "LINE": line},
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(BASH is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dspt fi", {"fit"}),
        ("dspt data ", {name.split()[1] for name in COMMANDS if name.startswith("data ")}),
        ("dspt fit --metho", {"--method", "--method-option"}),
        ("dspt fit demo --method ", set(method_names())),
        ("dspt fit calt", {c.name for c in CARDS if c.name.startswith("calt")}),
        ("dspt bench --preset ", set(preset_names())),
        ("dspt predict run p.png --format j", {"jsonl"}),
        ("dspt fit my_pict", set()),  # bash offers files then
    ],
)
def test_bash_is_offered(script: str, path: str, line: str, expected: set[str]) -> None:
    assert offered(script, path, line) == expected
