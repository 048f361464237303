"""The ``ursa`` application, and the only place that turns errors into exit codes."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ursa_cli.commands.calibrate_path import calibrate_path
from ursa_cli.commands.evaluate.app import evaluate
from ursa_cli.commands.extend import extend
from ursa_cli.commands.info import info
from ursa_cli.commands.interpolate import interpolate
from ursa_cli.commands.models import models
from ursa_cli.commands.sample import sample
from ursa_cli.commands.tokenize_media import tokenize_media
from ursa_cli.commands.train import train
from ursa_cli.terminal import output
from ursa_cli.terminal.failures import explained
from ursa_core import __version__
from ursa_core.errors import UrsaError

INTERRUPTED = 130
# Typer carries its own copy of click; the class of all its usage errors is reached through the
# one that it exports.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="ursa",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.data({"version": __version__}, lines=[f"ursa {__version__}"])
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and stop.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Make video from text by uniform discrete diffusion with a metric path."""


app.command("sample")(sample)
app.command("extend")(extend)
app.command("interpolate")(interpolate)
app.command("tokenize")(tokenize_media)
app.command("train")(train)
app.command("calibrate-path")(calibrate_path)
app.add_typer(evaluate, name="eval")
app.add_typer(models, name="models")
app.command("info")(info)


def main(arguments: list[str]) -> int:
    """The exit code of a command line.

    0 is done, 1 failed for a reason that was printed, 2 wrong usage, 130 interrupted.
    """
    output.configure()
    try:
        Path.cwd()
    except FileNotFoundError as error:  # libraries would end the process
        return _failed(error, "the working folder is gone", "change to one that exists", 1)
    try:
        result = app(arguments, prog_name="ursa", standalone_mode=False)
    except UrsaError as error:
        return _failed(error, *explained(error), error.exit_code)
    except _USAGE_ERROR as error:
        return _wrong_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except Exception as error:
        return _failed(error, *explained(error), 1)
    code = result if isinstance(result, int) else 0
    if code == INTERRUPTED:
        output.error("interrupted")
        output.hint("what was finished is kept; give the same command to go on or start again")
    return code


def _failed(error: BaseException, message: str, hint: str, code: int) -> int:
    if os.environ.get("URSA_DEBUG") == "1":
        output.cause(error)
    output.error(message)
    if hint:
        output.hint(hint)
    return code


def _wrong_usage(error: Exception) -> int:
    message = str(error.format_message() if hasattr(error, "format_message") else error)
    context = getattr(error, "ctx", None)
    if not message:  # no arguments at all: the help was shown instead
        return int(getattr(error, "exit_code", 2))
    command = getattr(context, "command_path", "ursa")
    first = message.rstrip(".").replace("\n", " ")
    return _failed(error, first[:1].lower() + first[1:], f"see {command} --help", 2)
