"""What of a batch is left to do, by its records and the files that are there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ursa_core.batches.manifest import Record
from ursa_core.errors import UsageError

_NOT_COMPARED = {"device", "ursa", "file"}
"""Options that tell where an item was made, or where its files were, and don't decide what."""


@dataclass(frozen=True)
class Item:
    """One output to be made.

    Attributes:
        key: the same in every run: its name if its line gives one, else its index.
        index: in the list, from 0.
        line: in the file, from 1; 0 where there is no list.
        path: of the output.
        seed: of its random draws.
        options: all that decides the result, JSON values.
    """

    key: str
    index: int
    line: int
    path: Path
    seed: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Remaining:
    """Items by what is left to do with them.

    Attributes:
        todo: to be made, again or for the first time.
        kept: done and recorded.
        unrecorded: done by a run that was killed before it could record them.
    """

    todo: list[Item] = field(default_factory=list)
    kept: list[Item] = field(default_factory=list)
    unrecorded: list[Item] = field(default_factory=list)


def remaining(items: Sequence[Item], records: Mapping[str, Record], force: bool) -> Remaining:
    """Sort items by what is left to do.

    Args:
        items: of this process.
        records: the latest of each item.
        force: make items with changed options again, and replace files of unknown origin.

    Raises:
        UsageError: without ``force``, an item was made with other options, or its output exists
            and no record tells of it.
    """
    found = Remaining()
    for item in items:
        record = records.get(item.key)
        there = record is not None and _holds_something(item.path.parent / record.name)
        begun = record is not None and record.status == "started" and not record.replaces
        if record is not None and there and (record.status == "done" or begun):
            changes = _changes(item, record)
            if not changes:
                (found.unrecorded if begun else found.kept).append(item)
                continue
            if not force:
                which = f"line {item.line}" if item.line else str(item.path)
                raise UsageError(
                    f"{which} was made with other options: {', '.join(changes)}",
                    "give those of before, another folder, or --force to make it again",
                )
        elif record is None and item.path.exists() and not force:
            raise UsageError(
                f"{item.path} exists already, and the manifest doesn't tell of it",
                "give another folder, or --force to replace it",
            )
        found.todo.append(item)
    return found


def _holds_something(path: Path) -> bool:
    """Whether an output is there, and no file of it is empty."""
    if not path.is_dir():
        return path.exists() and path.stat().st_size > 0
    sizes = [each.stat().st_size for each in path.iterdir()]
    return bool(sizes) and all(sizes)


def _changes(item: Item, record: Record) -> list[str]:
    now = {**item.options, "name": item.path.name}
    return changes(now, {**record.options, "name": record.name})


def changes(options: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """What of an output's options differs from what is recorded, as ``steps 2, not 4``."""
    now, before = _leaves(json.loads(json.dumps(options))), _leaves(recorded)
    keys = [key for key in {**before, **now} if key.rpartition(".")[2] not in _NOT_COMPARED]
    return [
        f"{key} {before.get(key)!r}, not {now.get(key)!r}"
        for key in keys
        if before.get(key) != now.get(key)
    ]


def _leaves(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options within options, and lists of them, by names as ``given.files.0.sha256``."""
    leaves: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            leaves |= _leaves({str(k): each for k, each in enumerate(value)}, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves
