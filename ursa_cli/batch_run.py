"""A batch on the command line: its items are settled, what is left is made and reported."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ursa_cli.options.batches import Batch, Work, handle
from ursa_cli.terminal import output
from ursa_cli.terminal.failures import explained
from ursa_core import files
from ursa_core.batches import lists, names
from ursa_core.errors import DataError, UrsaError, UsageError

if TYPE_CHECKING:
    from ursa_core.batches.manifest import Header, Writer
    from ursa_core.batches.run import BatchItem, BatchTask, Remaining


def run_batch(task: "BatchTask", batch: Batch, seed: int | None, dry_run: bool) -> None:
    """Make what is left of a batch, or with ``dry_run`` print what would be made.

    ``seed`` is that which those of items are derived from; None is that of the batch begun, or
    drawn. A failed item and a full disk are UrsaErrors at the end.
    """
    run_work(task, batch, lambda chosen: _settled(task, batch, chosen), seed, dry_run)


def _settled(task: "BatchTask", batch: Batch, seed: int) -> "list[BatchItem]":
    """All items of the list, their options settled; those with faults left out if wanted."""
    from ursa_core.batches.run import BatchItem
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
            faults.append(lists.Fault(line.number, *explained(error)))
            continue
        path = batch.folder / name
        items.append(BatchItem(key, line.index, line.number, path, given["seed"], options_))
    handle(batch, faults)
    if not items:
        raise DataError(f"no line of {batch.listed.source} can be used", "the warnings say why")
    return items


def run_work(
    task: "BatchTask",
    work: Work,
    settled: "Callable[[int], list[BatchItem]]",
    seed: int | None,
    dry_run: bool,
) -> None:
    """Make what is left of some items, as ``run_batch`` does; ``settled`` gives them for a seed."""
    import secrets

    from ursa_core import __version__
    from ursa_core.batches import manifest
    from ursa_core.batches.run import remaining

    folder = work.folder
    found = manifest.read_header(folder)
    chosen = seed if seed is not None else found.seed if found else secrets.randbelow(2**63)
    header = manifest.Header(task.name, task.model, task.model_identity, chosen, __version__)
    if found is not None:
        manifest.check_same(folder, found, header)
    items = settled(header.seed)
    if dry_run:
        left = remaining(_own(items, work), manifest.read_records(folder), work.force)
        _print_plan(task, header, left)
        return
    for each in sorted({folder, *(item.path.parent for item in items)}):
        files.make_folder(each)
    begun = manifest.begin(folder, header)
    if begun != header and found is None:  # another process was first, with another seed
        if seed is None:
            header = manifest.Header(**{**vars(header), "seed": begun.seed})
            items = settled(header.seed)
        manifest.check_same(folder, begun, header)
    if seed is None:
        output.note(f"seed {header.seed}")
    own = _own(items, work)
    with manifest.Writer(folder, work.shard) as writer:
        left = remaining(own, manifest.read_records(folder), work.force)
        for each in {folder, *(item.path.parent for item in left.todo)}:
            files.sweep(each)
        _make(task, work, left, writer)


def _own(items: "list[BatchItem]", work: Work) -> "list[BatchItem]":
    return [item for item in items if work.shard.owns(item.index)]


def _print_plan(task: "BatchTask", header: "Header", left: "Remaining") -> None:
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


def _make(task: "BatchTask", work: Work, left: "Remaining", writer: "Writer") -> None:
    """Make what is to be made, reporting each item as it ends."""
    from ursa_core.batches.run import record, run_items

    for item in left.unrecorded:
        task.tidy(item)
        writer.append(record(item, "done"))
    kept, todo = len(left.kept) + len(left.unrecorded), left.todo
    steps_left = sum(task.num_steps(item) for item in todo)
    made = failed = 0
    with _stops() as is_stopped, output.progress(steps_left, task.name) as advance:

        def on_step(num: int) -> None:
            advance(num, f"{kept + made}/{kept + len(todo)} items")

        def reason(error: Exception) -> str:
            return explained(error)[0]

        try:
            for outcome in run_items(
                task, todo, writer, work.batch_size, is_stopped, on_step, reason
            ):
                item = outcome.item
                path = str(item.path)
                made, failed = made + (not outcome.error), failed + bool(outcome.error)
                if outcome.error:
                    output.warn(f"failed: {path}: {outcome.error}")
                payload = {
                    "path": path, "index": item.index,
                    "status": "failed" if outcome.error else "done", "seed": item.seed,
                    "seconds": outcome.seconds, "error": outcome.error, **outcome.metrics,
                }  # fmt: skip
                output.data(payload, paths=[] if outcome.error else [path])
        finally:
            waiting = len(todo) - made - failed
            counts = {"made": made, "kept": kept, "failed": failed, "left": waiting}
            output.note(
                f"{work.outputs}: " + ", ".join(f"{n} {what}" for what, n in counts.items())
            )
            output.data({"summary": counts})
    if is_stopped():
        raise KeyboardInterrupt
    if failed:
        raise DataError(
            f"{failed} of {kept + len(todo)} items failed",
            f"the warnings and {writer.path} say why; the same command tries them again",
        )


@contextmanager
def _stops() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came; at the second time it interrupts."""
    asked = False

    def press(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        with suppress(RuntimeError):  # the signal came while something was printed
            output.note("stopping after this item; once more stops at once")

    before = {each: signal.signal(each, press) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
