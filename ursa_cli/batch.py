"""A batch, whatever it makes: its options, what is left to do, the loop, and what is told of it.

A command brings a `Task`: how an item's options follow from its line, and how items are made.
Lists, names, seeds, the manifest and resuming are the same for all.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ursa_cli import options, output
from ursa_cli.failures import explained
from ursa_core.batches import lists, names
from ursa_core.batches.shards import Shard, launched_shard, parse_shard
from ursa_core.errors import DataError, UrsaError, UsageError

if TYPE_CHECKING:
    from ursa_core.batches.manifest import Header, Writer
    from ursa_core.batches.resume import Item, Remaining
    from ursa_core.batches.running import Task

_PANEL = "Batches"
_NUM_FAULTS_SHOWN = 10

FromFile = Annotated[
    str | None,
    typer.Option(
        "--from-file",
        metavar="LIST",
        help="Make each line of LIST: a .txt of prompts, a .jsonl or .csv whose lines may give "
        "options and a name, or - for stdin. OUT is a folder then; running again goes on.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
NameTemplate = Annotated[
    str | None,
    typer.Option(
        "--name-template",
        metavar="T",
        help="Names in OUT, of {index}, {slug} (from the prompt) and {seed}.",
        show_default=names.DEFAULT_TEMPLATE,
        rich_help_panel=_PANEL,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        help="Items in one pass of the network, 1 to 1024; no result depends on it.",
        show_default="1",
        rich_help_panel=_PANEL,
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Make part I, 1 to N, of the list.",
        show_default="by torchrun",
        rich_help_panel=_PANEL,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="Leave out lines with faults; else none is made.", rich_help_panel=_PANEL
    ),
]


@dataclass(frozen=True)
class Batch:
    """A list of items, and what is wanted of it.

    Args:
        listed: its lines.
        folder: of the outputs.
        template: of their names.
        batch_size: items in one pass.
        shard: that this process makes.
        skip_bad: leave out lines with faults.
        force: make changed items again.
    """

    listed: lists.ItemList
    folder: Path
    template: str
    batch_size: int
    shard: Shard
    skip_bad: bool
    force: bool


def read_batch(
    source: str,
    out: str,
    columns: lists.Columns,
    template: str | None,
    batch_size: int | None,
    shard: str | None,
    skip_bad: bool,
    force: bool,
) -> Batch:
    """The batch that a command line asks for, its list read.

    Raises:
        UrsaError: options that can't be, or a list with faults that aren't to be left out.
    """
    from ursa_core.media import check_format

    template = names.DEFAULT_TEMPLATE if template is None else template
    names.check_template(template)
    check_format(names.made_name(template, 0, "a", 0))
    size = 1 if batch_size is None else batch_size
    options.require(1 <= size <= 1024, "--batch-size", size, "1 to 1024")
    launched = launched_shard(os.environ)
    if launched is not None and source == lists.STDIN:
        raise UsageError("several processes can't share standard input", "give a file")
    part = parse_shard(shard) if shard is not None else launched or Shard()
    folder = Path(out)
    if folder.is_file() or (folder.suffix and not folder.is_dir()):
        raise UsageError(f"{out} is no folder, and a batch needs one", "give a folder with -o")
    above = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        raise DataError(f"the folder {above} can't be written", "choose another one")
    listed = lists.read_list(source, {**columns, "name": str}, sys.stdin.buffer.read)
    batch = Batch(listed, folder, template, size, part, skip_bad, force)
    _handle(batch, listed.faults)
    return batch


def _handle(batch: Batch, faults: list[lists.Fault]) -> None:
    """Tell of faults, and go on only if they are to be left out."""
    if batch.skip_bad or len(faults) > 1:
        verb = "left out" if batch.skip_bad else "at fault"
        for fault in faults[:_NUM_FAULTS_SHOWN]:
            output.warn(f"{verb}: {batch.listed.source}, line {fault.number}: {fault.reason}")
        if len(faults) > _NUM_FAULTS_SHOWN:
            output.warn(f"{verb}: {len(faults) - _NUM_FAULTS_SHOWN} more lines")
    if faults and not batch.skip_bad:
        raise lists.refuse(batch.listed.source, faults)


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
            name = names.made_name(
                batch.template, line.index, given.get("prompt", ""), given["seed"]
            )
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
    _handle(batch, faults)
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
