"""Every command explains itself, and what it shows works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from tests.acceptance.calling import Caller

from dspt.cli import app


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its words after ``dspt``."""
    command = command or typer.main.get_command(app)
    for name, child in getattr(command, "commands", {}).items():
        if hasattr(child, "commands"):
            yield from commands(child, (*path, name))
        else:
            yield " ".join((*path, name)), child


COMMANDS = dict(commands())


def examples(name: str) -> list[list[str]]:
    """The words after ``dspt`` of the examples in a help, without what is for the shell."""
    text = COMMANDS[name].help
    assert "[bold]Examples[/]" in text, f"dspt {name} shows no example"
    after = text.split("[bold]Examples[/]")[1]
    lines = [line.strip() for line in after.splitlines() if line.strip()]
    assert all(line.startswith("dspt ") for line in lines), lines
    return [shlex.split(re.sub(r" [>|] .*", "", line))[1:] for line in lines]


def test_there_are_commands() -> None:
    assert {"fit", "bench", "predict", "data show"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_are_calls_of_it(name: str) -> None:
    """Parsed by the command itself, so an option that goes takes its example with it."""
    shown = examples(name)
    assert shown
    words = name.split()
    for call in shown:
        assert call[: len(words)] == words
        context = COMMANDS[name].make_context(name, call[len(words) :])
        assert not context.args


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_says_what_it_is(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert parameter.help, f"dspt {name}: {parameter.name} has no help"


def test_what_two_commands_call_alike_is_alike() -> None:
    """One name, one kind of value; flags are flags everywhere."""
    seen: dict[str, tuple[str, bool]] = {}
    for name, command in COMMANDS.items():
        for parameter in command.params:
            for option in parameter.opts:
                if not option.startswith("--"):
                    continue
                flag = bool(parameter.is_flag)
                first, kind = seen.setdefault(option, (name, flag))
                assert kind == flag, f"{option} of {name} and {first}"


def test_data_is_read_with_the_same_options_everywhere() -> None:
    readers = {"fit", "eval", "zeroshot", "data show"}
    wanted = {"--root", "--image-column", "--label-column", "--split-column", "--holdout"}
    for name in readers:
        assert wanted <= {o for parameter in COMMANDS[name].params for o in parameter.opts}, name


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (["fti"], "fit"),
        (["data", "chck"], "check"),
        (["fit", "d", "--out", "r", "--sead", "1"], "--seed"),
        (["predict", "r", "p", "--tpo", "1"], "--top"),
        (["methods", "dsp"], "'dspt'"),
        (["models", "ViT-B16"], "'ViT-B-16'"),
        (["bench", "--preset", "caltech", "--out", "r"], "'caltech101'"),
        (["bench", "--data", "demo", "--method", "nlpromt", "--out", "r"], "'nlprompt'"),
        (["table", "r", "--format", "latx"], "'latex'"),
        (["table", "r", "--metric", "acuracy"], "'accuracy'"),
        (["predict", "r", "p", "--format", "cvs"], "'csv'"),
        (["fit", "d", "--out", "r", "--loss", "sce", "--loss-option", "alfa=1"], "'alpha'"),
        (["fit", "d", "--out", "r", "--loss", "gec"], "'gce'"),
        (["fit", "caltech11", "--out", "r"], "'caltech101'"),
        (["fit", "demo", "--out", "r", "-q", "--backbone", "ViT-B16"], "ViT-B-16"),
        (["fit", "d", "--out", "r", "--noise", "symetric:0.5"], '"symmetric:0.5"'),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(dspt: Caller, call: list[str], meant: str) -> None:
    line = dspt.refused(*call)
    _, hint = re.split(r"[Dd]id you mean|Possible options", line)
    assert meant in hint
