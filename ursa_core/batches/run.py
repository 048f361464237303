"""A batch: what of it is left to do, and the loop that makes it, recording each item as it ends."""

import errno
import json
import os
import signal
import stat
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from ursa_core.batches.manifest import Record, Records, Status
from ursa_core.errors import UsageError

OnStep = Callable[[int], None]
"""Receives the number of items that have taken a step."""
_NOT_COMPARED = {"device", "ursa", "file"}
"""Options that record where an item was made, or where its files were, and don't decide what."""


@dataclass(slots=True)  # not frozen: of a million that takes seconds
class BatchItem:
    """One output to be made, a file, with a seed, by options, JSON values, that decide it.

    Its key is the same in every run: the name if the item's line gives one, otherwise the index in
    the list, from 0. Lines count from 1; 0 is that of no list.
    """

    key: str
    index: int
    line: int
    file: str
    seed: int
    options: dict[str, Any]
    given: Mapping[str, Any]
    plan: Any
    """What its line gives, and what the task planned of it: all that is needed once it is ready."""
    is_ready: bool = False

    @property
    def path(self) -> Path:
        """Path of its file, which most of a million items are never asked for."""
        return Path(self.file)


MadeItems = Iterator[tuple[BatchItem, dict[str, Any]]]
"""Items, each once it is written, with its metrics."""


class PackTask(Protocol):
    """What makes items, in packs, here or in another process."""

    model_folder: Path

    def pack_key(self, item: BatchItem) -> Hashable:
        """Items of equal keys may be made together."""

    def ready(self, item: BatchItem) -> BatchItem:
        """An item with what it is given, read again; UrsaError if that has changed."""

    def make(self, items: Sequence[BatchItem], on_step: OnStep) -> MadeItems:
        """Make ready items of one key; each is yielded with its metrics once it is written."""

    def moved(self, device: str, root: Path, warn: Callable[[str], None]) -> Self:
        """The task in another process, where items are ready; its own files go below ``root``."""

    def tidy(self, item: BatchItem) -> None:
        """Remove what is no longer needed next to an output that a killed run finished."""


class BatchTask(PackTask, Protocol):
    """What a command brings to a batch: its name, the model and digits of its files, and items."""

    name: str
    model: str
    model_identity: str

    def title(self, given: Mapping[str, Any]) -> str:
        """What an item is called after, from what its line gives: the text of ``{slug}``."""

    def settle(self, given: Mapping[str, Any], file: str) -> tuple[dict[str, Any], Any]:
        """All options of an item, JSON values, and its plan; UrsaError if it can't be made."""

    def num_steps(self, item: BatchItem) -> int:
        """Steps that making an item takes."""


State = Literal["todo", "kept", "unrecorded"]
"""To be made, done, or done by a run that was killed before it recorded it."""
Left = Iterable[tuple[BatchItem, State]]
"""Items, and what is left to do of each."""


@dataclass(frozen=True)
class Outcome:
    """How an item ended: the seconds it took, why it failed if it did, and its metrics."""

    item: BatchItem
    seconds: float
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


def remaining(items: Iterable[BatchItem], records: Records, force: bool) -> Left:
    """Items, and what is left to do of each.

    Without ``force`` it is a UsageError that one was made with other options, or without a record.
    """
    for item in items:
        # Without a Path, which would take most of the time of a million items.
        name = os.path.basename(item.file)  # noqa: PTH119
        is_done = records.says_done(item.key, name, item.seed, item.options)
        if is_done and _holds_something(item.file):
            yield item, "kept"
            continue
        record = records.get(item.key)
        there = record is not None and _holds_something(item.path.with_name(record.name))
        begun = record is not None and record.status == "started" and not record.replaces
        if record is not None and there and (record.status == "done" or begun):
            now = {**item.options, "name": item.path.name}
            differing = changes(now, {**record.options, "name": record.name})
            if not differing:
                yield item, "unrecorded" if begun else "kept"
                continue
            if not force:
                which = f"line {item.line}" if item.line else item.file
                raise UsageError(
                    f"{which} was made with other options: {', '.join(differing)}",
                    "give those of before, another folder, or --force to make it again",
                )
        elif record is None and not force and os.path.exists(item.file):  # noqa: PTH110  (as above)
            fault = f"{item.file} exists already, and the manifest has no record of it"
            raise UsageError(fault, "give another folder, or --force to replace it")
        yield item, "todo"


def changes(options: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """What of an output's options differs from what is recorded, as ``steps 2, not 4``."""
    # Through JSON, since some are tuples here and lists there.
    now, before = (leaves(json.loads(json.dumps(dict(of)))) for of in (options, recorded))
    keys = [key for key in {**before, **now} if key.rpartition(".")[2] not in _NOT_COMPARED]
    return [
        f"{key} {before.get(key)!r}, not {now.get(key)!r}"
        for key in keys
        if before.get(key) != now.get(key)
    ]


def packs_of(
    task: PackTask, items: Iterable[BatchItem], batch_size: int
) -> Iterator[list[BatchItem]]:
    """Items in packs of one key."""
    waiting: dict[Hashable, list[BatchItem]] = {}
    for item in items:
        key = task.pack_key(item)
        waiting.setdefault(key, []).append(item)
        if len(waiting[key]) == batch_size:
            yield waiting.pop(key)
    yield from waiting.values()


def run_packs(
    task: PackTask,
    packs: Iterable[list[BatchItem]],
    append: Callable[..., None],
    on_step: OnStep,
    explain: Callable[[Exception], str],
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Make packs of items of one key; ``append`` takes the record of each item as it ends.

    An item that fails is recorded so, with what ``explain`` gives of the error, and the rest go on;
    the items of a pack that fails are made one by one. A full disk ends the run with a DataError,
    and so does a folder that can't be written. ``should_stop`` is asked before each pack.
    """
    rest, alone = iter(packs), deque[list[BatchItem]]()
    while alone or not should_stop():
        pack = alone.popleft() if alone else next(rest, None)
        if pack is None:
            return
        begun, left = time.monotonic(), {item.key: item for item in pack}
        append(*(record(item, "started") for item in pack), sync=False)
        try:
            ready = [each if each.is_ready else task.ready(each) for each in pack]
            for item, metrics in task.make(ready, on_step):
                seconds = round(time.monotonic() - begun, 3)
                append(record(item, "done", seconds))
                del left[item.key]
                yield Outcome(item, seconds, metrics=metrics)
        except Exception as error:
            if _is_full_disk(error) or not os.access(pack[0].path.parent, os.W_OK | os.X_OK):
                raise
            if len(pack) > 1:
                alone.extend([item] for item in left.values())
                continue
            reason, seconds = explain(error), round(time.monotonic() - begun, 3)
            append(record(pack[0], "failed", seconds, reason))
            yield Outcome(pack[0], seconds, reason)


def record(
    item: BatchItem, status: Status, seconds: float | None = None, error: str | None = None
) -> Record:
    """The record of an item, as of now."""
    name, replaces = item.path.name, status == "started" and item.path.exists()
    options, now = item.options, time.time()
    return Record(item.key, name, status, item.seed, options, now, seconds, error, replaces)


@contextmanager
def stops(note: Callable[[], None], *, may_interrupt: bool = True) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came, after which ``note`` is called; a second one interrupts."""
    asked = False

    def press(*_: object) -> None:
        nonlocal asked
        if asked and may_interrupt:
            raise KeyboardInterrupt
        asked = True
        with suppress(RuntimeError):  # the signal came while something was printed
            note()

    before = {each: signal.signal(each, press) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _holds_something(path: str | Path) -> bool:
    """Whether an output is there, and no file of it is empty."""
    try:
        found = os.stat(path)  # noqa: PTH116  (a million times)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(found.st_mode):
        return bool(found.st_size)
    sizes = [each.stat().st_size for each in Path(path).iterdir()]
    return bool(sizes) and all(sizes)


def leaves(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options within options, and lists of them, by names as ``given.files.0.sha256``."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            found |= leaves({str(k): each for k, each in enumerate(value)}, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _is_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
