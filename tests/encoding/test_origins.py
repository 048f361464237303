"""Files of clips: what counts as changed, moved and gone."""

import os
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import torch

from ursa_core.encoding.items import find_items
from ursa_core.encoding.origins import Made, compare, origin_of
from ursa_core.encoding.sources import MediaFile
from ursa_core.errors import DataError
from ursa_core.tokens import writer as shard_writer
from ursa_core.tokens.shards import TokenIdentity, read_shards, shard_paths
from ursa_core.tokens.writer import ShardWriter, TokenRow, rewriting

(DRAWN,) = find_items(["shapes:train"], 1, 0, 8.0)
IDENTITY = TokenIdentity("ab12", 8, (), 4, 8)


def item(path: Path, content: str | None = None, *captions: str) -> MediaFile:
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return MediaFile(f"{path.parent.name}/{path.name}", path, captions)


def made(each: MediaFile, folder: Path) -> Made:
    origin = origin_of(each, folder)
    assert origin is not None
    return Made(origin, each.captions)


def test_content_decides_where_size_or_time_differ(tmp_path: Path) -> None:
    one = item(tmp_path / "a" / "one.mp4", "abc", "x")
    recorded = made(one, tmp_path / "shards")
    assert recorded.origin.path == "../a/one.mp4"

    def state() -> tuple[bool, bool]:
        found = compare([one], [], [recorded], tmp_path / "shards")
        return one.key in found.done, found.changed == {recorded}

    assert state() == (True, False)
    at = recorded.origin.mtime_ns + 10**9
    os.utime(one.path, ns=(at, at))
    assert state() == (True, False)
    one.path.write_text("abd")
    os.utime(one.path, ns=(at, at))
    assert state() == (False, True)
    one.path.write_text("abcd")
    assert state() == (False, True)


def test_faulty_captions_and_unreadable_files_change_nothing(tmp_path: Path) -> None:
    one = item(tmp_path / "one.mp4", "abc", "x")
    recorded = made(one, tmp_path)
    faulty = replace(one, captions=(), fault=DataError("not UTF-8", "save it"))
    found = compare([faulty], [], [recorded], tmp_path)
    assert (found.done, found.changed, found.gone) == (set(), set(), set())  # it is skipped
    one.path.unlink()
    found = compare([item(tmp_path / "one.mp4", None, "y")], [], [recorded], tmp_path)
    assert (found.done, found.changed, found.gone) == ({one.key}, set(), {recorded})
    assert not compare([one], [], [recorded], tmp_path, drop_gone=True).done
    assert origin_of(one, tmp_path) is None
    assert origin_of(DRAWN, tmp_path) is None


def test_moved_files_are_known_once(tmp_path: Path) -> None:
    """Two films of one name and content that moved are two; a new one of that name is new."""
    before = [item(tmp_path / side / "x.mp4", "abc") for side in "ab"]
    recorded = {made(each, tmp_path) for each in before}
    assert len(recorded) == 2
    for side in "ab":
        (tmp_path / side).rename(tmp_path / f"new-{side}")
    after = [item(tmp_path / f"new-{side}" / "x.mp4") for side in "ab"]
    found = compare(after, [], recorded, tmp_path)
    assert (found.done, found.gone) == ({each.key for each in after}, set())
    third = item(tmp_path / "c" / "x.mp4", "abc")
    assert third.key not in compare([*after, third], [], recorded, tmp_path).done
    other = item(tmp_path / "new-a" / "x.mp4", "other")
    found = compare([other], [], recorded, tmp_path)
    assert (found.done, found.changed, len(found.gone)) == (set(), set(), 2)


def test_drawn_clips_are_known_by_their_names(tmp_path: Path) -> None:
    assert compare([DRAWN], [DRAWN.name], [], tmp_path).done == {DRAWN.key}
    assert not compare([DRAWN], [], [], tmp_path).done


def test_a_part_has_only_its_own_files_made_again(tmp_path: Path) -> None:
    items = [item(tmp_path / f"{k}.mp4", "abc") for k in range(2)]
    recorded = [made(each, tmp_path) for each in items]
    for each in items:
        each.path.write_text("other")
    found = compare(items, [], recorded, tmp_path, owns=lambda index: index == 1)
    assert (found.done, found.changed) == (set(), {recorded[1]})


@pytest.fixture
def shards(tmp_path: Path) -> list[Made]:
    """What the clips of two shards of three were made of; the last clip is drawn."""
    files = [
        made(item(tmp_path / "v" / f"{k}.mp4", str(k), f"clip {k}"), tmp_path) for k in range(5)
    ]
    with ShardWriter(tmp_path, IDENTITY, rows_per_shard=3) as writer:
        for k, each in enumerate(files):
            codes = torch.full((1, 2, 2), k)
            writer.add(TokenRow(codes, each.captions or (), 8.0, 0.0, f"v/{k}.mp4", each.origin))
        writer.add(TokenRow(torch.full((1, 2, 2), 5), (), 8.0, 0.0, "shapes:train/0/0"))
    return files


def test_clips_are_taken_out_of_their_shards_alone(tmp_path: Path, shards: list[Made]) -> None:
    first, second = shard_paths(tmp_path)
    content = second.read_bytes()
    writer = ShardWriter(tmp_path, IDENTITY)
    assert (writer.made, writer.done, writer.num_clips) == (set(shards), {"shapes:train/0/0"}, 6)
    writer.remove({shards[1]})
    assert (writer.num_clips, second.read_bytes()) == (5, content)
    table = read_shards(tmp_path)
    assert [table.source(k)[:3] for k in range(5)] == ["v/0", "v/2", "v/3", "v/4", "sha"]
    assert [int(table.codes([k])[0, 0]) for k in range(5)] == [0, 2, 3, 4, 5]
    assert table.captions(1) == ["clip 2"]
    writer.remove(set(shards[:3]))
    assert (writer.shards, shard_paths(tmp_path)) == ([second], [second])
    again = ShardWriter(tmp_path, IDENTITY)
    assert again.made == writer.made == set(shards[3:])
    assert not first.exists()


def test_two_processes_do_not_rewrite_at_once(tmp_path: Path, shards: list[Made]) -> None:
    writer = ShardWriter(tmp_path, IDENTITY)
    thread = Thread(target=writer.remove, args=({shards[0]},))
    with rewriting(tmp_path):
        thread.start()
        time.sleep(0.2)
        assert (thread.is_alive(), len(read_shards(tmp_path))) == (True, 6)
    thread.join()
    assert len(read_shards(tmp_path)) == 5


def test_a_shard_that_another_process_deletes_meanwhile_is_no_fault(
    tmp_path: Path, shards: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = shard_paths(tmp_path)
    monkeypatch.setattr(shard_writer, "shard_paths", lambda _: [first, tmp_path / "gone", second])
    writer = ShardWriter(tmp_path, IDENTITY)
    assert (writer.shards, writer.num_clips) == ([first, second], 6)
