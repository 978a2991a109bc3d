"""The command ``dspt``."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import typer

from dspt import __version__
from dspt.cli import (
    audit,
    bench,
    console,
    data,
    demo,
    evaluate,
    export,
    fit,
    methods,
    models,
    plot,
    predict,
    table,
    theory,
    zeroshot,
)
from dspt.errors import UserError

app = typer.Typer(
    name="dspt",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tune prompts of CLIP-like models on pictures whose labels may be wrong.",
    epilog="Start with [bold]dspt demo[/]: it needs no data, no network and three minutes at most.",
)


# Typer brings its own copy of click or uses the installed one, depending on its version.
_UsageError: Any = typer.BadParameter.__base__
_ClickException: Any = _UsageError.__base__


def _version(asked: bool) -> None:
    if asked:
        console.out.print(f"dspt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


app.command("demo")(demo.command)
app.command("fit")(fit.command)
app.command("bench")(bench.command)
app.command("eval")(evaluate.command)
app.command("predict")(predict.command)
app.command("export")(export.command)
app.command("audit")(audit.command)
app.command("zeroshot")(zeroshot.command)
app.command("methods")(methods.command)
app.command("models")(models.command)
app.command("table")(table.command)
app.command("plot")(plot.command)
app.command("theory")(theory.command)
app.add_typer(data.app, name="data")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Exit codes: 0 done, 2 the input or the call must be mended (one line on standard error says
    how), 130 interrupted.
    """
    # Threads that wait by sleeping, not spinning: on a machine that does other work besides, two
    # spinning threads make a training step many times slower. Must be set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments or ["--help"], prog_name="dspt", standalone_mode=False)
    except _UsageError as error:
        where = error.ctx.command_path if error.ctx else "dspt"
        console.say_error(f"{error.format_message()} (see {where} --help)")
        return 2
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except _ClickException as error:
        console.say_error(error.format_message())
        return 2
    except UserError as error:
        console.say_error(str(error))
        return 2
    except BrokenPipeError:
        # The reader (head, less) has seen enough; a flush at exit must not complain.
        sys.stdout = None  # type: ignore[assignment]
        return 0
    if code == 130:  # newer typer makes this of an interruption
        return _interrupted()
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    console.err.print("interrupted; the same command goes on where it stopped")
    return 130
