"""The loop over a batch: packs of items, each recorded as it ends, whatever one of them does."""

import errno
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ursa_core.batches.manifest import Record, Status, Writer
from ursa_core.batches.resume import Item

OnStep = Callable[[int], None]
"""Told how many items have taken a step."""


class Task(Protocol):
    """What a command brings to a batch.

    Attributes:
        name: the command's.
        model: name of the model.
        model_identity: digits that change with its files.
    """

    name: str
    model: str
    model_identity: str

    def title(self, given: Mapping[str, Any]) -> str:
        """What an item is called after, from what its line gives: the text of ``{slug}``."""

    def settle(self, given: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """All options of an item, JSON values, from what its line gives and its seed.

        Raises:
            UrsaError: it can't be made.
        """

    def num_steps(self, item: Item) -> int:
        """Steps that making an item takes."""

    def pack_key(self, item: Item) -> Hashable:
        """Items of equal keys may be made together."""

    def make(self, items: Sequence[Item], on_step: OnStep) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Make items of one key, each yielded with its figures when its output is there whole."""

    def tidy(self, item: Item) -> None:
        """Remove what is of no use any more beside an output that a killed run finished."""


@dataclass(frozen=True)
class Outcome:
    """How an item ended.

    Attributes:
        item: that ended.
        seconds: that it took.
        error: why it failed; None if it is done.
        figures: that its task tells of it, JSON values.
    """

    item: Item
    seconds: float
    error: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)


def run_items(
    task: Task,
    items: Sequence[Item],
    writer: Writer,
    batch_size: int,
    should_stop: Callable[[], bool],
    on_step: OnStep,
    explain: Callable[[Exception], str],
) -> Iterator[Outcome]:
    """Make items pack by pack, recording each as it ends.

    An item that fails is recorded so, and the rest go on; the items of a pack that fails are made
    one by one. A full disk ends the run, and so does a folder that is gone or can't be written.

    Args:
        task: makes them.
        items: to be made.
        writer: of the record.
        batch_size: items made together at most.
        should_stop: asked before each pack.
        on_step: told of each step.
        explain: what to record of an error.

    Raises:
        DataError: the disk is full, or the record or the outputs' folder can't be written.
    """
    for pack in packs(task, items, batch_size):
        if should_stop():
            return
        yield from _made(task, pack, writer, on_step, explain)


def packs(task: Task, items: Sequence[Item], batch_size: int) -> Iterator[list[Item]]:
    """Items in packs of one key, full ones as soon as they are."""
    waiting: dict[Hashable, list[Item]] = {}
    for item in items:
        pack = waiting.setdefault(task.pack_key(item), [])
        pack.append(item)
        if len(pack) == batch_size:
            yield waiting.pop(task.pack_key(item))
    yield from waiting.values()


def _made(
    task: Task,
    pack: list[Item],
    writer: Writer,
    on_step: OnStep,
    explain: Callable[[Exception], str],
) -> Iterator[Outcome]:
    begun = time.monotonic()
    writer.append(*(record(item, "started") for item in pack), sync=False)
    left = list(pack)
    try:
        for item, figures in task.make(pack, on_step):
            seconds = round(time.monotonic() - begun, 3)
            writer.append(record(item, "done", seconds))
            left.remove(item)
            yield Outcome(item, seconds, figures=figures)
    except Exception as error:
        if is_full_disk(error) or not _can_be_written(pack[0].path.parent):
            raise
        if len(pack) > 1:
            for item in left:
                yield from _made(task, [item], writer, on_step, explain)
            return
        reason, seconds = explain(error), round(time.monotonic() - begun, 3)
        writer.append(record(pack[0], "failed", seconds, reason))
        yield Outcome(pack[0], seconds, reason)


def record(
    item: Item,
    status: Status,
    seconds: float | None = None,
    error: str | None = None,
) -> Record:
    """The record of an item, as of now."""
    replaces = status == "started" and item.path.exists()
    return Record(
        item.key, item.path.name, status, item.seed, item.options, time.time(), seconds, error,
        replaces,
    )  # fmt: skip


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _can_be_written(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
