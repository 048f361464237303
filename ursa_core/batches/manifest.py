"""The record of a batch: JSON lines, appended as items begin and end.

``manifest.jsonl`` begins with what the batch is: its task, model and seed. A run appends its items
behind that, one of several shards to a ``manifest-i-of-n.jsonl`` of its own, so that no two
processes write to one file; a run reads them all. A line that a kill tore off counts for nothing.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ursa_core import files
from ursa_core.batches.part_files import PartFile, damaged_line, line_of, part_files, rows_of
from ursa_core.errors import UsageError
from ursa_core.parts import Shard

STEM = "manifest"
MANIFEST = f"{STEM}.jsonl"

Status = Literal["started", "done", "failed"]


@dataclass(frozen=True)
class Header:
    """What a batch is.

    Attributes:
        task: Name of the command.
        model: Name of the model.
        model_identity: Digits that change with the model's files.
        seed: Seed that those of items without one are derived from.
        ursa: Version that began it.
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
        item: Key of the item, the same in every run.
        name: Name of its output in the folder.
        status: State; the latest record of an item holds.
        seed: Seed of its random draws.
        options: All that it was made by.
        time: Time of the record, in seconds since 1970.
        seconds: Time that it took; items of one pass of the network begin together.
        error: Reason why it failed.
        replaces: The output was there before it was begun, so that it proves nothing.
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
    row = next(rows_of(folder / MANIFEST), None)
    if row is None:
        return None
    try:
        header = Header(**{field.name: row[field.name] for field in fields(Header)})
    except KeyError as error:
        raise damaged_line(folder / MANIFEST, 1) from error
    texts = (header.task, header.model, header.model_identity, header.ursa)
    if not all(isinstance(text, str) for text in texts) or type(header.seed) is not int:
        raise damaged_line(folder / MANIFEST, 1)
    return header


def begin(folder: Path, header: Header) -> Header:
    """What the batch of a folder is: the one begun there, else this one, which is written.

    Of several processes that begin at once, one writes it and all return the same.

    Raises:
        DataError: it can't be written, or is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        files.write(path, line_of(asdict(header)), first_wins=True)
    found = read_header(folder)
    if found is None:
        raise damaged_line(path, 1)
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
        raise UsageError(
            f"{folder} is a batch of the model {before}, not {now}",
            "name its model with --model, or give another folder with -o",
        )
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
    latest: dict[str, Record] = {}
    for path in part_files(folder, STEM):
        of_part = {}
        for number, row in enumerate(rows_of(path), start=1):
            if path.name == MANIFEST and number == 1:
                continue
            try:
                record = Record(**{k: v for k, v in row.items() if k in known})
            except TypeError as error:
                raise damaged_line(path, number) from error
            texts = (record.item, record.name, record.status)
            if not (
                all(isinstance(text, str) for text in texts)
                and isinstance(record.options, dict)
                and isinstance(record.time, int | float)
            ):
                raise damaged_line(path, number)
            of_part[record.item] = record  # by place: a clock may have been set back
        for item, record in of_part.items():
            other = latest.get(item)
            if other is None or other.time <= record.time:
                latest[item] = record
    return latest


class Writer(PartFile):
    """Appends records; only one process at a time has that of a shard.

    Args:
        folder: Folder of the batch, begun.
        shard: Part whose items are recorded.

    Raises:
        UsageError: Another process is at work on them.
        DataError: The file can't be written.
    """

    def __init__(self, folder: Path, shard: Shard) -> None:
        super().__init__(folder, STEM, shard)

    def append(self, *records: Record, sync: bool = True) -> None:
        """Write records, whole or not at all; with ``sync`` they outlast a power cut.

        Raises:
            DataError: they can't be written.
        """
        self.append_rows(*map(asdict, records), sync=sync)
