"""What goes to stdout and what to stderr, on a terminal and without one."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ursa_cli.terminal import output


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_mode() -> Iterator[None]:
    output.configure()
    yield
    output.configure()


def print_everything() -> None:
    output.note("seed 7")
    output.warn("odd")
    output.data({"path": "é.mp4", "n": 1}, lines=["wrote é.mp4"], paths=[Path("é.mp4")])


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    print_everything()
    assert capsys.readouterr() == ("wrote é.mp4\n", "seed 7\nwarning: odd\n")


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    output.configure(as_json=True)
    print_everything()
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"path": "é.mp4", "n": 1}
    assert shown.count("\n") == 1


def test_quiet_prints_paths_only(capsys: pytest.CaptureFixture[str]) -> None:
    output.configure(quiet=True)
    print_everything()
    with output.progress(2, "work") as advance:
        advance(2)
    assert capsys.readouterr() == ("é.mp4\n", "warning: odd\n")


def test_paths_stand_in_for_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.data({}, paths=["a", "b"])
    assert capsys.readouterr().out == "a\nb\n"


def test_table_columns_are_aligned() -> None:
    rows = [("a.mp4", 1.5, "ok"), ("long name.mp4", 22, "")]
    assert output.table(("FILE", "DB", "NOTE"), rows) == [
        "FILE            DB  NOTE",
        "a.mp4          1.5  ok",
        "long name.mp4   22",
    ]
    assert output.table(("FILE", "DB"), []) == ["FILE  DB"]
    assert output.table(("A", "N"), [("🦊", 1), ("fox", 22)]) == ["A     N", "🦊    1", "fox  22"]


def test_progress_without_terminal_is_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with output.progress(3, "sample") as advance:
        advance()
        advance(2)
    assert capsys.readouterr().err == ""  # fast work says nothing
    monkeypatch.setattr(output, "SECONDS_BETWEEN_LINES", 0.0)
    with output.progress(3, "sample") as advance:
        advance(1, "loss 0.5")
        advance(2)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("sample: 1/3, ")
    assert first.endswith("loss 0.5")
    assert last.startswith("sample: 3/3, 0 s left")


def test_time_left_counts_only_the_steps_of_this_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SECONDS_BETWEEN_LINES", 0.0)
    clock = iter([0.0, 50.0, 60.0])  # what came before the steps isn't predicted from
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    with output.progress(103, "training") as advance:
        advance(100, earlier=True)
        advance()
    assert "101/103, 20 s left" in capsys.readouterr().err.splitlines()[-1]


def test_time_left_forgets_the_first_step_that_loads_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SECONDS_BETWEEN_LINES", 0.0)
    clock = iter([0.0, 60.0, 62.0, 64.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    with output.progress(13, "sample") as advance:
        for _ in range(3):
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[1] for line in lines] == ["12 minutes left", "22 s left", "20 s left"]


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with output.progress(4, "sample") as advance:
        advance(4)
    assert "sample" in terminal.getvalue()
    assert "\r" in terminal.getvalue()


def test_colour_is_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = []
    for stream, no_color in [(Terminal(), ""), (Terminal(), "1"), (io.StringIO(), "")]:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("NO_COLOR", no_color)
        output.error("bad")
        shown.append(stream.getvalue())
    assert "\x1b[31" in shown[0]
    assert shown[1:] == ["error: bad\n", "error: bad\n"]


def test_tables_fit_a_terminal_and_are_whole_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    header, rows = (
        ["NAME", *(f"SCORE {k}" for k in range(9))],
        [["a", *range(9)], ["bb", *range(9)]],
    )
    whole = output.table(header, rows)
    assert output.fitting_table(header, rows) == whole
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    found = output.fitting_table(header, rows)
    assert found == [
        *output.table(header[:5], [row[:5] for row in rows]),
        "(5 more columns don't fit the terminal)",
    ]
    monkeypatch.setenv("COLUMNS", "200")
    assert output.fitting_table(header, rows) == whole
