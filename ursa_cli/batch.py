"""A batch, whatever it makes: what is left to do, the loop, and what is told of it.

A command brings a `Task`: how an item's options follow from its line, and how items are made.
Names, seeds, the manifest and resuming are the same for all.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ursa_cli import output
from ursa_cli.batch_options import Batch, handle
from ursa_cli.failures import explained
from ursa_core.batches import lists, names
from ursa_core.errors import DataError, UrsaError, UsageError

if TYPE_CHECKING:
    from ursa_core.batches.manifest import Header, Writer
    from ursa_core.batches.resume import Item, Remaining
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
    import secrets

    from ursa_core import __version__
    from ursa_core.batches import manifest, resume

    folder = batch.folder
    found = manifest.read_header(folder)
    chosen = seed if seed is not None else found.seed if found else secrets.randbelow(2**63)
    header = manifest.Header(task.name, task.model, task.model_identity, chosen, __version__)
    if found is not None:
        manifest.check_same(folder, found, header)
    items = _settled(task, batch, header.seed)
    if dry_run:
        left = resume.remaining(_own(items, batch), manifest.read_records(folder), batch.force)
        _tell_plan(task, header, left)
        return
    folder.mkdir(parents=True, exist_ok=True)
    begun = manifest.begin(folder, header)
    if begun != header and found is None:  # another process was first, with another seed
        if seed is None:
            header = manifest.Header(**{**vars(header), "seed": begun.seed})
            items = _settled(task, batch, header.seed)
        manifest.check_same(folder, begun, header)
    if seed is None:
        output.note(f"seed {header.seed}")
    own = _own(items, batch)
    with manifest.Writer(folder, batch.shard) as writer:
        left = resume.remaining(own, manifest.read_records(folder), batch.force)
        resume.remove_leftovers(folder, {item.path.name for item in left.todo})
        _make(task, batch, left, writer)


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


def _own(items: "list[Item]", batch: Batch) -> "list[Item]":
    return [item for item in items if batch.shard.owns(item.index)]


def _tell_plan(task: "Task", header: "Header", left: "Remaining") -> None:
    kept, paths = len(left.kept) + len(left.unrecorded), [str(item.path) for item in left.todo]
    payload = {
        "task": task.name,
        "model": task.model,
        "seed": header.seed,
        "kept": kept,
        "items": [
            {"path": path, "index": item.index, "seed": item.seed, "options": item.options}
            for path, item in zip(paths, left.todo, strict=True)
        ],
    }
    lines = [f"{kept} are done, {len(paths)} are to be made:", *paths]
    output.data(payload, lines=lines, paths=paths)


def _make(task: "Task", batch: Batch, left: "Remaining", writer: "Writer") -> None:
    """Make what is to be made, telling of each item as it ends."""
    from ursa_core.batches.running import record, run_items

    for item in left.unrecorded:
        task.tidy(item)
        writer.append(record(item, "done"))
    kept, todo = len(left.kept) + len(left.unrecorded), left.todo
    steps_left = sum(task.num_steps(item) for item in todo)
    made = failed = 0
    with _ctrl_c() as stop, output.progress(steps_left, task.name) as advance:

        def on_step(num: int) -> None:
            advance(num, f"{kept + made}/{kept + len(todo)} items")

        try:
            for outcome in run_items(
                task, todo, writer, batch.batch_size, stop.asked, on_step, _reason
            ):
                item = outcome.item
                path = str(item.path)
                if outcome.error is None:
                    made += 1
                else:
                    failed += 1
                    output.warn(f"failed: {path}: {outcome.error}")
                payload = {
                    "path": path,
                    "index": item.index,
                    "status": "failed" if outcome.error else "done",
                    "seed": item.seed,
                    "seconds": outcome.seconds,
                    "error": outcome.error,
                    **outcome.figures,
                }
                output.data(payload, paths=[] if outcome.error else [path])
        finally:
            waiting = len(todo) - made - failed
            counts = {"made": made, "kept": kept, "failed": failed, "left": waiting}
            output.note(
                f"{batch.folder}: " + ", ".join(f"{n} {what}" for what, n in counts.items())
            )
            output.data({"summary": counts})
    if stop.asked():
        raise KeyboardInterrupt
    if failed:
        raise DataError(
            f"{failed} of {kept + len(todo)} items failed",
            f"the warnings and {writer.path} say why; the same command tries them again",
        )


def local_device(device: str) -> str:
    """The ``--device`` of this process; those that torchrun started share a machine's GPUs out."""
    import torch

    rank = os.environ.get("LOCAL_RANK", "")
    if device not in ("auto", "cuda") or not rank.isdecimal() or not torch.cuda.is_available():
        return device
    return f"cuda:{int(rank) % torch.cuda.device_count()}"


def _reason(error: Exception) -> str:
    return explained(error)[0]


class _Stop:
    """Whether Ctrl-C was pressed; at the second time it interrupts."""

    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        """True after the first time."""
        return self._asked

    def press(self, *_: object) -> None:
        """Take the signal."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        with suppress(RuntimeError):  # the signal came while something was printed
            output.note("stopping after this item; Ctrl-C again stops at once")


@contextmanager
def _ctrl_c() -> Iterator[_Stop]:
    stop = _Stop()
    before = signal.signal(signal.SIGINT, stop.press)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
