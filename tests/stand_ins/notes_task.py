"""A task of notes: text files, made as videos are but in no time."""

import os
import signal
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ursa_cli.batch_run import run_batch
from ursa_cli.options.batches import BatchOptions
from ursa_core.batches.run import BatchItem as Item
from ursa_core.errors import DataError, UsageError
from ursa_core.files import whole

COLUMNS = {"prompt": str, "seed": int, "size": int, "name": str}


class Notes:
    """Writes a note of ``size`` copies of prompt and seed; PNG is only what it is called."""

    name = "notes"
    model = "pen"
    model_folder = Path()

    def __init__(self, identity: str = "blue", size: int = 1, seconds: float = 0.0) -> None:
        self.model_identity = identity
        self.size, self.seconds = size, seconds
        self.fails = "fail"
        self.deaths: Path | None = None  # a folder, in which each death of a process leaves a file
        self.packs: list[list[int]] = []
        self.tidied: list[int] = []

    def title(self, given: Mapping[str, Any]) -> str:
        return str(given.get("prompt", ""))

    def settle(self, given: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], None]:
        options = {"size": self.size, **given}
        if not 0 < options["size"] < 100:
            raise UsageError(f"size can't be {options['size']}", "give 1 to 99")
        return options, None

    def num_steps(self, item: Item) -> int:
        return int(item.options["size"])

    def pack_key(self, item: Item) -> Hashable:
        return item.options["size"]

    def tidy(self, item: Item) -> None:
        self.tidied.append(item.index)

    def moved(self, device: str, root: Path, warn: Callable[[str], None]) -> "Notes":
        return self

    def ready(self, item: Item) -> Item:
        return item

    def make(
        self, items: Sequence[Item], on_step: Callable[[int], None]
    ) -> Iterator[tuple[Item, dict[str, Any]]]:
        self.packs.append([item.index for item in items])
        for item in items:
            if self.fails in item.options["prompt"]:
                raise DataError(f"{item.options['prompt']} fails", "mend it")
            if self.deaths and "die" in item.options["prompt"]:
                (self.deaths / str(time.time_ns())).touch()
                if len(list(self.deaths.iterdir())) <= 2:
                    os.kill(os.getpid(), signal.SIGKILL)
            if "full" in item.options["prompt"]:
                raise DataError("the disk is full", "free some") from OSError(28, "full")
            with whole(item.path) as part:
                part.write_text(f"{item.options['prompt']} {item.seed}\n")
                time.sleep(self.seconds)
            on_step(self.num_steps(item))
            yield item, {}


def make_notes(
    folder: Path,
    lines: str,
    task: Notes | None = None,
    *,
    seed: int | None = 5,
    suffix: str = ".txt",
    batch_size: int = 1,
    shard: str | None = None,
    template: str = "{index:05d}-{slug}.png",
    skip_bad: bool = False,
    force: bool = False,
    ray: str | None = None,
) -> Notes:
    """Run a batch of notes of a list into a folder."""
    source = folder.parent / f"{folder.name}-list{suffix}"
    source.write_text(lines)
    task = task or Notes()
    options = BatchOptions(str(source), template, batch_size, shard, skip_bad, ray=ray)
    batch = options.read(str(folder), COLUMNS, force)
    run_batch(task, batch, seed, dry_run=False)
    return task


def notes(folder: Path) -> dict[str, str]:
    """What a batch of notes has made: texts by name."""
    return {path.name: path.read_text() for path in sorted(folder.glob("[!.]*.png"))}
