"""A batch on a Ray cluster: packs go to actors as those get free, their outputs come back.

Actors of Ray Core and not Ray Data: a model is loaded once per actor there as well, but what is
made comes back item by item, so that the manifest of this process stays the record of what is done.
"""

import os
import pickle
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ursa_core import __version__, files
from ursa_core.batches.manifest import Writer
from ursa_core.batches.run import BatchItem, BatchTask, Outcome, make_pack, record
from ursa_core.errors import DataError, DeviceError, UrsaError, UsageError

AHEAD = 2
"""Packs that an actor has at a time: one that it makes, and the next."""
_LOOK_SECONDS, _PATIENCE_SECONDS = 2.0, 20.0
_MAX_LOST, _MAX_OUT_OF_MEMORY = 5, 2
_Explain = Callable[[Exception], str]


@dataclass(frozen=True)
class RayOptions:
    """A cluster's address, and cores and GPUs of a worker; None is a GPU if there are any.

    The address ``auto`` is that of RAY_ADDRESS, else a new cluster is started here.
    """

    address: str = "auto"
    cpus: float = 1.0
    gpus: float | None = None


class _Worker:
    """An actor, which holds the model."""

    def start(self, version: str, task: bytes, device: str, model: str, explain: _Explain) -> str:
        """Take the task; the node's address. UrsaError if it can't be done here."""
        import ray

        where = ray.util.get_node_ip_address()
        if version != __version__:
            raise DataError(
                f"the node {where} has ursa {__version__}, this one {version}",
                "install the same version on all nodes",
            )
        if not Path(model).is_dir():
            raise DataError(
                f"the node {where} has no model in {model}",
                "give a folder that all nodes see, or run `ursa models pull` on each",
            )
        self._root, self._explain = Path(tempfile.mkdtemp(prefix="ursa-")), explain
        self._device, self._warnings = device, list[str]()
        own: BatchTask = pickle.loads(task)  # noqa: S301  (from our own driver)
        self._task = own.moved(device, self._root, self._warnings.append)
        return str(where)

    def _on_step(self, num: int) -> None:
        """Steps aren't reported."""

    def make(self, pack: list[BatchItem]) -> tuple[list[tuple[Outcome, Any]], list[str]]:
        """Make a pack: how each item ended, with its files by their paths at home; warnings."""
        own = [
            replace(
                item, path=_below(self._root, item.path),
                options={**item.options, "device": self._device},
            )
            for item in pack
        ]  # fmt: skip
        for item in own:
            files.make_folder(item.path.parent)
        ended, root = [], self._root
        for outcome in make_pack(
            self._task, own, lambda *_, **__: None, self._on_step, self._explain
        ):
            made = [path for path in root.rglob("*") if path.is_file()]
            content = {f"/{path.relative_to(root)}": path.read_bytes() for path in made}
            for path in made:
                path.unlink()
            ended.append((outcome, content))
        told = list(self._warnings)
        self._warnings.clear()
        return ended, told


def _below(root: Path, path: Path) -> Path:
    return root / str(path).lstrip("/")


class RayPool:
    """Actors of a cluster, one a device; those that die give their packs to others."""

    def __init__(self, ray: Any, chosen: RayOptions) -> None:
        self._ray, self._chosen = ray, chosen
        has_gpus = bool(ray.cluster_resources().get("GPU"))
        self._gpus = float(has_gpus) if chosen.gpus is None else chosen.gpus
        self._workers: dict[Any, list[Any]] = {}  # what each is making, in order
        self._starting: dict[Any, Any] = {}
        self._nodes: dict[Any, str] = {}
        self._begun, self._made, self._again = time.monotonic(), 0, 0

    @property
    def text(self) -> str:
        """Rate, actors, nodes and what was made again."""
        rate = self._made / max(time.monotonic() - self._begun, 1e-9)
        num, nodes = len(self._workers), len({*map(self._nodes.get, self._workers)})
        again = f", {self._again} given to others" if self._again else ""
        return f"{rate:.2f} items/s, {num} actors on {nodes} nodes{again}"

    def run(
        self,
        task: BatchTask,
        packs: Iterator[list[BatchItem]],
        writer: Writer,
        should_stop: Callable[[], bool],
        explain: _Explain,
        tell: Callable[[str], None],
    ) -> Iterator[Outcome]:
        """Make packs as ``run_packs`` does, in the order in which actors end them.

        ``tell`` receives warnings, and why nothing runs.
        """
        ray, redo = self._ray, deque[list[BatchItem]]()
        running: dict[Any, tuple[Any, list[BatchItem]]] = {}
        lost: Counter[str] = Counter()
        warned: set[str] = set()
        looked, fault, is_out, is_told = 0.0, None, False, False
        arguments = (__version__, pickle.dumps(task), "cuda" if self._gpus else "cpu",
                     str(task.model_folder), explain)  # fmt: skip

        def next_pack() -> list[BatchItem] | None:
            nonlocal fault, is_out
            try:
                pack = redo.popleft() if redo else None if is_out else next(packs, None)
            except UrsaError as error:  # of the list, later: what is under way is made
                fault, pack = error, None
            is_out = is_out or pack is None
            return pack

        def failed(item: BatchItem, reason: str) -> Outcome:
            writer.append(record(item, "failed", 0.0, reason))
            return Outcome(item, 0.0, reason)

        while True:
            stopped = should_stop()
            if not stopped and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                self._grow(arguments)
                if not (is_told or self._nodes) and looked - self._begun > _PATIENCE_SECONDS:
                    is_told = True
                    tell(self._why_idle())
            for depth in range(1, AHEAD + 1):
                for actor, refs in self._workers.items():
                    if stopped or len(refs) >= depth or (pack := next_pack()) is None:
                        continue
                    try:
                        ready = [each if each.is_ready else task.ready(each) for each in pack]
                    except Exception as error:
                        if len(pack) > 1:
                            redo.extend([each] for each in pack)
                        else:
                            yield failed(pack[0], explain(error))
                        continue
                    writer.append(*(record(item, "started") for item in pack), sync=False)
                    # The worker's folder is another one.
                    ready = [replace(each, path=each.path.absolute()) for each in ready]
                    ref = actor.make.remote(ready)
                    refs.append(ref)
                    running[ref] = actor, pack
            if stopped:  # what an actor has begun is made, what waits for it is not
                for refs in self._workers.values():
                    for ref in refs[1:]:
                        running.pop(ref, None)
                    del refs[1:]
            if not running and (stopped or (is_out and not redo)):
                break
            waited = [*running, *self._starting]
            ended = ray.wait(waited, timeout=0.5)[0] if waited else []
            if not waited:
                time.sleep(0.5)
            for ref in ended:
                if ref in self._starting:
                    self._take(ref)
                    continue
                if ref not in running:  # of an actor that has died just now
                    continue
                actor, pack = running.pop(ref)
                try:
                    replies, told = ray.get(ref)
                except ray.exceptions.RayTaskError as error:
                    raise _of_worker(error) from error
                except ray.exceptions.RayError as error:
                    refs, running[ref] = self._workers.pop(actor), (actor, pack)
                    own = [running.pop(each)[1] for each in refs]  # the first was being made
                    text = f"{type(error).__name__} {error}"
                    is_memory = "low on memory" in text or "OutOfMemory" in text
                    lost.update(item.key for item in own[0])
                    limit = _MAX_OUT_OF_MEMORY if is_memory else _MAX_LOST
                    for item in [each for each in own[0] if lost[each.key] >= limit]:
                        own[0].remove(item)
                        reason = "the worker ran out of memory" if is_memory else "the worker died"
                        yield failed(item, f"{reason}, {limit} times")
                    self._again += sum(map(len, own))
                    redo.extend(each for each in own if each)
                    continue
                self._workers[actor].remove(ref)
                at_home = {item.key: item for item in pack}
                for text in told:
                    if (what := text.partition(": ")[2]) not in warned:
                        warned.add(what)
                        tell(text)
                for outcome, content in replies:
                    self._made += 1
                    yield _kept(task, at_home[outcome.item.key], outcome, content, writer)
        if fault is not None:
            raise fault

    def _grow(self, arguments: Sequence[Any]) -> None:
        """Start an actor on each device that has none."""
        cpus, slots = self._chosen.cpus, 0
        for node in self._ray.nodes():
            has = node["Resources"] if node["Alive"] else {}
            of_gpus = has.get("GPU", 0) // self._gpus if self._gpus else float("inf")
            slots += int(min(has.get("CPU", 0) // cpus, of_gpus))
        own = self._ray.remote(num_cpus=cpus, num_gpus=self._gpus)(_Worker)
        for _ in range(slots - len(self._workers) - len(self._starting)):
            actor = own.remote()
            self._starting[actor.start.remote(*arguments)] = actor

    def _take(self, ref: Any) -> None:
        """Take an actor that has started, or has died so."""
        actor = self._starting.pop(ref)
        try:
            self._nodes[actor] = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise _of_worker(error) from error
        except self._ray.exceptions.RayError:  # its node has gone, or memory: another one starts
            return
        self._workers[actor] = []

    def _why_idle(self) -> str:
        there, free = self._ray.cluster_resources(), self._ray.available_resources()
        for what, wanted in (("GPU", self._gpus), ("CPU", self._chosen.cpus)):
            if free.get(what, 0) < wanted:
                return (
                    f"nothing runs yet: a worker takes {wanted:g} {what}; of"
                    f" {there.get(what, 0):g} in the cluster {free.get(what, 0):g} are free"
                    f" ({len(self._starting)} workers are starting)"
                )
        return f"nothing runs yet: {len(self._starting)} workers are starting"

    def stop(self) -> None:
        """End the actors, and what they are making."""
        for actor in (*self._workers, *self._starting.values()):
            self._ray.kill(actor)


def _kept(
    task: BatchTask, item: BatchItem, outcome: Outcome, content: dict[str, bytes], writer: Writer
) -> Outcome:
    """Write and record what an actor has made of an item; the output itself comes last."""
    item = replace(item, options=outcome.item.options)
    if outcome.error is None:
        place = str(item.path.absolute())
        for path in sorted(content, key=lambda path: path == place):
            if not path.startswith(f"{place}/"):
                files.write(path, content[path])
        frames = {path: each for path, each in content.items() if path.startswith(f"{place}/")}
        if frames:
            with files.whole(item.path) as part:
                for path, each in frames.items():
                    files.make_folder(part)
                    (part / Path(path).name).write_bytes(each)
        task.tidy(item)
    writer.append(
        record(item, "failed" if outcome.error else "done", outcome.seconds, outcome.error)
    )
    return replace(outcome, item=item)


def _of_worker(error: Any) -> UrsaError:
    """The error of a worker: ours as it is, others by their first line."""
    cause = error.cause
    if isinstance(cause, UrsaError):
        return cause
    first = (str(cause).splitlines() or [""])[0]
    return DataError(
        f"a worker fails: {type(cause).__name__}: {first}",
        "install the same version of ursa-video on all nodes",
    )


@contextmanager
def ray_pool(chosen: RayOptions) -> Iterator[RayPool]:
    """Actors on a cluster, ended at the end.

    Raises:
        UsageError: Ray isn't installed.
        DeviceError: There is no cluster at the address, or one of another version.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("Ray isn't installed", "pip install 'ursa-video[ray]'") from error
    address = chosen.address
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "local"
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        host, _, port = address.rpartition(":")
        if host and "/" not in host:  # Ray itself waits for long, or for ever
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR", **local)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DeviceError(
            f"no Ray cluster can be used at {address}: {first}",
            "check the address and that the versions of Ray and Python agree: ray status",
        ) from error
    # Ray prints what its nodes report to stdout, which is for paths and JSON.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    pool = RayPool(ray, chosen)
    try:
        yield pool
    finally:
        pool.stop()
        ray.shutdown()
