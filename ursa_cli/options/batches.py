"""Options of batches: what is to be made of a list, the same for every command that takes one."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, get_args, get_origin, get_type_hints

import typer

from ursa_cli.options import shared as options
from ursa_cli.terminal import output
from ursa_core.batches import lists, names
from ursa_core.bundle.options import option_types
from ursa_core.errors import DataError, UsageError
from ursa_core.parts import Shard, launched_shard, parse_shard

_PANEL = "Batches"
_NUM_FAULTS_SHOWN = 10

FromFile = Annotated[
    str | None,
    typer.Option(
        "--from-file",
        metavar="LIST",
        help="Make each line of LIST: a .jsonl or .csv whose lines may give options and a name, "
        "a .txt of prompts (of clips to extend), or - for stdin. OUT is a folder then; running "
        "again goes on.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
NameTemplate = Annotated[
    str | None,
    typer.Option(
        "--name-template",
        metavar="T",
        help="Names in OUT, of {index}, {slug} (from the prompt, or the files given) and {seed}.",
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

    Attributes:
        listed: Lines of the list.
        folder: Folder of the outputs.
        template: Template of their names.
        batch_size: Largest number of items in one pass.
        shard: Part that this process makes.
        skip_bad: Leave out lines with faults.
        force: Make changed items again.
    """

    listed: lists.ItemList
    folder: Path
    template: str
    batch_size: int
    shard: Shard
    skip_bad: bool
    force: bool


def refuse_without_list(
    template: str | None, batch_size: int | None, shard: str | None, skip_bad: bool
) -> None:
    """Refuse what is for batches alone, where there is none.

    Raises:
        UsageError: One of them is given.
    """
    given = {
        "--name-template": template is not None,
        "--batch-size": batch_size is not None,
        "--shard": shard is not None,
        "--skip-bad": skip_bad,
    }
    for option, is_given in given.items():
        if is_given:
            raise UsageError(f"{option} is for batches", "name a list with --from-file")


def columns(*records: type) -> dict[str, type]:
    """What a line may give, and the types: options of a clip and the fields of records."""
    kinds = option_types()
    for record in records:
        for name, hint in get_type_hints(record, localns={"Source": str}).items():
            kind = (get_args(hint) or (hint,))[0] if isinstance(hint, UnionType) else hint
            kinds[name] = get_origin(kind) or kind
    return kinds


def read_batch(
    source: str,
    out: str,
    columns: lists.Columns,
    template: str | None,
    batch_size: int | None,
    shard: str | None,
    skip_bad: bool,
    force: bool,
    text: str | None = "prompt",
) -> Batch:
    """The batch that a command line asks for, its list read.

    Args:
        source: Value of ``--from-file``.
        out: Value of ``--output``.
        columns: Columns that lines may give, besides a name.
        template: Value of ``--name-template``.
        batch_size: Value of ``--batch-size``.
        shard: Value of ``--shard``.
        skip_bad: Value of ``--skip-bad``.
        force: Value of ``--force``.
        text: Column that a line of a .txt gives; None if one text isn't enough.

    Raises:
        UrsaError: Options can't be used, or lines have faults that aren't to be left out.
    """
    from ursa_core.media import check_format

    options.require_text("list", source)
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
    listed = lists.read_list(source, {**columns, "name": str}, sys.stdin.buffer.read, text)
    batch = Batch(listed, folder, template, size, part, skip_bad, force)
    handle(batch, listed.faults)
    return batch


def handle(batch: Batch, faults: list[lists.Fault]) -> None:
    """Print faults, and go on only if they are to be left out."""
    if batch.skip_bad or len(faults) > 1:
        verb = "left out" if batch.skip_bad else "at fault"
        for fault in faults[:_NUM_FAULTS_SHOWN]:
            output.warn(f"{verb}: {batch.listed.source}, line {fault.number}: {fault.reason}")
        if len(faults) > _NUM_FAULTS_SHOWN:
            output.warn(f"{verb}: {len(faults) - _NUM_FAULTS_SHOWN} more lines")
    if faults and not batch.skip_bad:
        raise lists.refuse(batch.listed.source, faults)
