"""The record of a batch: JSON lines, appended as items begin and end.

``manifest.jsonl`` begins with what the batch is: its task, model and seed. A run appends its items
behind that, one of several shards to a ``manifest-i-of-n.jsonl`` of its own, so that no two
processes write to one file; a run reads them all. A line that a kill tore off counts for nothing.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from ursa_core.batches.shards import Shard
from ursa_core.errors import DataError, UsageError, unwritable

MANIFEST = "manifest.jsonl"

Status = Literal["started", "done", "failed"]


@dataclass(frozen=True)
class Header:
    """What a batch is.

    Attributes:
        task: the command.
        model: its name.
        model_identity: digits that change with the model's files.
        seed: that the seeds of items without one are derived from.
        ursa: the version that began it.
    """

    task: str
    model: str
    model_identity: str
    seed: int
    ursa: str


@dataclass(frozen=True)
class Record:
    """What became of an item.

    Attributes:
        item: its key, the same in every run.
        name: of its output in the folder.
        status: the latest record of an item holds.
        seed: of its random draws.
        options: all that it was made by.
        time: of the record, in seconds since 1970.
        seconds: that it took; items of one pass of the network begin together.
        error: why it failed.
        replaces: the output was there before it was begun, so its being there proves nothing.
    """

    item: str
    name: str
    status: Status
    seed: int
    options: dict[str, Any]
    time: float
    seconds: float | None = None
    error: str | None = None
    replaces: bool = False


def read_header(folder: Path) -> Header | None:
    """What the batch of a folder is, None where there is none.

    Raises:
        DataError: the manifest is damaged.
    """
    row = next(_rows(folder / MANIFEST), None)
    if row is None:
        return None
    try:
        return Header(**{field.name: row[field.name] for field in fields(Header)})
    except KeyError as error:
        raise _damaged(folder / MANIFEST, 1) from error


def begin(folder: Path, header: Header) -> Header:
    """What the batch of a folder is: the one begun there, else this one, which is written.

    Of several processes that begin at once, one writes it and all return the same.

    Raises:
        DataError: it can't be written, or is damaged.
    """
    path = folder / MANIFEST
    temporary = folder / f".{MANIFEST}.{os.getpid()}"
    if not path.exists():
        try:
            with temporary.open("wb") as file:
                file.write(_line(asdict(header)))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)  # fails where another process was first
            except OSError:
                if not path.exists():  # a file system without links
                    temporary.replace(path)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)
    found = read_header(folder)
    if found is None:
        raise _damaged(path, 1)
    return found


def check_same(folder: Path, found: Header, wanted: Header) -> None:
    """Refuse to go on with a batch of another task, model or seed.

    Raises:
        UsageError: it is one.
    """
    hint = "give another folder with -o"
    if found.task != wanted.task:
        raise UsageError(f"{folder} is a batch of ursa {found.task}", hint)
    if found.model_identity != wanted.model_identity:
        before, now = (f"{made.model} ({made.model_identity})" for made in (found, wanted))
        raise UsageError(f"{folder} is a batch of the model {before}, not {now}", hint)
    if found.seed != wanted.seed:
        raise UsageError(
            f"{folder} is a batch of the seed {found.seed}, not {wanted.seed}",
            f"leave --seed out to go on, or {hint}",
        )


def read_records(folder: Path) -> dict[str, Record]:
    """The latest record of each item, of all shards.

    Raises:
        DataError: a manifest is damaged.
    """
    known = {field.name for field in fields(Record)}
    records = []
    for path in manifests(folder):
        for number, row in enumerate(_rows(path), start=1):
            if path.name == MANIFEST and number == 1:
                continue
            try:
                records.append(Record(**{k: v for k, v in row.items() if k in known}))
            except TypeError as error:
                raise _damaged(path, number) from error
    return {record.item: record for record in sorted(records, key=lambda record: record.time)}


def manifests(folder: Path) -> list[Path]:
    """The files of the record."""
    return sorted([*folder.glob(MANIFEST), *folder.glob("manifest-*-of-*.jsonl")])


class Writer:
    """Appends records; only one process at a time has that of a shard.

    Args:
        folder: of the batch, begun.
        shard: whose items are recorded.

    Raises:
        UsageError: another process is at work on them.
        DataError: the file can't be written.
    """

    def __init__(self, folder: Path, shard: Shard) -> None:
        alone = shard.count == 1
        name = MANIFEST if alone else f"manifest-{shard.number}-of-{shard.count}.jsonl"
        self.path = folder / name
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            self._take(folder, shard)
            content = self.path.read_bytes()
            os.ftruncate(self._file, content.rfind(b"\n") + 1)
        except BaseException:
            os.close(self._file)
            raise

    def _take(self, folder: Path, shard: Shard) -> None:
        """Lock the file, unless a process has it, or one shares the list out otherwise."""
        of_same = f"manifest-*-of-{shard.count}.jsonl" if shard.count > 1 else MANIFEST
        others = [path for path in manifests(folder) if not path.match(of_same)]
        if not _lock(self._file, fcntl.LOCK_EX) or any(map(_is_locked, others)):
            raise UsageError(
                f"another run is at work on {folder}",
                "wait for it, or share the list out with the same n in every --shard i/n",
            )

    def append(self, *records: Record, sync: bool = True) -> None:
        """Write records, whole or not at all; with ``sync`` they outlast a power cut.

        Raises:
            DataError: they can't be written.
        """
        size = os.fstat(self._file).st_size
        lines = b"".join(_line(asdict(record)) for record in records)
        try:
            if os.write(self._file, lines) < len(lines):
                _fill_up()
            if sync:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise unwritable(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)


def _fill_up() -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lock(file: int, kind: int) -> bool:
    """Take a file for this process; False if another has it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:  # a shared lock, so that two that look don't see one another
        return not _lock(file.fileno(), fcntl.LOCK_SH)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file's whole lines."""
    if not path.exists():
        return
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}", "make it readable") from error
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _damaged(path, number) from error
        if not isinstance(row, dict):
            raise _damaged(path, number)
        yield row


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _damaged(path: Path, number: int) -> DataError:
    return DataError(
        f"line {number} of {path} is damaged",
        "mend or delete that line, or give another folder with -o",
    )
