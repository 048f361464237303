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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ursa_core import __version__, files
from ursa_core.batches.manifest import Status
from ursa_core.batches.run import BatchItem, Outcome, PackTask, record, run_packs
from ursa_core.errors import DataError, DeviceError, UrsaError, UsageError
from ursa_core.places import addressed, fetch, is_address, located

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

    def start(self, version: str, task: bytes, model: str, device: str, explain: _Explain) -> str:
        """Take the task; the node's address. UrsaError if it can't be done here."""
        import ray

        where = ray.util.get_node_ip_address()
        if version != __version__:
            hint = "install the same version on all nodes"
            raise DataError(f"the node {where} has ursa {__version__}, this one {version}", hint)
        if is_address(model):
            fetch(located(model), ["**/*"])
        own: PackTask = pickle.loads(task)  # noqa: S301  (from our own driver)
        if not own.model_folder.is_dir():
            hint = "give a folder that all nodes see, or run `ursa models pull` on each"
            raise DataError(f"the node {where} has no model in {own.model_folder}", hint)
        self._root, self._explain = Path(tempfile.mkdtemp(prefix="ursa-")), explain
        self._device, self._warnings = device, list[str]()
        self._task = own.moved(device, self._root, self._warnings.append)
        return str(where)

    def make(self, pack: list[BatchItem]) -> tuple[list[tuple[Outcome, Any]], list[str]]:
        """Make a pack: how each item ended, with its files by their paths at home; warnings."""
        root, own, ended = self._root, list[BatchItem](), []
        for item in pack:
            path = root / item.file.lstrip("/")
            files.make_folder(path.parent)
            options = {**item.options, "device": self._device}
            own.append(replace(item, file=str(path), options=options))
        for outcome in run_packs(self._task, [own], unseen, unseen, self._explain):
            made = [path for path in root.rglob("*") if path.is_file()]
            content = {f"/{path.relative_to(root)}": path.read_bytes() for path in made}
            for path in made:
                path.unlink()
            ended.append((outcome, content))
        warned = self._warnings.copy()
        self._warnings.clear()
        return ended, warned


def unseen(*_: object, **__: object) -> None:
    """For what isn't of use: records are written at home, and steps aren't reported."""


class RayPool:
    """Actors of a cluster, one a device; those that die give their packs to others.

    ``append`` takes records, as of ``run_packs``; ``tell`` receives warnings, and why nothing runs.
    """

    def __init__(
        self, ray: Any, chosen: RayOptions, task: PackTask, append: Callable[..., None],
        explain: _Explain, tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._ray, self._chosen, self._task, self._append = ray, chosen, task, append
        self._explain, self._tell = explain, tell
        has_gpus = bool(ray.cluster_resources().get("GPU"))
        self._gpus = float(has_gpus) if chosen.gpus is None else chosen.gpus
        self._workers: dict[Any, list[Any]] = {}  # what each is making, in order
        self._starting: dict[Any, Any] = {}
        self._nodes: dict[Any, str] = {}
        self._running: dict[Any, tuple[Any, list[BatchItem]]] = {}
        self._redo = deque[list[BatchItem]]()
        self._lost: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._begun, self._made, self._again = time.monotonic(), 0, 0

    @property
    def text(self) -> str:
        """Rate, actors, nodes and what was made again."""
        rate = self._made / max(time.monotonic() - self._begun, 1e-9)
        num, nodes = len(self._workers), len({*map(self._nodes.get, self._workers)})
        where = f"{num} actor{'s' * (num != 1)} on {nodes} node{'s' * (nodes != 1)}"
        again = f", {self._again} given to others" if self._again else ""
        return f"{rate:.2f} items/s, {where}{again}"

    def run(
        self, packs: Iterator[list[BatchItem]], should_stop: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """Make packs as ``run_packs`` does, in the order in which actors end them."""
        looked, is_explained = 0.0, False
        fault: UrsaError | None = None
        while True:
            stopped = should_stop()
            if not stopped and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                self._grow()
                if not (is_explained or self._nodes) and looked - self._begun > _PATIENCE_SECONDS:
                    is_explained = True
                    self._tell(self._why_idle())
            every = self._workers.items()
            free = [actor for n in range(AHEAD) for actor, refs in every if len(refs) <= n]
            pack = None
            while free and not stopped:
                try:
                    pack = self._redo.popleft() if self._redo else next(packs, None)
                except UrsaError as error:  # of the list, later: what is under way is made
                    fault, pack = error, None
                if pack is None:
                    break
                yield from self._give(free.pop(0), pack)
            if stopped:  # what an actor has begun is made, what waits for it is not
                for refs in self._workers.values():
                    for ref in refs[1:]:
                        del self._running[ref]
                    del refs[1:]
            if not self._running and (stopped or (free and pack is None)):
                break
            waited = [*self._running, *self._starting]
            if not waited:
                time.sleep(0.5)
            for ref in self._ray.wait(waited, timeout=0.5)[0] if waited else ():
                if ref in self._starting:
                    self._take(ref)
                elif ref in self._running:  # not of an actor that has died just now
                    yield from self._collect(ref)
        if fault is not None:
            raise fault

    def _grow(self) -> None:
        """Start an actor on each device that has none."""
        cpus, slots = self._chosen.cpus, 0
        for node in self._ray.nodes():
            has = node["Resources"] if node["Alive"] else {}
            of_gpus = has.get("GPU", 0) // self._gpus if self._gpus else float("inf")
            slots += int(min(has.get("CPU", 0) // cpus, of_gpus))
        own = self._ray.remote(num_cpus=cpus, num_gpus=self._gpus)(_Worker)
        device = "cuda" if self._gpus else "cpu"
        for _ in range(slots - len(self._workers) - len(self._starting)):
            actor, task = own.remote(), pickle.dumps(self._task)
            model = addressed(str(self._task.model_folder))
            ref = actor.start.remote(__version__, task, model, device, self._explain)
            self._starting[ref] = actor

    def _take(self, ref: Any) -> None:
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

    def _give(self, actor: Any, pack: list[BatchItem]) -> Iterator[Outcome]:
        """Have an actor make a pack; an item that can't be made ready fails."""
        try:
            ready = [each if each.is_ready else self._task.ready(each) for each in pack]
        except Exception as error:
            if len(pack) > 1:
                self._redo.extend([each] for each in pack)
            else:
                yield self._failed(pack[0], self._explain(error))
            return
        self._append(*(record(item, "started") for item in pack), sync=False)
        # The worker's folder is another one.
        ref = actor.make.remote([replace(each, file=str(each.path.absolute())) for each in ready])
        self._workers[actor].append(ref)
        self._running[ref] = actor, pack

    def _collect(self, ref: Any) -> Iterator[Outcome]:
        """What an actor has made of a pack; the packs of a dead one go to others."""
        actor, pack = self._running[ref]
        try:
            replies, warnings = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise _of_worker(error) from error
        except self._ray.exceptions.RayError as error:
            own = [self._running.pop(each)[1] for each in self._workers.pop(actor)]
            text = f"{type(error).__name__} {error}"
            is_memory = "low on memory" in text or "OutOfMemory" in text
            reason = "the worker ran out of memory" if is_memory else "the worker died"
            limit = _MAX_OUT_OF_MEMORY if is_memory else _MAX_LOST
            self._lost.update(item.key for item in own[0])  # the first was being made
            for item in [each for each in own[0] if self._lost[each.key] >= limit]:
                own[0].remove(item)
                yield self._failed(item, f"{reason}, {limit} times")
            self._again += sum(map(len, own))
            self._redo.extend(each for each in own if each)
            return
        del self._running[ref]
        self._workers[actor].remove(ref)
        for text in warnings:
            if (what := text.partition(": ")[2]) not in self._warned:
                self._warned.add(what)
                self._tell(text)
        at_home = {item.key: item for item in pack}
        for outcome, content in replies:
            self._made += 1
            yield self._kept(at_home[outcome.item.key], outcome, content)

    def _failed(self, item: BatchItem, reason: str) -> Outcome:
        self._append(record(item, "failed", 0.0, reason))
        return Outcome(item, 0.0, reason)

    def _kept(self, item: BatchItem, outcome: Outcome, content: dict[str, bytes]) -> Outcome:
        """Write and record what an actor has made of an item; the output itself comes last."""
        item = replace(item, options=outcome.item.options)
        if outcome.error is None:
            place = str(item.path.absolute())
            frames = {path for path in content if path.startswith(f"{place}/")}
            for path in sorted(content.keys() - frames, key=lambda path: path == place):
                files.write(path, content[path])
            if frames:
                with files.whole(item.path) as part:
                    files.make_folder(part)
                    for path in frames:
                        (part / Path(path).name).write_bytes(content[path])
            self._task.tidy(item)
        status: Status = "failed" if outcome.error else "done"
        self._append(record(item, status, outcome.seconds, outcome.error))
        return replace(outcome, item=item)

    def stop(self) -> None:
        """End the actors, and what they are making."""
        for actor in (*self._workers, *self._starting.values()):
            self._ray.kill(actor)


def _of_worker(error: Any) -> UrsaError:
    """The error of a worker: ours as it is, others by their first line."""
    cause = error.cause
    if isinstance(cause, UrsaError):
        return cause
    first = (str(cause).splitlines() or [""])[0]
    hint = "install the same version of ursa-video on all nodes"
    return DataError(f"a worker fails: {type(cause).__name__}: {first}", hint)


@contextmanager
def ray_pool(
    chosen: RayOptions, task: PackTask, append: Callable[..., None], explain: _Explain,
    tell: Callable[[str], None],
) -> Iterator[RayPool]:  # fmt: skip
    """Actors on a cluster, as `RayPool` has them, ended at the end.

    UsageError without Ray; DeviceError without a cluster, or for one of another version.
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
        hint = "check the address and that the versions of Ray and Python agree: ray status"
        raise DeviceError(f"no Ray cluster can be used at {address}: {first}", hint) from error
    # Ray prints what its nodes report to stdout, which is for paths and JSON.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    pool = RayPool(ray, chosen, task, append, explain, tell)
    try:
        yield pool
    finally:
        pool.stop()
        ray.shutdown()
