"""Files to codes on a Ray cluster: packs of files go to actors, whose rows are written here."""

import platform
from collections import deque
from collections.abc import Callable, Container, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self, cast

from ursa_core.batches.ray_pool import RayOptions, RayPool, ray_pool, unseen
from ursa_core.batches.run import BatchItem, MadeItems, OnStep, Outcome, packs_of, stops
from ursa_core.bundle.bundle import load_tokenizer
from ursa_core.devices import pick_device
from ursa_core.encoding.encode import Encoded, Encoder, Tokenizing, batch_size, reason_of
from ursa_core.encoding.items import Draw, DrawnClip, Item
from ursa_core.encoding.origins import origin_of
from ursa_core.encoding.report import ItemResult
from ursa_core.errors import DataError, UrsaError
from ursa_core.places import regular_file
from ursa_core.tokens.writer import ShardWriter

_ALONE_BYTES = 16 << 20
"""Files above it go to an actor alone, so that no pack of them fills its memory."""


@dataclass
class OnRay:
    """A cluster, what receives warnings, what is called once a stop is asked for; its actors."""

    chosen: RayOptions
    tell: Callable[[str], None]
    note_stop: Callable[[], None]
    pool: RayPool | None = None


class _EncodeTask:
    """Encodes items in packs (see `batches.run.PackTask`), sent with the bytes of their files."""

    def __init__(self, encoder: Encoder, num_checked: int | None, shards: Path) -> None:
        self.model_folder, self._digest = encoder.folder, encoder.digest
        self._cut, self._refine = encoder.cut, encoder.refine
        self._num_checked, self._shards = num_checked, shards
        self.draws: dict[str, Draw] = {}  # of worlds; sprites are too much for each pack

    def pack_key(self, item: BatchItem) -> str | None:
        """None for files that may go together."""
        files = _files_of(item.plan)
        is_large = sum(each.stat().st_size for each in files if each.exists()) > _ALONE_BYTES
        return item.key if is_large else None

    def ready(self, item: BatchItem) -> BatchItem:
        """The item with its file's state and bytes; a world's drawing stays in the task."""
        source: Item = item.plan
        if isinstance(source, DrawnClip):
            sent = replace(source, draw=cast(Draw, unseen))
            return replace(item, plan=(sent, None, {}), is_ready=True)
        origin, parent, content = origin_of(source, self._shards), source.path.parent, {}
        with suppress(OSError):  # which comes again where it is looked for
            files = map(regular_file, _files_of(source))
            content = {f"{each.relative_to(parent)}": each.read_bytes() for each in files}
        return replace(item, plan=(source, origin, content), is_ready=True)

    def moved(self, device: str, root: Path, warn: Callable[[str], None]) -> Self:
        """The task with its tokenizer; DataError for another one than that at home."""
        self._tokenizer, _, digest = load_tokenizer(self.model_folder, pick_device(device))
        if digest != self._digest:
            fault = f"the node {platform.node()} has another tokenizer in {self.model_folder}"
            raise DataError(fault, "copy the model's folder to all nodes")
        return self

    def tidy(self, item: BatchItem) -> None:
        """Nothing is left next to an item."""

    def make(self, items: Sequence[BatchItem], on_step: OnStep) -> MadeItems:
        """Encode items; each with its rows and results."""
        num = self._num_checked
        num = None if num is None else max(0, num - items[0].index)
        work = Tokenizing(self._tokenizer, self._cut, None, num, self._refine)
        with TemporaryDirectory() as root:
            sources = [self._here(item, Path(root)) for item in items]
            of_source = {id(source): item for source, item in zip(sources, items, strict=True)}
            for source, rows, results in work.encoded(sources, ()):
                item = of_source[id(source)]
                origin = item.plan[1]
                rows = [replace(row, origin=origin) for row in rows]
                results = [
                    replace(r, origin=origin) if r.status == "dropped" else r for r in results
                ]
                about = {"node": platform.node(), "rows": rows, "results": results}
                yield replace(item, plan=None), about

    def _here(self, item: BatchItem, root: Path) -> Item:
        source, _, content = item.plan
        if isinstance(source, DrawnClip):
            return replace(source, draw=self.draws[source.world])
        folder = root / str(item.index)
        for name, given in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(given)
        return replace(source, path=folder / source.path.name)


class RayTokenizing(Tokenizing):
    """Encodes on a cluster, and writes the rows here in the order of the items."""

    def __init__(
        self, ray: OnRay, encoder: Encoder, writer: ShardWriter, check: int | None
    ) -> None:
        super().__init__(encoder.tokenizer, encoder.cut, writer, check, encoder.refine)
        self._ray, self._task = ray, _EncodeTask(encoder, check, writer.folder)

    def encoded(
        self, items: Sequence[Item], done: Container[str]
    ) -> Generator[Encoded, None, None]:
        """As of one process; KeyboardInterrupt if it is stopped."""
        ray, task, shape = self._ray, self._task, self._cut.shape
        todo = [item for item in items if item.key not in done]
        task.draws = {item.world: item.draw for item in todo if isinstance(item, DrawnClip)}
        planned = (
            BatchItem(item.key, index, 0, item.name, 0, {}, {}, item)
            for index, item in enumerate(todo)
        )
        packs = packs_of(task, planned, batch_size(shape.frames * shape.height * shape.width))
        ended: dict[str, Encoded] = {}
        with (
            ray_pool(ray.chosen, task, unseen, reason_of, ray.tell) as ray.pool,
            stops(ray.note_stop) as should_stop,  # later: Ray has a handler of its own
        ):
            outcomes = ray.pool.run(packs, should_stop)
            try:
                for item in items:
                    while item.key not in ended and item.key not in done:
                        outcome = next(outcomes, None)
                        if outcome is None:
                            raise KeyboardInterrupt
                        ended[outcome.item.key] = self._taken(outcome)
                    kept: Encoded = (item, [], [ItemResult(item.name, "kept")])
                    made = ended.pop(item.key, kept)
                    self._add(made[1])
                    yield made
            finally:  # those after an item that isn't done
                for _, rows, _ in ended.values():
                    self._add(rows)

    def _taken(self, outcome: Outcome) -> Encoded:
        """What an actor made of an item; DataError if it alone can't read its file."""
        item = outcome.item.plan
        if outcome.error is not None:
            return self._skipped(item, outcome.error)
        node, rows, results = outcome.metrics.values()
        if results[0].status != "skipped":
            return item, rows, results
        try:
            deque(item.clips(self._cut, self._tokenizer.strides.temporal), maxlen=0)
        except UrsaError as error:
            return self._skipped(item, reason_of(error))
        fault = f"the node {node} can't read {item.path}, which this one can: {results[0].reason}"
        raise DataError(fault, "install the same versions of PyAV and Pillow on all nodes")


def _files_of(item: Item) -> list[Path]:
    """Files of an item: those of a folder of frames, else one, or none."""
    if isinstance(item, DrawnClip):
        return []
    return sorted(item.path.iterdir()) if item.path.is_dir() else [item.path]
