"""A batch, whatever it makes: its options, its list, and the items that follow from it.

A command brings a `Task`: how an item's options follow from its line, and how items are made.
Lists, names, seeds, the manifest and resuming are the same for all.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ursa_cli import options, output
from ursa_cli.batch_run import Work, run_work
from ursa_core.batches import lists, names
from ursa_core.batches.shards import Shard, launched_shard, parse_shard
from ursa_core.errors import DataError, UrsaError, UsageError

if TYPE_CHECKING:
    from ursa_core.batches.resume import Item
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
