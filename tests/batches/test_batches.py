"""What a batch promises, on a task that takes no time: resuming, shards, failures, kills."""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from notes_task import Notes, make_notes, notes
from waiting import wait_until

from ursa_cli.terminal import output
from ursa_core.batches import manifest
from ursa_core.batches.manifest import Header, Records
from ursa_core.errors import DataError, UsageError

FIVE = "a\nb\nc\nd\ne\n"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    output.configure()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def versions(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {path.name: path.stat() for path in folder.glob("[!.]*.png")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_items_are_made_recorded_and_printed_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    out.parent.mkdir()
    make_notes(out, FIVE)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(out / f"0000{k}-{'abcde'[k]}.png") for k in range(5)]
    assert shown.err.splitlines()[-1] == f"{out}: 5 made, 0 kept, 0 failed, 0 left"
    header, *records = rows(out / "manifest.jsonl")
    assert (header["task"], header["model"], header["seed"]) == ("notes", "pen", 5)
    assert [record["status"] for record in records] == 5 * ["started", "done"]
    assert records[1]["options"]["prompt"] == "a"
    assert records[1]["seed"] == records[1]["options"]["seed"]
    assert records[1]["seconds"] >= 0
    assert len({record["seed"] for record in records}) == 5


def test_json_is_a_line_an_item_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output.configure(as_json=True)
    with pytest.raises(DataError, match="1 of 2 items failed"):
        make_notes(tmp_path / "out", "a\nfail\n")
    first, second, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["status"], first["index"], first["error"]) == ("done", 0, None)
    assert (second["status"], second["error"]) == ("failed", "fail fails")
    assert last == {"summary": {"made": 1, "kept": 0, "failed": 1, "left": 0}}


def test_running_again_keeps_what_is_done_and_makes_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    make_notes(out, FIVE)
    before, content = versions(out), notes(out)
    (out / "00002-c.png").unlink()
    capsys.readouterr()
    task = make_notes(out, FIVE + "f\n", seed=None)
    assert task.packs == [[2], [5]]
    assert capsys.readouterr().out.splitlines() == [
        str(out / name) for name in ("00002-c.png", "00005-f.png")
    ]
    assert notes(out).items() >= content.items()
    del before["00002-c.png"]
    assert versions(out).items() >= before.items()


def test_the_seed_of_a_batch_is_drawn_once_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_notes(tmp_path / "a", FIVE, seed=None)
    seed = rows(tmp_path / "a" / "manifest.jsonl")[0]["seed"]
    assert f"seed {seed}\n" in capsys.readouterr().err
    make_notes(tmp_path / "b", FIVE, seed=None)
    assert rows(tmp_path / "b" / "manifest.jsonl")[0]["seed"] != seed
    assert notes(tmp_path / "a") != notes(tmp_path / "b")
    make_notes(tmp_path / "c", FIVE, seed=seed)
    assert notes(tmp_path / "a") == notes(tmp_path / "c")


def test_what_is_recorded_as_done_is_known_without_parsing_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = FIVE + "ein \u201eroter\u201c Kreis\n"
    make_notes(tmp_path / "out", lines)
    read = manifest._read
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "_read", lambda kind, *line: {Header: read}[kind](kind, *line))
        assert make_notes(tmp_path / "out", lines).packs == []
    (tmp_path / "out" / "00002-c.png").write_text("")
    assert make_notes(tmp_path / "out", lines).packs == [[2]]


def test_a_failure_stops_no_other_and_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="2 of 4 items failed"):
        make_notes(out, "a\nfail once\nfail twice\nd\n")
    assert list(notes(out)) == ["00000-a.png", "00003-d.png"]
    assert "failed: " + str(out / "00001-fail-once.png") in capsys.readouterr().err
    records = Records(out)
    assert records["item 1"].status == "failed"
    assert records["item 1"].error == "fail once fails"
    task = Notes()
    with pytest.raises(DataError, match="2 of 4 items failed"):
        make_notes(out, "a\nfail once\nfail twice\nd\n", task)
    assert task.packs == [[1], [2]]


def test_a_pack_that_fails_is_made_one_by_one(tmp_path: Path) -> None:
    task = Notes()
    with pytest.raises(DataError, match="1 of 5 items failed"):
        make_notes(tmp_path / "out", "a\nb\nfail\nd\ne\n", task, batch_size=4)
    assert task.packs == [[0, 1, 2, 3], [2], [3], [4]]
    assert len(notes(tmp_path / "out")) == 4


def test_packs_hold_items_that_agree(tmp_path: Path) -> None:
    lines = [{"prompt": "p", "size": 1 + k % 2} for k in range(7)]
    text = "\n".join(map(json.dumps, lines))
    task = make_notes(tmp_path / "out", text, suffix=".jsonl", batch_size=3)
    assert task.packs == [[0, 2, 4], [1, 3, 5], [6]]


def test_results_depend_on_neither_packs_nor_shards_nor_order(tmp_path: Path) -> None:
    named = [{"prompt": letter, "name": f"{letter}-take"} for letter in "abcdef"]
    text = "\n".join(map(json.dumps, named))
    make_notes(tmp_path / "alone", text, suffix=".jsonl")
    whole = notes(tmp_path / "alone")
    assert len(set(whole.values())) == 6
    make_notes(tmp_path / "packed", text, suffix=".jsonl", batch_size=4)
    reverse = "\n".join(map(json.dumps, named[::-1]))
    make_notes(tmp_path / "reverse", reverse, suffix=".jsonl")
    for part in ("2/3", "1/3", "3/3"):
        make_notes(tmp_path / "shards", text, suffix=".jsonl", shard=part)
    for folder in ("packed", "reverse", "shards"):
        assert notes(tmp_path / folder) == whole


def test_shards_resume_as_another_number_of_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    make_notes(out, FIVE, seed=None, shard="1/3")
    make_notes(out, FIVE, seed=None, shard="2/3")
    assert len(notes(out)) == 4
    first = versions(out)
    assert {path.name for path in out.glob("*.jsonl")} == {
        "manifest.jsonl", "manifest-1-of-3.jsonl", "manifest-2-of-3.jsonl",
    }  # fmt: skip
    capsys.readouterr()
    task = make_notes(out, FIVE, seed=None)
    assert task.packs == [[2]]
    assert capsys.readouterr().out.splitlines() == [str(out / "00002-c.png")]
    assert versions(out).items() >= first.items()
    assert make_notes(out, FIVE, seed=None, shard="1/2").packs == []


def test_ranks_share_a_list_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        make_notes(tmp_path / "out", FIVE, seed=None)
    monkeypatch.delenv("RANK")
    seed = rows(tmp_path / "out" / "manifest.jsonl")[0]["seed"]
    make_notes(tmp_path / "alone", FIVE, seed=seed)
    assert notes(tmp_path / "out") == notes(tmp_path / "alone")


def test_two_runs_never_make_one_list(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_notes(out, FIVE)
    with FileLock(out / ".manifest.jsonl.lock"):
        for shard in (None, "1/2"):
            with pytest.raises(UsageError, match="another run is at work"):
                make_notes(out, FIVE, shard=shard)
    make_notes(out, FIVE)
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("lines", "task", "named"),
    [
        ("a\nbee\n", None, "line 2 was made with other options: prompt 'b', not 'bee'"),
        ("a\nb\n", Notes(size=3), "line 1 was made with other options: size 1, not 3"),
        ("a\nb\n", Notes("red"), "batch of the model pen (blue), not pen (red)"),
    ],
)
def test_changes_are_refused_until_told(
    lines: str, task: Notes | None, named: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make_notes(out, "a\nb\n")
    before = versions(out)
    with pytest.raises(UsageError) as caught:
        make_notes(out, lines, task)
    assert named in caught.value.message
    assert versions(out) == before
    if "options" in named:
        assert make_notes(out, lines, task, force=True).packs in ([[1]], [[0], [1]])
        assert make_notes(out, lines, task).packs[-1:] in ([], [[1]])


def test_another_seed_is_refused(tmp_path: Path) -> None:
    make_notes(tmp_path / "out", "a\n", seed=5)
    with pytest.raises(UsageError, match="of the seed 5, not 6"):
        make_notes(tmp_path / "out", "a\n", seed=6)


def test_files_of_unknown_origin_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "00001-b.png").write_text("mine")
    with pytest.raises(UsageError, match=r"00001-b\.png exists already"):
        make_notes(out, FIVE)
    assert notes(out) == {"00001-b.png": "mine"}
    make_notes(out, FIVE, force=True)
    assert notes(out)["00001-b.png"].startswith("b ")


def test_names_that_meet_are_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        make_notes(tmp_path / "out", "a b\nc\nA-B\n", template="{slug}.png")
    assert "line 3: it would be written to a-b.png, as line 1" in caught.value.message
    assert "{index}" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_names_of_lines_stay_in_the_folder(tmp_path: Path) -> None:
    text = '{"prompt": "a", "name": "../a"}\n'
    with pytest.raises(DataError, match=r"line 1: '\.\./a\.png' is no name of a file inside"):
        make_notes(tmp_path / "out", text, suffix=".jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["out-list.jsonl"]


def test_nothing_starts_with_a_bad_line_unless_it_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, lines = tmp_path / "out", '{"prompt": "a"}\n{"prompt": "b", "size": 0}\nc\n'
    with pytest.raises(DataError, match="line 3: not JSON"):
        make_notes(out, lines, suffix=".jsonl")
    with pytest.raises(DataError, match="line 2: size can't be 0"):
        make_notes(out, lines.replace("\nc", ""), suffix=".jsonl")
    assert not out.exists()
    capsys.readouterr()
    make_notes(out, lines, suffix=".jsonl", skip_bad=True)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert [("line 3" in line, "line 2" in line) for line in warnings] == [
        (True, False), (False, True),
    ]  # fmt: skip
    assert list(notes(out)) == ["00000-a.png"]


def test_a_full_disk_ends_the_run_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    task = Notes()
    with pytest.raises(DataError, match="the disk is full"):
        make_notes(out, "a\nb\nfull\nd\n", task)
    assert task.packs == [[0], [1], [2]]
    assert "2 made, 0 kept, 0 failed, 2 left" in capsys.readouterr().err
    assert Records(out)["item 1"].status == "done"


def test_a_torn_last_line_counts_for_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_notes(out, "a\nb\n")
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    before = versions(out)
    assert make_notes(out, "a\nb\n").packs == []  # the file is there, and b was begun
    assert versions(out) == before
    assert rows(manifest)[-1]["status"] == "done"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join([*lines[:2], b"torn\n", *lines[2:]]))
    with pytest.raises(DataError, match=r"line 3 of .* is damaged"):
        make_notes(out, "a\nb\n")


def test_a_replaced_file_that_was_never_finished_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_notes(out, "a\n")
    with pytest.raises(DataError, match="disk is full"):
        make_notes(out, "full a\n", force=True, template="{index:05d}-a.png")
    # The old file is still there, and proves nothing about the new options.
    task = Notes()
    with pytest.raises(DataError, match="disk is full"):
        make_notes(out, "full a\n", task, template="{index:05d}-a.png")
    assert task.packs == [[0]]


def test_an_emptied_output_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_notes(out, FIVE)
    whole = notes(out)
    (out / "00001-b.png").write_bytes(b"")
    os.truncate(out / "00003-d.png", 0)
    task = make_notes(out, FIVE)
    assert task.packs == [[1], [3]]
    assert notes(out) == whole


def test_the_last_record_counts_whatever_the_clock_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: 4e9)
        with pytest.raises(DataError, match="1 of 2 items failed"):
            make_notes(out, "fail\nb\n")
    mended = Notes()
    mended.fails = "nothing"
    assert make_notes(out, "fail\nb\n", mended).packs == [[0]]
    assert make_notes(out, "fail\nb\n").packs == []


def test_a_run_ends_when_its_folder_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Removing(Notes):
        def make(self, items, on_step):
            if items[0].index == 2:
                shutil.rmtree(out)
            yield from super().make(items, on_step)

    task = Removing()
    with pytest.raises(DataError, match=r"00002-c\.png can't be written: no such file"):
        make_notes(out, FIVE, task)
    assert task.packs == [[0], [1], [2]]

    class Moving(Notes):
        def make(self, items, on_step):
            if items[0].index == 2:
                (out / "manifest.jsonl").unlink()
            yield from super().make(items, on_step)

    task = Moving()
    with pytest.raises(DataError, match="was deleted while the run was at work"):
        make_notes(out, FIVE, task)
    assert task.packs == [[0], [1], [2]]


def stopped(
    folder: Path, presses: int, number: signal.Signals = signal.SIGINT
) -> tuple[int, list[str]]:
    """Exit code and notes of a batch in a process that gets signals while it makes the second."""
    child = os.fork()
    if not child:
        code = 1
        try:
            make_notes(folder, FIVE, Notes(seconds=1.0))
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    wait_until(lambda: list(folder.glob(".00001-b.*")))
    for _ in range(presses):
        os.kill(child, number)
        time.sleep(0.1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), list(notes(folder))


def test_ctrl_c_ends_after_the_item_and_the_second_at_once(tmp_path: Path) -> None:
    code, made = stopped(tmp_path / "once", 1)
    assert (code, made) == (130, ["00000-a.png", "00001-b.png"])
    records = Records(tmp_path / "once")
    assert {key: record.status for key, record in records.items()} == {
        "item 0": "done", "item 1": "done",
    }  # fmt: skip
    code, made = stopped(tmp_path / "twice", 2)
    assert (code, made) == (130, ["00000-a.png"])
    assert Records(tmp_path / "twice")["item 1"].status == "started"
    make_notes(tmp_path / "twice", FIVE)
    assert len(list((tmp_path / "twice").iterdir())) == 5 + 1  # no temporary is left
    code, made = stopped(tmp_path / "term", 1, signal.SIGTERM)
    assert (code, made) == (130, ["00000-a.png", "00001-b.png"])


def test_kills_lose_nothing_and_make_nothing_twice(tmp_path: Path) -> None:
    lines = "".join(f"note {k}\n" for k in range(200))
    make_notes(tmp_path / "whole", lines, batch_size=4)
    out, draws = tmp_path / "killed", random.Random(0)
    seen: dict[str, tuple[int, int]] = {}
    for _ in range(10):
        child = os.fork()
        if not child:
            try:
                make_notes(out, lines, Notes(seconds=0.005), batch_size=4)
            finally:
                os._exit(0)
        enough = min(len(seen) + draws.randrange(1, 11), 200)
        wait_until(lambda enough=enough: len(versions(out)) >= enough)
        time.sleep(draws.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        now = versions(out)
        assert now.items() >= seen.items()
        seen = now
    make_notes(out, lines, batch_size=4)
    assert versions(out).items() >= seen.items()
    assert len(seen) >= 10
    assert notes(out) == notes(tmp_path / "whole")
    assert len(set(notes(out).values())) == 200
    assert {path.name for path in out.iterdir()} == {*notes(out), "manifest.jsonl"}
    assert all(record.status == "done" for record in Records(out).values())


def test_a_damaged_record_is_named_by_its_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_notes(out, FIVE)
    manifest = out / "manifest.jsonl"
    lines = manifest.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b'"options": {', b'"options": {,')
    manifest.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"line 5 of .*manifest\.jsonl is damaged"):
        make_notes(out, FIVE)


def test_ray_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray isn't installed") as caught:
        make_notes(tmp_path / "out", FIVE, ray="auto")
    assert caught.value.hint == "pip install 'ursa-video[ray]'"
