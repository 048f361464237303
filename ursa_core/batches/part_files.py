"""Files of lines that the processes which share a job write, each one of its own."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from ursa_core.errors import DataError, UsageError, unwritable
from ursa_core.files import parse_object
from ursa_core.parts import Shard


class PartFile:
    """A part's ``STEM.jsonl`` or ``STEM-i-of-n.jsonl``, which one process at a time appends to.

    A line that a killed process left unfinished is taken away.

    Args:
        folder: of the job.
        stem: of the names.
        shard: whose part it is.

    Raises:
        UsageError: another process is at work on it, or one that shares the job out otherwise.
        DataError: the file can't be written.
    """

    def __init__(self, folder: Path, stem: str, shard: Shard) -> None:
        self._folder, self._stem, self._shard = folder, stem, shard
        self.path = folder / f"{stem}{shard.suffix}.jsonl"
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            self._take()
            content = self.path.read_bytes()
            os.ftruncate(self._file, content.rfind(b"\n") + 1)
        except BaseException:
            os.close(self._file)
            raise

    def _take(self) -> None:
        """Lock the file, unless a process has it, or one shares the job out otherwise."""
        count = self._shard.count
        of_same = f"{self._stem}-*-of-{count}.jsonl" if count > 1 else self.path.name
        others = [p for p in part_files(self._folder, self._stem) if not p.match(of_same)]
        if not _lock(self._file, fcntl.LOCK_EX) or any(map(_is_locked, others)):
            raise UsageError(
                f"another run is at work on {self._folder}",
                "wait for it, or share the list out with the same n in every --shard i/n",
            )

    def append_rows(self, *rows: dict[str, Any], sync: bool = True) -> None:
        """Write lines, whole or not at all; with ``sync`` they outlast a power cut.

        Raises:
            DataError: they can't be written.
        """
        size = os.fstat(self._file).st_size
        if not self.path.exists():
            raise DataError(
                f"{self.path} was deleted while the run was at work",
                "bring it back, or give the same command to start again",
            )
        lines = b"".join(line_of(row) for row in rows)
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


def part_files(folder: Path, stem: str) -> list[Path]:
    """The files of all parts that there are."""
    return sorted([*folder.glob(f"{stem}.jsonl"), *folder.glob(f"{stem}-*-of-*.jsonl")])


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file's whole lines.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}", "make it readable") from error
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            yield parse_object(line)
        except ValueError as error:
            raise damaged_line(path, number) from error


def line_of(row: dict[str, Any]) -> bytes:
    """An object as a line."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def damaged_line(path: Path, number: int) -> DataError:
    """The error to raise for a line that isn't what it should be."""
    return DataError(
        f"line {number} of {path} is damaged",
        "mend or delete that line, or give another folder with -o",
    )


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
