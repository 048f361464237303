"""The table of quality against passes, on a few real clips of nano."""

import sys
from pathlib import Path

import few_calls
import pytest


def test_ways_are_paired_and_a_second_run_samples_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = ["steps=2 guidance=1 correct=0", "steps=2 guidance=2 correct=1"]
    args = [part for way in ways for part in ("--way", way)]
    command = ["few_calls.py", *args, "--limit", "3", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--plot", str(tmp_path / "plot.png")])
    assert few_calls.main() == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "steps=" in line]
    assert [row[0].removeprefix("| ") for row in rows[:2]] == ways
    assert [row[1] for row in rows[:2]] == ["2", "4"]  # the second step starts below t = 0.9, too
    assert rows[0][-2].startswith("+0.0")  # the first way against itself
    assert (tmp_path / "plot.png").stat().st_size > 10_000

    lines = few_calls.records(tmp_path / "records.jsonl")
    assert len(lines) == 6
    assert len({(line["way"], line["prompt"]) for line in lines}) == 6
    assert few_calls.main() == 0
    assert few_calls.records(tmp_path / "records.jsonl") == lines


def test_an_option_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for way, words in (
        ("correct=2", "`correct` can't be 2"),
        ("speed=1", "no option `speed`"),
        ("steps=a", "'steps=a' is no way"),
        ("correct", "is no way"),
    ):
        monkeypatch.setattr(sys, "argv", ["few_calls.py", "--way", way, "--out", str(tmp_path)])
        assert few_calls.main() == 2
        assert words in capsys.readouterr().err
