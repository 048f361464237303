"""The ``ursa`` application, and the only place that turns errors into exit codes."""

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from ursa_cli.terminal import output
from ursa_cli.terminal.failures import explained
from ursa_cli.terminal.help import Group
from ursa_core import __version__, places
from ursa_core.errors import RecipeError, UrsaError, UsageError

INTERRUPTED = 130
# Typer carries its own copy of click; the class of all its usage errors is reached through the
# one that it exports.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


class _Ursa(Group):
    table: ClassVar = {
        "sample": ("sample:sample",
                   "Make a video, or an image, from text; or from text and an image or video."),
        "extend": ("extend:extend",
                   "Make a video longer: any length, in rounds, its own frames unchanged."),
        "interpolate": ("interpolate:interpolate",
                        "Make a video that goes from one image to another, or through several."),
        "tokenize": ("tokenize_media:tokenize_media",
                     "Encode videos and images into codes for training, or decode a clip's codes."),
        "train": ("train:train",
                  "Train a tokenizer or generator, or tune it to rewards; stopped runs continue."),
        "calibrate-path": ("calibrate_path:calibrate_path",
                           "Find (alpha, c) of a path for a codebook, or step times for a model."),
        "eval": ("evaluate.app:evaluate",
                 "Score a model: sample a suite, score the samples, report."),
        "models": ("models:models",
                   "List the models there are; show, get, put, convert or merge one."),
        "info": ("info:info", "Show versions, devices and models of this installation."),
    }  # fmt: skip


app = typer.Typer(
    cls=_Ursa, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
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
    """Make video from text by uniform discrete diffusion with a metric path.

    Files may be addresses (s3://bucket/film.mp4) for every command: copies of
    them take up to 20 gigabytes of disk, or what --cache-gb X gives.
    """


def main(arguments: list[str]) -> int:
    """The exit code: 0 done, 1 failed for a printed reason, 2 wrong usage, 130 interrupted."""
    output.configure()
    try:
        Path.cwd()
    except FileNotFoundError as error:  # libraries would end the process
        return _failed(error, "the working folder is gone", "change to one that exists", 1)
    pairs = zip(arguments, [*arguments[1:], "-"], strict=False)
    arguments = [  # Typer knows no optional values
        "--ray=auto" if each == "--ray" and following.startswith("-") else each
        for each, following in pairs
    ]
    try:
        with _here(arguments) as own:
            result = app(own, prog_name="ursa", standalone_mode=False)
    except UrsaError as error:
        return _failed(error, *explained(error), error.exit_code)
    except _USAGE_ERROR as error:
        message = str(error.format_message() if hasattr(error, "format_message") else error)
        first = message.rstrip(".").replace("\n", " ")
        command = getattr(getattr(error, "ctx", None), "command_path", "ursa")
        return _failed(error, first[:1].lower() + first[1:], f"see {command} --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except Exception as error:
        return _failed(error, *explained(error), 1)
    code = result if isinstance(result, int) else 0
    if code == INTERRUPTED:
        output.error("interrupted")
        output.hint("what was finished is kept; give the same command to go on or start again")
    return code


_PUBLISHING = ("sample", "extend", "interpolate", "tokenize")
_OUTPUTS = ("-o", "--output", "--save-tokens")
_TEXTS = ("--model", "--init", "--lora", "--negative")


@contextmanager
def _here(arguments: list[str]) -> Iterator[list[str]]:
    """Arguments with paths in place of addresses; what is written to one is uploaded."""
    own: list[str] = []
    before = ""
    with ExitStack() as stack:
        for each in arguments:
            name, equals, text = each.partition("=") if each.startswith("-") else ("", "", each)
            if places.is_address(each[2:]) and each.startswith("-o"):
                name, equals, text = "-o", "", each[2:]
            option = name or before
            is_prompt = not option.startswith("-") and own[:1] in (["sample"], ["interpolate"])
            is_text = is_prompt or option in _TEXTS or own[:1] == ["models"]
            if option == "--cache-gb":
                if text:  # else it comes next
                    os.environ[places.CACHE_BYTES] = str(1e9 * _above_0(text))
            elif is_text or not places.is_address(text):
                own.append(each)
            elif option not in _OUTPUTS:
                own.append(f"{name}{equals}{places.located(text)}")
            elif own[0] not in _PUBLISHING:
                raise UsageError(f"ursa {own[0]} writes on this machine alone", "give a folder")
            elif "--dry-run" in arguments:
                own.append(f"{name}{equals}{places.located(text, is_input=False)}")
            else:
                own.append(f"{name}{equals}{stack.enter_context(places.published(text))}")
            before = each
        if before == "--cache-gb":
            _above_0("")
        yield own


def _above_0(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise UsageError(f"--cache-gb can't be {text!r}", "give gigabytes, above 0")


def _failed(error: BaseException, message: str, hint: str, code: int) -> int:
    if os.environ.get("URSA_DEBUG") == "1":
        output.cause(error)
    output.error(*(message.split("\n") if isinstance(error, RecipeError) else [message]))
    if hint:
        output.hint(hint)
    return code
