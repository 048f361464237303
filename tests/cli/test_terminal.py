"""Streams of real processes: closed, left by their reader, of ASCII alone; and hostile texts."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ursa_cli.main import main
from ursa_cli.terminal import output, streams
from ursa_core.errors import UrsaWarning

URSA = [sys.executable, "-m", "ursa_cli"]
TITLE = "\x1b]0;title\x07"
ASCII = {"PYTHONIOENCODING": "ascii"}
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(autouse=True)
def plain_mode() -> Iterator[None]:
    yield
    output.configure()


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a line of a shell ends with; ``ursa`` in it is the command of this tree."""
    line = line.replace("ursa ", f"{shlex.join(URSA)} ")
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("ursa --version >&-", 0, b"", b""),
        ("ursa sample x 2>&-", 2, b"", b""),
        ("ursa sample x 2>/dev/full", 2, b"", b""),
        ("ursa --help | true; exit ${PIPESTATUS[0]}", 0, b"", b""),
        ("ursa --version | true; exit ${PIPESTATUS[0]}", 0, b"", b""),
        ("ursa --version >/dev/full", 1, b"", b"the disk is full"),
        ("ursa sample --from-file - -o b <&-", 1, b"", b"standard input holds no items"),
    ],
)
def test_streams_that_lead_nowhere_end_nothing(
    line: str, code: int, out: bytes, err: bytes, tmp_path: Path
) -> None:
    done = shell(f"cd {tmp_path}; {line}", PYTHONPATH=str(Path(__file__).parents[2]))
    assert (done.returncode, done.stdout) == (code, out)
    assert err in done.stderr
    assert b"Exception" not in done.stderr
    assert len(done.stderr.splitlines()) == (2 if err else 0)


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Else what is printed would go into the first file that is opened."""
    program = (
        "from ursa_cli.terminal import streams; streams.prepare()\n"
        f"file = open({str(tmp_path / 'a')!r}, 'w'); assert file.fileno() > 2\n"
        "import os; print('lost'); os.write(2, b'lost'); file.write('kept')"
    )
    done = shell(f"{shlex.join([sys.executable, '-c', program])} <&- >&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "a").read_text() == "kept"


def test_a_batch_outlives_the_reader_of_its_results(tmp_path: Path, tiny_model: Path) -> None:
    source = tmp_path / "prompts.txt"
    source.write_text("a red circle\n" * 3)
    words = f"--from-file {source} -o {tmp_path / 'out'} --model {tiny_model} --device cpu --seed 1"
    done = shell(f"ursa sample {words} --quiet | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 3


@pytest.mark.parametrize("environment", [ASCII, ASCII_LOCALE], ids=["stream", "locale"])
def test_ascii_terminals_show_escapes(environment: dict[str, str]) -> None:
    done = shell("ursa models show emoji --prompts --json", **environment)
    assert done.returncode == 0, done.stderr
    groups = json.loads(done.stdout)["subjects"]
    assert {"name": "fox", "emoji": "🦊"} in [each for group in groups.values() for each in group]
    if environment is ASCII:
        assert done.stdout.isascii()
        shown = shell("ursa models show emoji --prompts", **environment)
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert rb"fox \U0001f98a" in shown.stdout


def test_an_ascii_locale_takes_any_prompt_and_name(tmp_path: Path, tiny_model: Path) -> None:
    out, source = tmp_path / "é.png", tmp_path / "prompts.txt"
    source.write_text("fünf 🦊\n", encoding="utf-8")
    fixed = f"--model {tiny_model} --frames 1 --device cpu --seed 1"
    done = shell(f"ursa sample 'é 🦊' -o {out} {fixed}", **ASCII_LOCALE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == str(out)
    assert out.exists()
    batch = f"ursa sample --from-file {source} -o {tmp_path / 'b'} --name-template {{slug}}.png"
    done = shell(f"{batch} {fixed}", **ASCII_LOCALE, **ASCII)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "b").glob("*.png")] == ["fünf-fox-face.png"]
    assert done.stdout.strip().endswith(rb"f\xfcnf-fox-face.png")


HOSTILE = [TITLE, "\x9b31m", "\r", "\x7f", "two\nlines", "\u202egpj.exe", "\u2066", "\udcff", "\0"]


@pytest.mark.parametrize("text", HOSTILE)
def test_all_that_is_printed_is_escaped(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.configure()
    for say in (output.note, output.warn, output.hint, output.error):
        say(f"a {text}")
    output.data({}, lines=[text, *output.table(("NAME",), [(text,)])], paths=[text])
    output.data({}, paths=[text])
    output.cause(ValueError(text))
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 5 + text.count("\n")  # a traceback has several lines
    assert shown.out.count("\n") == 4
    for line in [*shown.err.split("\n"), *shown.out.split("\n")]:
        assert line.isprintable()
    output.configure(as_json=True)
    output.data({"name": text})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert json.loads(line) == {"name": text}


def test_emoji_and_other_scripts_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = "👩‍🚀 naïve 日本 ✏️ עברית \\x1b"
    output.data({}, lines=[text])
    assert capsys.readouterr().out == f"{text}\n"


def test_progress_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.cli.test_output import Terminal

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with output.progress(4, f"get {TITLE}") as advance:
        advance(4, TITLE)
    assert TITLE not in shown.getvalue()
    assert "get \\x1b]0;title\\x07" in shown.getvalue()


def test_logs_and_warnings_go_through_the_printer(tmp_path: Path) -> None:
    program = (
        "from ursa_cli.terminal import streams; streams.prepare()\n"
        "import logging, warnings\n"
        f"logging.getLogger('ursa_core.x').info('a %s', {TITLE!r})\n"
        f"logging.getLogger('other').warning({TITLE!r})\n"
        "logging.getLogger('other').info('not shown')\n"
        f"warnings.warn({TITLE!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    escaped = rb"\x1b]0;title\x07"
    assert done.stderr.splitlines() == [
        b"a " + escaped,
        b"warning: " + escaped,
        b"warning: UserWarning: " + escaped,
    ]


def test_names_and_metadata_set_no_title(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ursa_core.clips.replay import RECORDED
    from ursa_core.media import write_media
    from ursa_core.worlds.shapes import training_clip

    frames = training_clip(0, 0, "all", 1, 16, 16)[0]
    told = dict.fromkeys(RECORDED, "x")
    recorded = tmp_path / "recorded.png"
    write_media(recorded, frames, 8.0, {**told, "ursa": TITLE})
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / f"{TITLE}.png").write_bytes(b"no image")
    out = str(tmp_path / "o.png")
    for words in (
        ["sample", "--replay", str(recorded), "-o", out],
        ["models", "show", TITLE],
        ["models", "show", f"{tiny_model}/{TITLE}"],
        ["eval", "compare", f"{TITLE}", str(tmp_path)],
        ["tokenize", str(folder), "--model", str(tiny_model), "-o", str(tmp_path / "tokens")],
        ["sample", "x", "-o", out, "--model", TITLE],
        [TITLE],
    ):
        assert main(words) in (1, 2)
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out + shown.err
        assert "title" in shown.err
        assert len([line for line in shown.err.splitlines() if not line.startswith("warning")]) == 2


def test_our_own_warnings_come_without_the_name_of_their_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    streams._show_warning("skipped: a.mp4", UrsaWarning)
    streams._show_warning("old", DeprecationWarning)
    assert capsys.readouterr().err == "warning: skipped: a.mp4\nwarning: DeprecationWarning: old\n"
