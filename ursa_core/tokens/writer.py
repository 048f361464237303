"""Writing token shards: rows in, finished Parquet files out, also continued after a stop."""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from torch import Tensor

import ursa_core
from ursa_core.errors import DataError, unwritable
from ursa_core.files import make_folder, sweep, whole, writing
from ursa_core.parts import Part
from ursa_core.places import delete
from ursa_core.tokens import shards
from ursa_core.tokens.shards import TokenIdentity, read_columns, shard_paths

ROWS_PER_SHARD = 512
SECONDS_UNWRITTEN = 60.0  # after which clips that wait for a full shard are written, too
GROUP_CODES = 1 << 18  # about, per group of rows, which is read and decoded at once: a megabyte


@dataclass(frozen=True, slots=True)
class Origin:
    """A media file as it was when it was read; its path is relative to the shards' folder."""

    path: str
    size: int
    mtime_ns: int
    digest: str  # SHA-256, hexadecimal


@dataclass(frozen=True, slots=True)
class Made:
    """File and captions that clips were made of; no captions (None) where there is no clip."""

    origin: Origin
    captions: tuple[str, ...] | None


@dataclass(frozen=True)
class TokenRow:
    """One tokenized clip."""

    codes: Tensor  # codes on the latent grid, int64 (F, H, W)
    captions: tuple[str, ...]  # captions, any number
    fps: float  # frames per second at which the clip was sampled
    motion: float  # motion score in [0, 1], see `LoadedClip.motion`
    source: str  # name of the clip, by which a later run knows that it is done if it has no file
    origin: Origin | None = None  # file of the clip


class ShardWriter:
    """Appends clips to a folder of shards, each of which appears whole or not at all.

    A folder that has shards already is continued, and one that is made and stays empty is removed.
    Leaving the ``with`` block, for whatever reason, writes the rows that wait. Several processes
    may write into one folder. Every shard records the ``options``, by which the clips were cut.
    Damaged or foreign shards are a DataError.
    """

    def __init__(
        self,
        folder: Path,
        identity: TokenIdentity,
        options: Mapping[str, Any] | None = None,
        rows_per_shard: int = ROWS_PER_SHARD,
        part: Part = Part(),  # noqa: B008  (frozen)
    ) -> None:
        self.folder, self._prefix = folder, f"shard{part.suffix}"
        self._rows: list[TokenRow] = []  # of the last shard, which may be there in part
        self._last: tuple[Path, int] | None = None  # that shard, and the rows in it
        self._written = time.monotonic()
        self._rows_per_shard = rows_per_shard
        settings = {"identity": asdict(identity), "options": dict(options or {})}
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # as shards record them
        record = json.dumps({**settings, "version": ursa_core.__version__})
        self._schema = shards.SCHEMA.with_metadata({shards.RECORD_KEY: record.encode()})
        self.shards: list[Path] = []  # those of other processes as of the beginning
        # Of the clips in the shards, and of those that wait: files and captions, the names of those
        # for which no file is recorded, and the number of all.
        self.made: set[Made] = set()
        self.done: set[str] = set()
        self.num_clips = 0
        self._new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            sweep(make_folder(folder))
        except DataError:
            self.remove_made()
            raise
        for path in shard_paths(folder):
            try:
                found, clips = shards.open_shard(path), _clips_of(path)
            except DataError:
                if path.exists():
                    raise
                continue  # a process that rewrites shards has just deleted this one
            check_settings(path, found, self.settings)
            for clip in clips:
                self._count(clip)
            self.shards.append(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self.remove_made()

    def remove_made(self) -> None:
        """Remove the folder that was made, if it is empty."""
        with suppress(OSError):  # it may have somebody else's files by now
            for path in self._new_folders:
                path.rmdir()

    def _count(self, clip: Made | str) -> None:
        self.num_clips += 1
        if isinstance(clip, Made):
            self.made.add(clip)
        else:
            self.done.add(clip)

    def remove(self, stale: Collection[Made]) -> None:
        """Take clips out of the shards, those of other parts too; empty shards are deleted."""
        if not stale:
            return
        with rewriting(self.folder):
            for path in shard_paths(self.folder):
                clips = _clips_of(path)
                kept = [number for number, clip in enumerate(clips) if clip not in stale]
                if len(kept) == len(clips):
                    continue
                self.num_clips -= len(clips) - len(kept)
                if kept:
                    _write(path, read_columns(path).take(kept))
                    continue
                with writing(path):
                    delete(path)
        self.shards = [path for path in self.shards if path.exists()]
        self.made -= set(stale)

    def add(self, *rows: TokenRow) -> None:
        """Add clips that go into the same shard; one is written every ``rows_per_shard`` clips."""
        self._rows += rows
        for row in rows:
            self._count(Made(row.origin, row.captions) if row.origin else row.source)
        if len(self._rows) >= self._rows_per_shard:
            self.flush()
        elif time.monotonic() - self._written > SECONDS_UNWRITTEN:
            self._write_rows()  # again with those to come: the shards don't depend on the time

    def flush(self) -> None:
        """Write the waiting clips as a shard, if there are any."""
        self._write_rows()
        # Only now: an interrupt during the write leaves the rows for the flush on the way out.
        self._rows, self._last = [], None

    def _write_rows(self) -> None:
        path, num_written = self._last or (None, 0)
        if len(self._rows) == num_written:
            return
        if path is None:
            names = [path.stem.rpartition("-") for path in shard_paths(self.folder)]
            numbers = [int(number) for prefix, _, number in names if prefix == self._prefix]
            path = self.folder / f"{self._prefix}-{max(numbers, default=-1) + 1:05d}.parquet"
        rows = [
            {
                **vars(row),
                "codes": row.codes.flatten().numpy().astype(np.int32),
                "grid": list(row.codes.shape),
                "origin": asdict(row.origin) if row.origin else None,
            }
            for row in self._rows
        ]
        _write(path, pa.Table.from_pylist(rows, schema=self._schema))
        if self._last is None:
            self.shards.append(path)
        self._last, self._written = (path, len(self._rows)), time.monotonic()


def _write(path: Path, table: pa.Table) -> None:
    num_codes = pc.sum(pc.list_value_length(table["codes"])).as_py()
    try:
        with whole(path) as part:
            pq.write_table(
                table,
                part,
                row_group_size=max(1, GROUP_CODES * len(table) // num_codes),
                compression="zstd",
                write_page_checksum=True,
            )
    except (DataError, pa.ArrowException) as error:
        fault = error if isinstance(error, DataError) else unwritable(path, error)
        hint = f"{fault.hint}, then run again: finished shards are kept"
        raise DataError(fault.message, hint) from error


def _clips_of(path: Path) -> list[Made | str]:
    """File and captions of each clip of a shard, or its name where no file is recorded."""
    return [
        Made(Origin(**row["origin"]), tuple(row["captions"])) if row["origin"] else row["source"]
        for row in read_columns(path, "captions", "source", "origin").to_pylist()
    ]


@contextmanager
def rewriting(folder: Path) -> Iterator[None]:
    """Wait until no other process rewrites shards of a folder: two would undo each other's work."""
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # a file system without locks
            stack.enter_context(FileLock(folder / ".rewriting.lock"))
        yield


def remove_shards(folder: Path) -> None:
    """Delete the shards of a folder and nothing else."""
    try:
        for path in shard_paths(folder):
            delete(path)
    except OSError as error:
        fault = f"{folder} can't be emptied: {error.strerror}"
        raise DataError(fault, "choose another folder") from error


def check_settings(path: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to add to shards of another tokenizer or cut in another way."""
    for what, given in settings.items():
        if found.get(what) != given:
            raise DataError(
                f"{path} was made with another {_difference(found.get(what), given)}",
                "use the same settings, another folder, or --fresh to start over",
            )


def _difference(found: Any, given: Any) -> str:
    """What differs between two records, as ``tokenizer: 'a', not 'b'``, ``none`` for nothing."""
    if not isinstance(found, dict):
        return "record"
    shown: dict[Any, list[str]] = {
        key: ["none" if r.get(key) is None else repr(r[key]) for r in (found, given)]
        for key in {**given, **found}
        if found.get(key) != given.get(key)
    }
    return ", ".join(f"{key}: {old}, not {new}" for key, (old, new) in shown.items())
