"""The record of a batch: JSON lines, appended as items begin and end.

``manifest.jsonl`` begins with what the batch is. A run appends its items behind that, one of
several shards to a ``manifest-i-of-n.jsonl`` of its own, so that no two processes write to one
file; a run reads them all. A line that a kill tore off counts for nothing.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ursa_core import files
from ursa_core.batches.part_files import PartFile, damaged_line, line_of, part_files, whole_lines
from ursa_core.errors import DataError, UsageError
from ursa_core.parts import Part

STEM = "manifest"
MANIFEST = f"{STEM}.jsonl"

Status = Literal["started", "done", "failed"]


@dataclass(frozen=True)
class Header:
    """What a batch is: command, model and digits of its files, seed of items, our version."""

    task: str
    model: str
    model_identity: str
    seed: int
    ursa: str


@dataclass(frozen=True)
class Record:
    """What became of an item by its key, which is the same in every run; the latest record holds.

    The time of the record is in seconds since 1970; ``seconds`` is how long the item took, where
    items of one pass of the network begin together. ``replaces`` says that the output was there
    before it was begun, so that it proves nothing.
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


_Entry = TypeVar("_Entry", Header, Record)


def read_header(folder: Path) -> Header | None:
    """What the batch of a folder is, None where there is none; DataError if it is damaged."""
    path = folder / MANIFEST
    first = next(whole_lines(path), None)
    return None if first is None else _read(Header, first[1], path, 1)


def begin(folder: Path, header: Header) -> Header:
    """What a folder's batch is: the one begun there, by whichever process, else this, written."""
    path = folder / MANIFEST
    if not path.exists():
        files.write(path, line_of(asdict(header)), first_wins=True)
    found = read_header(folder)
    if found is None:
        raise damaged_line(path, 1)
    return found


def check_same(folder: Path, found: Header, wanted: Header) -> None:
    """Refuse, with a UsageError, to go on with a batch of another task, model or seed."""
    hint = "give another folder with -o"
    if found.task != wanted.task:
        raise UsageError(f"{folder} is a batch of ursa {found.task}", hint)
    if found.model_identity != wanted.model_identity:
        before, now = (f"{made.model} ({made.model_identity})" for made in (found, wanted))
        fault = f"{folder} is a batch of the model {before}, not {now}"
        raise UsageError(fault, "name its model with --model, or give another folder with -o")
    if found.seed != wanted.seed:
        fault = f"{folder} is a batch of the seed {found.seed}, not {wanted.seed}"
        raise UsageError(fault, f"leave --seed out to go on, or {hint}")


class Records(Mapping[str, Record]):
    """The latest record of each item, of all shards; DataError where a manifest is damaged.

    They are read when asked for: kept is where lines begin, since there may be millions.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = part_files(folder, STEM)
        self._files = [path.open("rb") for path in self._paths]
        self._places: dict[str, int] = {}  # times the number of parts, plus that of its own
        for part, path in enumerate(self._paths):
            of_part: dict[str, int] = {}
            for number, (place, line) in enumerate(whole_lines(path), start=1):
                if path.name == MANIFEST and number == 1:
                    continue
                found = line.endswith(b"}\n") and _OUR_LINE.match(line)
                item = found[1].decode() if found else _read(Record, line, path, number).item
                of_part[item] = place  # by place: a clock may have been set back
            for item, place in of_part.items():
                now = place * len(self._paths) + part
                other = self._places.get(item)
                if other is None or self._at(other).time <= self._at(now).time:
                    self._places[item] = now

    def __getitem__(self, item: str) -> Record:
        return self._at(self._places[item])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def says_done(self, item: str, name: str, seed: int, options: dict[str, Any]) -> bool:
        """Whether an item's line begins as one that says so; quick, as the line isn't parsed."""
        where = self._places.get(item)
        if where is None:
            return False
        row = {"item": item, "name": name, "status": "done", "seed": seed, "options": options}
        return self._line(where).startswith(line_of(row)[:-2] + b', "time": ')

    def _line(self, where: int) -> bytes:
        place, part = divmod(where, len(self._paths))
        self._files[part].seek(place)
        return self._files[part].readline()

    def _at(self, where: int) -> Record:
        place, part = divmod(where, len(self._paths))
        path = self._paths[part]
        try:
            return _read(Record, self._line(where), path, 0)
        except DataError as error:
            number = sum(begin <= place for begin, _ in whole_lines(path))
            raise damaged_line(path, number) from error

    def __del__(self) -> None:
        for file in self._files:
            file.close()


_OUR_LINE = re.compile(
    rb'\{"item": "([ !#-[\]-~]*)", "name": "[^"\\]*", "status": "[a-z]+", "seed": \d'
)


def _read(kind: type[_Entry], line: bytes, path: Path, number: int) -> _Entry:
    """A line's record; DataError if it is damaged."""
    from ursa_core.configs import parsed

    try:
        return parsed(kind, files.parse_object(line))
    except ValueError as error:
        raise damaged_line(path, number) from error


class Writer(PartFile):
    """Appends records; only one process at a time has that of a shard, as `PartFile` says."""

    def __init__(self, folder: Path, shard: Part) -> None:
        super().__init__(folder, STEM, shard)

    def append(self, *records: Record, sync: bool = True) -> None:
        """Write records, whole or not at all; with ``sync`` they outlast a power cut."""
        self.append_rows(*map(asdict, records), sync=sync)
