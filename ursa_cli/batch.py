"""A batch of a list: the items that follow from its lines.

A command brings a `Task`: how an item's options follow from its line, and how items are made.
Names and seeds are the same for all; `batch_run` makes what is left.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ursa_cli.batch_run import Work, run_work
from ursa_cli.options.batches import Batch, handle
from ursa_core.batches import lists, names
from ursa_core.errors import DataError, UrsaError, UsageError

if TYPE_CHECKING:
    from ursa_core.batches.resume import Item
    from ursa_core.batches.running import Task


def run_batch(task: "Task", batch: Batch, seed: int | None, dry_run: bool) -> None:
    """Make what is left of a batch.

    Args:
        task: what is made.
        batch: of which items.
        seed: that those of the items are derived from; None is that of the batch begun, or drawn.
        dry_run: tell what would be made, and stop.

    Raises:
        UrsaError: it can't begin, an item failed, or the disk is full.
        KeyboardInterrupt: Ctrl-C ended it.
    """
    work = Work(batch.folder, batch.folder, batch.shard, batch.batch_size, batch.force)
    run_work(task, work, lambda chosen: _settled(task, batch, chosen), seed, dry_run)


def _settled(task: "Task", batch: Batch, seed: int) -> "list[Item]":
    """All items of the list, their options settled; those with faults left out if wanted."""
    from ursa_core.batches.resume import Item
    from ursa_core.media import FORMATS
    from ursa_core.seeding import stream_seed

    items, faults = [], []
    taken: dict[str, int] = {}
    extension = Path(names.made_name(batch.template, 0, "a", 0)).suffix
    for line in batch.listed.lines:
        given = dict(line.given)
        name = given.pop("name", None)
        key = f"item {line.index}" if name is None else f"name {name}"
        given.setdefault("seed", stream_seed(seed, key))
        if name is None:
            name = names.made_name(batch.template, line.index, task.title(given), given["seed"])
        elif Path(name).suffix.lower() not in FORMATS:
            name += extension
        try:
            names.check_name(name)
            options_ = task.settle(given, batch.folder / name)
            other = taken.setdefault(names.same_file(name), line.number)
            if other != line.number:
                raise UsageError(
                    f"it would be written to {name}, as line {other}",
                    "use {index} in --name-template, or other names",
                )
        except UrsaError as error:
            faults.append(lists.Fault(line.number, error.message, error.hint))
            continue
        path = batch.folder / name
        items.append(Item(key, line.index, line.number, path, given["seed"], options_))
    handle(batch, faults)
    if not items:
        raise DataError(f"no line of {batch.listed.source} can be used", "the warnings say why")
    return items
