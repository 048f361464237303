"""Options of batches: what is to be made of a list, the same for every command that takes one."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin, get_type_hints

from ursa_cli.options import shared as options
from ursa_cli.terminal import output
from ursa_core.batches import lists, names
from ursa_core.batches.ray_pool import RayOptions
from ursa_core.bundle.options import option_types
from ursa_core.errors import DataError, UsageError
from ursa_core.parts import Part, launched_part, parse_part

MAX_FAULTS_SHOWN = 10
RAY = {
    "ray": ("ADDRESS", ("Make the items on a Ray cluster; without ADDRESS on that of RAY_ADDRESS,"
            " else on a new one here.")),
    "ray_cpus": ("N", "Cores of a Ray worker, 0.01 to 1024.", "1"),
    "ray_gpus": ("N", "GPUs of a Ray worker, 0 to 64.", "1 if there are any"),
}  # fmt: skip
BATCHES: options.Panels = {"Batches": {
    "from_file": ("LIST", ("Make each line of LIST: a .jsonl or .csv whose lines may give options "
                  "and a name, a .txt of prompts (of clips to extend), or - for stdin. OUT is a "
                  "folder then; running again goes on.")),
    "name_template": ("T", ("Names in OUT, of {index}, {slug} (from the prompt, or the files given)"
                      " and {seed}."), names.DEFAULT_TEMPLATE),
    "batch_size": ("N", "Items in one pass of the network, 1 to 1024; no result depends on it.",
                   "1"),
    "shard": ("I/N", "Make part I, 1 to N, of the list.", "by torchrun"),
    **RAY,
    "skip_bad": (None, "Leave out lines with faults; else none is made."),
}}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """How items are made, and where it is recorded: in another folder than outputs, if need be."""

    folder: Path
    outputs: Path
    shard: Part
    batch_size: int
    force: bool
    num: int  # items, those of other shards among them
    ray: RayOptions | None

    @property
    def is_long(self) -> bool:
        """Whether the items are checked while they are made."""
        return self.num > lists.MAX_CHECKED_FIRST


@dataclass(frozen=True)
class Batch(Work):
    """A list of items, and the names of their outputs."""

    listed: lists.ItemList
    template: str
    skip_bad: bool


def columns(record: type) -> dict[str, type]:
    """What a line may give, and the types: options of a clip and the fields of a record."""
    kinds = dict(option_types())
    for name, hint in get_type_hints(record, localns={"Source": str}).items():
        kind = (get_args(hint) or (hint,))[0] if isinstance(hint, UnionType) else hint
        kinds[name] = get_origin(kind) or kind
    return kinds


@dataclass(frozen=True, kw_only=True)
class RayGiven:
    """Options of Ray as the command line has them."""

    ray: str | None = None
    ray_cpus: float | None = None
    ray_gpus: float | None = None

    def options(self) -> RayOptions | None:
        """How Ray is used; None if it isn't. UsageError for what can't be."""
        cpus, gpus = self.ray_cpus, self.ray_gpus
        options.require(cpus is None or 0.01 <= cpus <= 1024, "--ray-cpus", cpus, "0.01 to 1024")
        options.require(gpus is None or 0 <= gpus <= 64, "--ray-gpus", gpus, "0 to 64")
        if self.ray is not None:
            return RayOptions(self.ray, 1.0 if cpus is None else cpus, gpus)
        if cpus is not None or gpus is not None:
            raise UsageError("--ray-cpus and --ray-gpus are for --ray", "add --ray")
        return None


@dataclass(frozen=True)
class BatchOptions(RayGiven):
    """Options of a batch as the command line has them; without ``from_file`` there is none."""

    from_file: str | None = None
    name_template: str | None = None
    batch_size: int | None = None
    shard: str | None = None
    skip_bad: bool = False

    def refuse(self) -> None:
        """Refuse what is for batches alone, where there is none; UsageError."""
        for name, value in vars(self).items():
            if name != "from_file" and value not in (None, False):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} is for batches", "name a list with --from-file")

    def read(
        self, out: str, columns: lists.Columns, force: bool, text: str | None = "prompt"
    ) -> Batch:
        """The batch, its list read.

        ``columns`` are those that lines may give, besides a name, and ``text`` is the one that a
        line of a .txt gives; None if one text isn't enough. Faults of lines are an UrsaError,
        unless they are to be left out.
        """
        from ursa_core.media import check_format

        source = self.from_file or ""
        options.require_text("list", source)
        template = names.DEFAULT_TEMPLATE if self.name_template is None else self.name_template
        names.check_template(template)
        check_format(names.made_name(template, 0, "a", 0))
        size = 1 if self.batch_size is None else self.batch_size
        options.require(1 <= size <= 1024, "--batch-size", size, "1 to 1024")
        if launched_part(os.environ) is not None and source == lists.STDIN:
            raise UsageError("several processes can't share standard input", "give a file")
        part, folder = own_shard(self.shard), Path(out)
        if folder.is_file() or (folder.suffix and not folder.is_dir()):
            raise UsageError(f"{out} is no folder, and a batch needs one", "give a folder with -o")
        above = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            raise DataError(f"the folder {above} can't be written", "choose another one")
        listed = lists.read_list(source, {**columns, "name": str}, sys.stdin.buffer.read, text)
        batch = Batch(
            folder, folder, part, size, force, listed.num, self.options(), listed, template,
            self.skip_bad,
        )  # fmt: skip
        if not batch.is_long:
            handle(batch, listed.faults)
        return batch


def own_shard(text: str | None) -> Part:
    """The part of this process: as ``--shard`` gives it, else a launcher, else all."""
    return parse_part(text) if text is not None else launched_part(os.environ) or Part()


def handle(batch: Batch, faults: list[lists.Fault]) -> None:
    """Print faults, and go on only if they are to be left out."""
    if batch.skip_bad or len(faults) > 1:
        verb = "left out" if batch.skip_bad else "at fault"
        for fault in faults[:MAX_FAULTS_SHOWN]:
            output.warn(f"{verb}: {batch.listed.source}, line {fault.number}: {fault.reason}")
        if len(faults) > MAX_FAULTS_SHOWN:
            output.warn(f"{verb}: {len(faults) - MAX_FAULTS_SHOWN} more lines")
    if faults and not batch.skip_bad:
        raise lists.refuse(batch.listed.source, faults)
