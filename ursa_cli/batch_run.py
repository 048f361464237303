"""A batch on the command line: its items are settled, what is left is made and reported."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from ursa_cli.options.batches import MAX_FAULTS_SHOWN, Batch, Work, handle
from ursa_cli.terminal import output
from ursa_cli.terminal.failures import explained, reason
from ursa_core import __version__, files
from ursa_core.batches import lists, manifest, names, run
from ursa_core.batches.ray_pool import ray_pool
from ursa_core.batches.run import BatchItem, BatchTask, Left
from ursa_core.errors import DataError, UrsaError, UsageError

note_stop = partial(output.note, "stopping after this item; once more stops at once")


def run_batch(task: BatchTask, batch: Batch, seed: int | None, dry_run: bool) -> None:
    """Make what is left of a batch, or with ``dry_run`` print what would be made.

    ``seed`` is that which those of items are derived from; None is that of the batch begun, or
    drawn. A failed item and a full disk are UrsaErrors at the end.
    """
    run_work(task, batch, lambda chosen: _settled(task, batch, chosen), seed, dry_run)


def _settled(task: BatchTask, batch: Batch, seed: int) -> Iterator[BatchItem]:
    """The shard's items of the list, their options settled; those with faults left out if wanted.

    Of a short list all lines are settled, and all faults handled, before any item is of use; of a
    long one those of other shards are checked for their names alone.
    """
    from ursa_core.media import FORMATS
    from ursa_core.seeding import stream_seed

    faults: list[lists.Fault] = []
    taken: dict[int, int] = {}  # by hashes, which take less memory than names
    extension = Path(names.made_name(batch.template, 0, "a", 0)).suffix
    start = str(batch.folder / "_")[:-1]
    num_good = 0
    for line in batch.listed:
        try:
            if isinstance(line, lists.Fault):
                if not batch.is_long:
                    continue  # handled when the list was read
                raise UsageError(line.reason, line.hint)
            given = line.given
            name = given.pop("name", None)
            key = f"item {line.index}" if name is None else f"name {name}"
            given.setdefault("seed", stream_seed(seed, key))
            if name is None:
                title = task.title(given)
                name = names.made_name(batch.template, line.index, title, given["seed"])
            elif Path(name).suffix.lower() not in FORMATS:
                name += extension
            names.check_name(name)
            is_own = batch.shard.owns(line.index)
            file = start + name
            options_, plan = task.settle(given, file) if is_own or not batch.is_long else ({}, None)
            other = taken.setdefault(hash(names.same_file(name)), line.number)
            if other != line.number:
                hint = "use {index} in --name-template, or other names"
                raise UsageError(f"it would be written to {name}, as line {other}", hint)
        except UrsaError as error:
            faults.append(lists.Fault(line.number, *explained(error)))
            if batch.is_long:
                handle(batch, faults[-1:] if len(faults) <= MAX_FAULTS_SHOWN else [])
            continue
        num_good += 1
        if is_own:
            yield BatchItem(
                key, line.index, line.number, file, given["seed"], options_, given, plan
            )
    if batch.is_long and len(faults) > MAX_FAULTS_SHOWN:
        output.warn(f"left out: {len(faults) - MAX_FAULTS_SHOWN} more lines")
    elif not batch.is_long:
        handle(batch, faults)
    if not num_good:
        raise DataError(f"no line of {batch.listed.source} can be used", "the warnings say why")


def run_work(
    task: BatchTask,
    work: Work,
    settled: Callable[[int], Iterator[BatchItem]],
    seed: int | None,
    dry_run: bool,
) -> None:
    """Make what is left of some items, as ``run_batch`` does; ``settled`` gives them for a seed."""

    def ready(items: Iterable[Any]) -> Iterable[Any]:
        """A few items are checked before anything is made, more of them while they are."""
        return items if work.is_long else list(items)

    folder = work.folder
    found = manifest.read_header(folder)
    chosen = seed if seed is not None else found.seed if found else secrets.randbelow(2**63)
    header = manifest.Header(task.name, task.model, task.model_identity, chosen, __version__)
    if found is not None:
        manifest.check_same(folder, found, header)
    items = ready(settled(header.seed))
    if dry_run:
        is_free = work.force or not work.outputs.exists()  # to look for each file takes long
        left = ready(run.remaining(items, manifest.Records(folder), is_free))
        _print_plan(task, header, left)
        return
    parents = [] if work.is_long else [item.path.parent for item in items]
    for each in sorted({folder, work.outputs, *parents}):
        files.make_folder(each)
    begun = manifest.begin(folder, header)
    if begun != header and found is None:  # another process was first, with another seed
        if seed is None:
            header = manifest.Header(**{**vars(header), "seed": begun.seed})
            items = ready(settled(header.seed))
        manifest.check_same(folder, begun, header)
    if seed is None:
        output.note(f"seed {header.seed}")
    with manifest.Writer(folder, work.shard) as writer:
        left = ready(run.remaining(items, manifest.Records(folder), work.force))
        for each in {folder, work.outputs, *parents}:
            files.sweep(each)
        _make(task, work, left, writer)


def _print_plan(task: BatchTask, header: manifest.Header, left: Left) -> None:
    num = {"kept": 0, "made": 0}

    def todo() -> Iterator[BatchItem]:
        for item, state in left:
            num["made" if state == "todo" else "kept"] += 1
            if state == "todo":
                yield item

    def payload() -> dict[str, Any]:
        items = [
            {"path": each.file, "index": each.index, "seed": each.seed,
             "options": each.options}
            for each in todo()
        ]  # fmt: skip
        of_batch = {"task": task.name, "model": task.model, "seed": header.seed}
        return {**of_batch, "kept": num["kept"], "items": items}

    def lines() -> Iterator[str]:
        yield from (item.file for item in todo())
        yield f"{num['kept']} are done, {num['made']} are to be made"

    output.data(payload, lines=lines(), paths=(item.file for item in todo()))


def _make(task: BatchTask, work: Work, left: Left, writer: manifest.Writer) -> None:
    shard, ray = work.shard, work.ray
    num = len(range(shard.number - 1, work.num, shard.count))
    # Steps of items that aren't planned yet, or are made elsewhere, can't be counted.
    by_items = work.is_long or ray is not None
    steps = num if by_items else sum(task.num_steps(i) for i, s in left if s == "todo")
    kept = made = failed = 0
    with (
        nullcontext()
        if ray is None
        else ray_pool(ray, task, writer.append, reason, output.warn) as pool,
        run.stops(note_stop) as is_stopped,
        output.progress(steps, task.name) as advance,
    ):

        def on_step(steps: int = 1, **earlier: bool) -> None:
            text = "" if pool is None else f", {pool.text}"
            advance(steps, f"{kept + made}/{num} items{text}", **earlier)

        def todo() -> Iterator[BatchItem]:
            nonlocal kept, num
            seen = 0
            for item, state in left:
                if is_stopped():
                    return
                seen += 1
                if state == "todo":
                    yield item
                    continue
                if state == "unrecorded":
                    task.tidy(item)
                    writer.append(run.record(item, "done"))
                kept += 1
                if by_items:
                    on_step(earlier=True)
            num = seen  # without lines at fault

        try:
            packs = run.packs_of(task, todo(), work.batch_size)
            steps_taken = (lambda _: None) if by_items else on_step
            for outcome in (
                run.run_packs(task, packs, writer.append, steps_taken, reason, is_stopped)
                if pool is None
                else pool.run(packs, is_stopped)
            ):
                item, path, error = outcome.item, outcome.item.file, outcome.error
                made, failed = made + (not error), failed + bool(error)
                if by_items:
                    on_step()
                if error:
                    output.warn(f"failed: {path}: {error}")
                payload = {
                    "path": path, "index": item.index, "status": "failed" if error else "done",
                    "seed": item.seed, "seconds": outcome.seconds, "error": error,
                }  # fmt: skip
                output.data({**payload, **outcome.metrics}, paths=[] if error else [path])
        finally:
            left_over = num - made - kept - failed
            counts = {"made": made, "kept": kept, "failed": failed, "left": left_over}
            shown = ", ".join(f"{count} {what}" for what, count in counts.items())
            output.note(f"{work.outputs}: {shown}")
            if pool is not None:
                output.note(pool.text)
            output.data({"summary": counts})
    if is_stopped():
        raise KeyboardInterrupt
    if failed:
        hint = f"the warnings and {writer.path} say why; the same command tries them again"
        raise DataError(f"{failed} of {num} items failed", hint)
