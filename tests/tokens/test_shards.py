"""Token shards: rows come back as written, runs continue, damage is noticed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ursa_core.encoding.cuts import LoadedClip
from ursa_core.errors import DataError
from ursa_core.grids import LatentGrid
from ursa_core.tokens import writer as shard_writer
from ursa_core.tokens.shards import TokenIdentity, read_shards, shard_paths
from ursa_core.tokens.writer import ShardWriter, TokenRow, remove_shards

IDENTITY = TokenIdentity("ab12", 4375, (7, 5, 5, 5, 5), 4, 8)
SMALL, LARGE = LatentGrid(3, 4, 4), LatentGrid(1, 4, 6)


def row(index: int, grid: LatentGrid = SMALL) -> TokenRow:
    generator = torch.Generator().manual_seed(index)
    codes = torch.randint(4375, (grid.frames, grid.rows, grid.columns), generator=generator)
    captions = tuple(f"caption {index}.{k}" for k in range(index % 3))
    return TokenRow(codes, captions, 8.0, 0.25 * index, f"clips/{index}.mp4")


def write(folder: Path, rows: list[TokenRow], identity: TokenIdentity = IDENTITY) -> None:
    with ShardWriter(folder, identity, {"fps": 8}, rows_per_shard=3) as writer:
        for one in rows:
            writer.add(one)


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    rows = [row(k, LARGE if k in (2, 5) else SMALL) for k in range(8)]
    write(tmp_path, rows)
    assert [path.name for path in tmp_path.iterdir() if path not in shard_paths(tmp_path)] == []
    assert len(shard_paths(tmp_path)) == 3
    table = read_shards(tmp_path)
    assert table.identity == IDENTITY
    assert len(table) == 8
    assert table.grids == [SMALL, LARGE]
    assert table.rows(SMALL).tolist() == [0, 1, 3, 4, 6, 7]
    assert table.rows(LatentGrid(9, 9, 9)).tolist() == []
    chosen = [7, 0, 4, 7]
    codes = table.codes(chosen)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, torch.stack([rows[k].codes.flatten() for k in chosen]))
    assert torch.equal(table.codes(table.rows(LARGE))[1], rows[5].codes.flatten())
    for k in range(8):
        assert table.captions(k) == list(rows[k].captions)
        assert (table._field("fps", k), table.motions[k]) == (8.0, 0.25 * k)
        assert table.source(k) == f"clips/{k}.mp4"
        assert table.grid(k) == (LARGE if k in (2, 5) else SMALL)


def test_only_some_groups_of_rows_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "GROUP_CODES", 100)  # two rows
    rows = [row(k) for k in range(24)]
    with ShardWriter(tmp_path, IDENTITY, rows_per_shard=6) as writer:
        for one in rows:
            writer.add(one)
    assert [pq.read_metadata(path).num_row_groups for path in shard_paths(tmp_path)] == [3] * 4
    table = read_shards(tmp_path)
    assert table.group_starts.tolist() == list(range(0, 25, 2))
    assert table.num_uncaptioned == 8
    assert not table._decoded  # nothing was read but grids and motions
    table.row_codes(0)
    one_group = table._decoded_bytes
    table.cache_bytes = 3 * one_group + 100
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()
    most = 0
    for k in order * 2:
        assert np.array_equal(table.row_codes(k), rows[k].codes.flatten())
        assert table.captions(k) == list(rows[k].captions)
        most = max(most, table._decoded_bytes)
    assert 2 * one_group < most <= table.cache_bytes
    assert sum(group.num_bytes for group in table._decoded.values()) == table._decoded_bytes
    assert sorted(table.all_captions()) == sorted(c for one in rows for c in one.captions)


def test_several_threads_read_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path, [row(k) for k in range(12)])
    table = read_shards(tmp_path)
    table.cache_bytes = 1  # of one group, whichever was read last
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: (k, table.row_codes(k)), [*range(12)] * 10))
    assert all(np.array_equal(codes, row(k).codes.flatten()) for k, codes in found)
    assert len(table._decoded) == 1


def test_a_stopped_run_continues_after_its_last_shard(tmp_path: Path, part_of_dead) -> None:
    def interrupted() -> None:
        with ShardWriter(tmp_path, IDENTITY, rows_per_shard=3) as writer:
            for k in range(4):
                writer.add(row(k))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    part_of_dead(tmp_path / "shard-00002.parquet").write_bytes(b"half")
    with ShardWriter(tmp_path, IDENTITY, rows_per_shard=3) as writer:
        assert writer.done == {f"clips/{k}.mp4" for k in range(4)}
        writer.add(row(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"shard-0000{k}.parquet" for k in range(3)
    ]
    table = read_shards(tmp_path)
    assert [table.source(k) for k in range(len(table))] == [f"clips/{k}.mp4" for k in range(5)]
    remove_shards(tmp_path)
    assert shard_paths(tmp_path) == []


def test_other_tokenizers_and_options_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [row(0)])
    other = replace(IDENTITY, tokenizer="cd34")
    with pytest.raises(DataError, match="tokenizer: 'ab12', not 'cd34'"):
        ShardWriter(tmp_path, other, {"fps": 8})
    with pytest.raises(DataError, match="fps: 8, not 12"):
        ShardWriter(tmp_path, IDENTITY, {"fps": 12})
    write(tmp_path / "other", [row(1)], other)
    (tmp_path / "other" / "shard-00000.parquet").rename(tmp_path / "shard-00001.parquet")
    with pytest.raises(DataError, match="different tokenizers"):
        read_shards(tmp_path)


def test_missing_damaged_and_foreign_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no token shard"):
        read_shards(tmp_path)
    write(tmp_path, [row(0), row(1)])
    (path,) = shard_paths(tmp_path)
    whole = path.read_bytes()
    for end in (0, 10, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"shard-00000\.parquet is damaged"):
            read_shards(tmp_path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(DataError, match="isn't a token shard"):
        read_shards(tmp_path)


def test_changed_bytes_and_impossible_codes_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, [row(0), row(1)])
    (path,) = shard_paths(tmp_path)
    whole = path.read_bytes()
    first = pq.read_metadata(path).row_group(0).column(0)
    for at in (first.data_page_offset - 20, whole.index(b"captions")):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"is damaged|isn't a token shard"):
            read_shards(tmp_path).codes([0, 1])

    path.write_bytes(whole)
    table = pq.read_table(path)
    for codes, complaint in ([[4375] * 48] * 2, "out of range"), ([[1] * 47] * 2, "don't match"):
        column = pa.array(codes, table.schema.field("codes").type)
        pq.write_table(table.set_column(0, table.schema.field("codes"), column), path)
        with pytest.raises(DataError, match=complaint):
            read_shards(tmp_path).codes([0])


def test_unwritable_folders_and_a_failed_write_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        ShardWriter(tmp_path / "file" / "shards", IDENTITY)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    writer = ShardWriter(tmp_path / "shards", IDENTITY)
    writer.add(row(0))
    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DataError, match="the disk is full"), writer:
        writer.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_motion_is_the_mean_change_of_successive_frames() -> None:
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    assert LoadedClip(frames, (), "").motion == 0
    assert LoadedClip(frames[:1], (), "").motion == 0
    frames[1] = 255
    assert LoadedClip(frames, (), "").motion == 1
    frames[2] = 204
    assert LoadedClip(frames, (), "").motion == pytest.approx((1 + 0.2) / 2)


def test_clips_that_wait_are_written_in_time_and_shards_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("slow", -1.0), ("quick", 1e9)):
        monkeypatch.setattr(shard_writer, "SECONDS_UNWRITTEN", seconds)
        with ShardWriter(tmp_path / name, IDENTITY, rows_per_shard=3) as writer:
            for k in range(5):
                writer.add(row(k))
                kept = sum(pq.read_metadata(path).num_rows for path in shard_paths(tmp_path / name))
                assert kept == (k + 1 if name == "slow" else 3 * (k >= 2))
        assert writer.shards == shard_paths(tmp_path / name)
    slow, quick = (shard_paths(tmp_path / name) for name in ("slow", "quick"))
    assert [p.read_bytes() for p in slow] == [p.read_bytes() for p in quick]


def test_a_shard_that_may_not_be_read_is_not_damaged(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pq, "ParquetFile", refused)
    (tmp_path / "shard-00000.parquet").touch()
    with pytest.raises(DataError, match="can't be read: Permission denied") as refusal:
        read_shards(tmp_path)
    assert refusal.value.hint == "make it readable"
