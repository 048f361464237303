"""The application as a whole: help, exit codes, and the one error boundary."""

import errno
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ursa_cli import main as application
from ursa_cli.main import main
from ursa_core import __version__
from ursa_core.errors import CheckpointError, ShapeError

REPOSITORY = Path(__file__).parent.parent.parent
HEAVY = (
    "torch", "numpy", "av", "PIL", "transformers", "pydantic", "pyarrow", "matplotlib", "yaml",
    "rich",
)  # fmt: skip
VERBS = {"Make", "Encode", "Train", "Upload", "Show", "List", "Get", "Find", "Score", "Measure"}


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command with the words that call it."""

    def walk(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
        for name in getattr(command, "commands", {}):
            child = command.get_command(None, name)
            yield [*words, name], child
            yield from walk([*words, name], child)

    yield from walk([], typer.main.get_command(application.app))


def ids(case: tuple[list[str], Any]) -> str:
    return " ".join(case[0])


def examples(command: Any) -> list[str]:
    return re.findall(r"^\s*(ursa .*)$", inspect.cleandoc(command.help), re.MULTILINE)


@pytest.mark.parametrize("case", list(commands()), ids=ids)
def test_help_of_each_command(
    case: tuple[list[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, command = case
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert max(map(len, shown.out.splitlines())) <= 80
    assert command.help.split()[0] in VERBS
    if not hasattr(command, "commands"):
        assert len(examples(command)) >= 2
        # Pasting works only if no example is wrapped.
        assert all(example in shown.out for example in examples(command))


@pytest.mark.parametrize("case", list(commands()), ids=ids)
def test_examples_are_valid_command_lines(case: tuple[list[str], Any]) -> None:
    words, command = case
    for example in examples(command):
        arguments = shlex.split(example)
        assert arguments[: len(words) + 1] == ["ursa", *words]
        command.make_context("ursa", arguments[len(words) + 1 :])


def test_listed_helps_are_those_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [([], typer.main.get_command(application.app)), *commands()]
    for words, group in groups:
        if not hasattr(group, "commands"):
            continue
        assert main([*words, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        for name in group.commands:
            real, _, _ = inspect.cleandoc(group.get_command(None, name).help).partition("\n\n")
            assert f"{name} {' '.join(real.split())}" in shown


@pytest.mark.parametrize("words", [[], ["eval"], ["sample"], ["models", "pull"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    program = (
        f"import sys; from ursa_cli.main import main; code = main([*{words}, '--help']);"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules];"
        "others = [m for m in sys.modules if m.startswith('ursa_cli.commands.')];"
        f"sys.exit(code or loaded or ({words} == [] and others) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


@pytest.mark.parametrize("words", [[], ["eval"], ["models"]])
def test_a_group_alone_shows_its_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith(f"Usage: {' '.join(['ursa', *words])} [OPTIONS] COMMAND")
    assert shown.err == ""


def test_help_names_panels_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--help"]) == 0
    shown = capsys.readouterr().out
    panels = re.findall(r"^(\w.*):$", shown, re.MULTILINE)
    assert panels[:4] == ["Arguments", "Options", "Clip", "Sampling"]
    assert {"Given frames", "Batches", "Run and output"} < set(panels)
    text = " ".join(shown.split())
    assert "[default: 18]" in text
    assert "[default: the model's]" in text
    assert "[env var: URSA_MODEL; default: emoji]" in text
    assert "\x1b" not in shown


def test_process_exits_with_the_code_and_prints_errors_on_stderr() -> None:
    program = "import sys; sys.argv[1:] = ['sample', 'x']; from ursa_cli.__main__ import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: missing option '--output' / '-o'\nhint: see ursa sample --help\n"
    )


def test_ctrl_c_at_the_very_end_changes_nothing() -> None:
    program = (
        "import atexit, os, signal, sys; sys.argv[1:] = ['--version']\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "from ursa_cli.__main__ import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ursa {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["smaple"], "smaple"),
        (["sample", "x", "-o", "a.mp4", "--frmaes", "9"], "--frmaes"),
        (["sample", "x", "-o", "a.mp4", "--steps", "many"], "--steps"),
        (["sample", "x", "y", "-o", "a.mp4"], "y"),
        (["models", "show"], "MODEL"),
    ],
)
def test_wrong_usage_takes_two_lines(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    error, hint = shown.err.splitlines()
    assert error.startswith("error: ")
    assert named in error
    assert hint.startswith("hint: see ursa")
    assert shown.out == ""


def app_that_raises(error: BaseException) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "message", "hint"),
    [
        (CheckpointError("no weights", "get them"), 1, "no weights", "get them"),
        (ShapeError("7 frames", "use 5 or 9"), 2, "7 frames", "use 5 or 9"),
        (OSError(errno.ENOSPC, "No space left", "/full/a"), 1, "/full/a can't be", "free"),
        (MemoryError(), 1, "out of memory", "--frames"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "out of memory", "--size"),
        (ZeroDivisionError("by zero"), 1, "a bug in ursa: ZeroDivisionError: by", "URSA_DEBUG"),
    ],
)
def test_errors_take_two_lines(
    error: Exception,
    code: int,
    message: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("URSA_DEBUG", raising=False)
    monkeypatch.setattr(application, "app", app_that_raises(error))
    assert main([]) == code
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {message}")
    assert second.startswith("hint: ")
    assert hint in second


def test_out_of_device_memory_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    error = torch.OutOfMemoryError("CUDA: tried to allocate 20 GiB")
    monkeypatch.setattr(application, "app", app_that_raises(error))
    assert main([]) == 1
    assert "out of memory" in capsys.readouterr().err


def test_interruption_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(application, "app", app_that_raises(KeyboardInterrupt()))
    assert main([]) == 130
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: interrupted"
    assert "the same command" in hint


def test_traceback_is_shown_on_request_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(application, "app", app_that_raises(CheckpointError("no weights")))
    monkeypatch.setenv("URSA_DEBUG", "1")
    assert main([]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("URSA_DEBUG", "0")
    assert main([]) == 1
    assert capsys.readouterr().err == "error: no weights\n"
