"""Writing token shards: rows in, finished Parquet files out, and going on after a stop."""

import fcntl
import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

import ursa_core
from ursa_core.errors import DataError, unwritable
from ursa_core.files import sweep, whole
from ursa_core.parts import Shard
from ursa_core.tokens.shards import (
    RECORD_KEY,
    SCHEMA,
    TokenIdentity,
    open_shard,
    read_columns,
    shard_paths,
)

ROWS_PER_SHARD = 512
GROUP_CODES = 1 << 18
"""Of a group of rows, about: what is read and decoded at once, a megabyte."""


@dataclass(frozen=True)
class Origin:
    """A media file as it was when it was read.

    Attributes:
        path: Path relative to the folder of the shards, so that both may move together.
        size: Number of bytes.
        mtime_ns: Time of the last change, in nanoseconds since 1970.
        digest: SHA-256 of the content, hexadecimal.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str


@dataclass(frozen=True)
class Made:
    """What clips were made of: a file and its captions; None where no clip came of the file."""

    origin: Origin
    captions: tuple[str, ...] | None


@dataclass(frozen=True)
class TokenRow:
    """One tokenized clip.

    Attributes:
        codes: int64 (F, H, W) on the latent grid.
        captions: any number, none for clips without.
        fps: frames a second at which the clip was sampled.
        motion: mean absolute difference of successive sampled frames as a share of the pixel
            range, so 0 is a still and 1 black against white; see :func:`motion_of`.
        source: name of the clip.
        origin: file that it was made of, by which a later run knows what is done; clips without
            one are known by their names.
    """

    codes: Tensor
    captions: tuple[str, ...]
    fps: float
    motion: float
    source: str
    origin: Origin | None = None


def motion_of(frames: NDArray[np.uint8]) -> float:
    """How much a clip moves, in [0, 1], of frames uint8 (F, H, W, 3).

    The mean over pixels, channels and pairs of successive frames of the absolute difference,
    divided by 255. It grows with the time between frames, so compare clips of equal fps. A still
    has 0.
    """
    if len(frames) < 2:
        return 0.0
    pairs = itertools.pairwise(frames.astype(np.int16))
    differences = [np.abs(later - earlier).mean() for earlier, later in pairs]
    return float(np.mean(differences) / 255)


class ShardWriter:
    """Appends clips to a folder of shards, each of which appears whole or not at all.

    A folder that holds shards already is continued: :attr:`made` and :attr:`done` say what is in
    it. Leaving the ``with`` block, for whatever reason, writes the rows that wait. Several
    processes may write into one folder, each with names of its own.

    Args:
        folder: made if it doesn't exist, and removed again if nothing comes into it.
        identity: the tokenizer of the codes.
        options: how the clips were cut; JSON values, recorded in every shard.
        rows_per_shard: clips of a full shard, also the most that a killed run loses, about.
        part: of the work, which this process does.

    Attributes:
        settings: identity and options as shards record them.
        shards: that there are; those of other processes as of the beginning.
        made: files and captions of the clips in them, and of those that wait.
        done: names of those clips for which no file is recorded.
        num_clips: number of all clips in them, and of those that wait.

    Raises:
        DataError: the shards in the folder are damaged, belong to another tokenizer or were cut
            with other options, or the folder can't be written.
    """

    def __init__(
        self,
        folder: Path,
        identity: TokenIdentity,
        options: Mapping[str, Any] | None = None,
        rows_per_shard: int = ROWS_PER_SHARD,
        part: Shard = Shard(),  # noqa: B008  (frozen)
    ) -> None:
        self.folder, self._prefix = folder, f"shard{part.suffix}"
        self._rows: list[TokenRow] = []
        self._rows_per_shard = rows_per_shard
        self._num_codes = identity.num_codes
        settings = {"identity": asdict(identity), "options": dict(options or {})}
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        record = json.dumps({**settings, "version": ursa_core.__version__})
        self._schema = SCHEMA.with_metadata({RECORD_KEY: record.encode()})
        self.shards: list[Path] = []
        self.made: set[Made] = set()
        self.done: set[str] = set()
        self.num_clips = 0
        self._new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
        except OSError as error:
            self.remove_made()
            raise unwritable(folder, error) from error
        with _locked(folder, fcntl.LOCK_SH):
            for path in shard_paths(folder):
                check_settings(path, open_shard(path), self.settings)
                for clip in _clips_of(path):
                    self._count(clip)
                self.shards.append(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self.remove_made()

    def remove_made(self) -> None:
        """Remove the folder that was made, if there is nothing in it."""
        with suppress(OSError):  # somebody else's files may be there by now
            for path in self._new_folders:
                path.rmdir()

    def _count(self, clip: Made | str) -> None:
        self.num_clips += 1
        if isinstance(clip, Made):
            self.made.add(clip)
        else:
            self.done.add(clip)

    def remove(self, stale: Collection[Made]) -> None:
        """Take clips out of the shards, those of other parts too.

        Each shard that holds some is written whole and takes the place of the old one, so that a
        kill leaves one of both. A shard that nothing is left of is deleted.

        Raises:
            DataError: a shard is damaged or can't be written.
        """
        if not stale:
            return
        with _locked(self.folder, fcntl.LOCK_EX):  # two that rewrite a shard would undo each other
            for path in shard_paths(self.folder):
                clips = _clips_of(path)
                kept = [number for number, clip in enumerate(clips) if clip not in stale]
                if len(kept) == len(clips):
                    continue
                self.num_clips -= len(clips) - len(kept)
                if kept:
                    _write(path, read_columns(path).take(kept))
                    continue
                try:
                    path.unlink()
                except OSError as error:
                    raise unwritable(path, error) from error
        self.shards = [path for path in self.shards if path.exists()]
        self.made -= set(stale)

    def add(self, *rows: TokenRow) -> None:
        """Take clips that come into the same shard; one is written every ``rows_per_shard`` clips.

        Raises:
            DataError: the shard can't be written.
        """
        for row in rows:
            low, high = int(row.codes.min()), int(row.codes.max())
            if row.codes.ndim != 3 or low < 0 or high >= self._num_codes:
                raise ValueError(
                    f"codes {tuple(row.codes.shape)} in [{low}, {high}] aren't of this tokenizer"
                )
        self._rows += rows
        for row in rows:
            self._count(Made(row.origin, row.captions) if row.origin else row.source)
        if len(self._rows) >= self._rows_per_shard:
            self.flush()

    def flush(self) -> None:
        """Write the waiting clips as a shard, if there are any.

        Raises:
            DataError: the shard can't be written.
        """
        if not self._rows:
            return
        names = [path.stem.rpartition("-") for path in shard_paths(self.folder)]
        number = max((int(n) + 1 for prefix, _, n in names if prefix == self._prefix), default=0)
        path = self.folder / f"{self._prefix}-{number:05d}.parquet"
        rows = self._rows
        columns = {
            "codes": [row.codes.flatten().numpy().astype(np.int32) for row in rows],
            "grid": [list(row.codes.shape) for row in rows],
            "captions": [list(row.captions) for row in rows],
            "fps": [row.fps for row in rows],
            "motion": [row.motion for row in rows],
            "source": [row.source for row in rows],
            "origin": [asdict(row.origin) if row.origin else None for row in rows],
        }
        _write(path, pa.Table.from_pydict(columns, schema=self._schema))
        self.shards.append(path)
        # Only now: an interrupt during the write leaves the rows for the flush on the way out.
        self._rows = []


def _write(path: Path, table: pa.Table) -> None:
    """Write a shard, in groups of rows of about ``GROUP_CODES`` codes."""
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
        raise DataError(
            fault.message, f"{fault.hint}, then run again: finished shards are kept"
        ) from error


def _clips_of(path: Path) -> list[Made | str]:
    """What each clip of a shard was made of, or its name where no file is recorded."""
    columns = read_columns(path, "captions", "source", "origin").to_pydict()
    names, captions = columns["source"], columns["captions"]
    origins = columns.get("origin") or [None] * len(names)
    return [
        Made(Origin(**origins[k]), tuple(captions[k])) if origins[k] else names[k]
        for k in range(len(names))
    ]


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Wait until no other process rewrites the shards of a folder.

    ``LOCK_SH`` is for reading them, ``LOCK_EX`` for rewriting some. Where the file system has no
    locks, nothing is waited for.
    """
    file = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(file, kind)
        yield
    finally:
        os.close(file)


def remove_shards(folder: Path) -> None:
    """Delete the shards of a folder and nothing else.

    Raises:
        DataError: they can't be deleted.
    """
    try:
        for path in shard_paths(folder):
            path.unlink()
    except OSError as error:
        raise DataError(
            f"{folder} can't be emptied: {error.strerror}", "choose another folder"
        ) from error


def check_settings(path: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to add to what was made with another tokenizer or cut in another way.

    Raises:
        DataError: ``found``, which ``path`` records, has other settings.
    """
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
    keys = [key for key in {**given, **found} if found.get(key) != given.get(key)]

    def told(record: dict[str, Any], key: str) -> str:
        value = record.get(key)
        return "none" if value is None else repr(value)

    return ", ".join(f"{key}: {told(found, key)}, not {told(given, key)}" for key in keys)
