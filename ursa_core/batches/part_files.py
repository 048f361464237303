"""Files of lines that the processes which share a job write, each one of its own."""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from ursa_core.errors import DataError, UsageError, unwritable
from ursa_core.files import make_folder, parse_object, writing
from ursa_core.parts import Part

_ENCODER = json.JSONEncoder(ensure_ascii=False)
_PATIENCE_SECONDS = 1.0
"""Wait for a lock: processes that only look whether it is taken hold it for an instant."""


class PartFile:
    """A part's ``STEM.jsonl`` or ``STEM-i-of-n.jsonl``, which one process at a time appends to.

    A line that a killed process left unfinished is taken away. UsageError where another process is
    at work on it, or one that shares the job out otherwise; DataError if it can't be written.
    """

    def __init__(self, folder: Path, stem: str, shard: Part) -> None:
        self._folder, self.path = folder, folder / f"{stem}{shard.suffix}.jsonl"
        with writing(self.path):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._lock = _lock_of(self.path)
        of_same = f"{stem}-*-of-{shard.count}.jsonl" if shard.count > 1 else self.path.name
        others = [part for part in part_files(folder, stem) if not part.match(of_same)]
        try:
            if not _taken(self._lock) or any(map(_is_taken, others)):
                raise UsageError(  # noqa: TRY301
                    f"another run is at work on {folder}",
                    "wait for it, or share the list out with the same n in every --shard i/n",
                )
            end = max((begin + len(line) for begin, line in whole_lines(self.path)), default=0)
            os.ftruncate(self._file, end)
        except BaseException:
            PartFile.__exit__(self)
            raise

    def append_rows(self, *rows: dict[str, Any], sync: bool = True) -> None:
        """Write lines, whole or not at all; with ``sync`` they outlast a power cut."""
        size = os.fstat(self._file).st_size
        if not self.path.exists():
            hint = "bring it back, or give the same command to start again"
            raise DataError(f"{self.path} was deleted while the run was at work", hint)
        lines = b"".join(line_of(row) for row in rows)
        try:
            if os.write(self._file, lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301
            if sync:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise unwritable(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)
        _give_back(self._lock)


_WAIT = "wait for it, or give another folder with -o"


@contextmanager
def sole(folder: Path, hint: str = _WAIT) -> Iterator[None]:
    """Context in which no other process is at work on a folder; what is empty then is removed.

    UsageError with ``hint`` if another one is; DataError if the folder can't be made.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    lock = _lock_of(make_folder(folder) / "run")
    try:
        if not _taken(lock):
            raise UsageError(f"another run is at work on {folder}", hint)
        yield
    finally:
        _give_back(lock)
        with suppress(OSError):
            for each in made:
                each.rmdir()


def part_files(folder: Path, stem: str) -> list[Path]:
    """The files of all parts that there are, in a folder that may hold millions of others."""
    own = re.compile(rf"{re.escape(stem)}(-[^/]*-of-[^/]*)?\.jsonl")
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return sorted(folder / each.name for each in entries if own.fullmatch(each.name))
    return []


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file's whole lines; DataError if it is damaged."""
    for number, (_, line) in enumerate(whole_lines(path), start=1):
        try:
            yield parse_object(line)
        except ValueError as error:
            raise damaged_line(path, number) from error


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file that may be missing, and where they begin; DataError."""
    begin = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield begin, line
                begin += len(line)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}", "make it readable") from error


def line_of(row: dict[str, Any]) -> bytes:
    """An object as a line."""
    return _ENCODER.encode(row).encode() + b"\n"


def damaged_line(path: Path, number: int) -> DataError:
    """The error to raise for a line that isn't what it should be."""
    hint = "mend or delete that line, or give another folder with -o"
    return DataError(f"line {number} of {path} is damaged", hint)


def _lock_of(path: Path) -> FileLock:
    """The lock of a file, next to it: Windows lets nobody read a file that is locked itself."""
    return FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE_SECONDS)


def _taken(lock: FileLock) -> bool:
    """Take a lock; False if another process has it."""
    with suppress(OSError, NotImplementedError):  # a file system without locks
        try:
            lock.acquire()
        except Timeout:
            return False
    return True


def _give_back(lock: FileLock) -> None:
    if lock.is_locked:
        file = Path(lock.lock_file)
        with suppress(OSError):  # whoever waits for it sees that it is another file now
            file.unlink()
        lock.release()
        if os.name == "nt":  # where a file that is open can't be deleted
            with suppress(OSError):
                file.unlink()


def _is_taken(path: Path) -> bool:
    lock = _lock_of(path)
    is_free = _taken(lock)
    _give_back(lock)
    return not is_free
