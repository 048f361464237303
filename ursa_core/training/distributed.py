"""The processes that train together under ``torchrun``; the failure of one ends them all."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from ursa_core.devices import pick_device
from ursa_core.errors import DeviceError, UrsaError, UsageError
from ursa_core.parts import launched_shard

_TIMEOUT = timedelta(minutes=30)
"""Longest wait for another rank: sample sheets are drawn by one alone."""
# A launcher's store outlives the ranks that it starts again.
_FAILURE = f"ursa/failure/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
_HEARD = f"{_FAILURE}/heard"
_LAST_WORDS_SECONDS = 5.0


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default.

    Args:
        rank: of this process, from 0.
        count: of processes.
        files: group for what a background thread agrees on, apart from that of the steps.
    """

    rank: int = 0
    count: int = 1
    files: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes for all."""
        return self.rank == 0

    def sum_(self, values: Tensor) -> Tensor:
        """Add up the values of all ranks, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def mean(self, value: float) -> float:
        """Mean of the ranks' values."""
        values = torch.tensor(value, dtype=torch.float64)
        return self.sum_(values).item() / self.count if self.count > 1 else value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some rank."""
        return bool(self.sum_(torch.tensor(float(flag)))) if self.count > 1 else flag

    def wait(self) -> None:
        """Go on when all ranks are here."""
        self.any(False)

    def share(self, accumulate: int) -> range:
        """Which of the micro-batches of a step are this rank's.

        Raises:
            UsageError: the ranks can't share them evenly.
        """
        if accumulate % self.count:
            fitting = -(-accumulate // self.count) * self.count
            raise UsageError(
                f"train.accumulate {accumulate} can't be shared by {self.count} ranks",
                f"give a multiple, as train.accumulate={fitting}, and train.batch_size to match",
            )
        return range(self.rank, accumulate, self.count)


class Interrupted(UrsaError):  # noqa: N818  (not a failure: the run is saved)
    """Training was stopped from outside and has been saved."""

    exit_code = 130


def pick_own_device(name: str, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The device that this rank trains on: on CUDA, that of its number on its machine.

    Raises:
        UsageError: no such kind of device.
        DeviceError: this machine hasn't got it, or fewer than it has ranks.
    """
    device = pick_device(name)
    if device.type == "cuda" and "LOCAL_RANK" in environment:
        device = pick_device(f"cuda:{environment['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    if device.type == "mps" and launched_shard(environment) is not None:
        raise DeviceError("ranks can't share an mps device", "give train.device=cpu")
    return device


@contextlib.contextmanager
def joined_ranks(
    device: torch.device, environment: Mapping[str, str] = os.environ
) -> Iterator[Ranks]:
    """Be one of the ranks that ``torchrun`` started, or alone, until the block ends.

    Where the block fails on a rank, the others end with that rank's error too.

    Raises:
        UsageError: the ranks can't find each other.
        UrsaError: another rank failed, or is gone.
    """
    launched = launched_shard(environment)
    if launched is None or launched.count == 1:
        yield Ranks()
        return
    store = _join(device, environment)
    ranks = Ranks(launched.number - 1, launched.count, dist.new_group(backend="gloo"))
    try:
        yield ranks
    except Interrupted:
        raise
    except Exception as error:
        raise _tell(error, ranks, store) from error
    finally:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()


def _join(device: torch.device, environment: Mapping[str, str]) -> Any:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    port = environment.get("MASTER_PORT", "")
    try:
        store, rank, count = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if "EADDRINUSE" in text or os.strerror(errno.EADDRINUSE).lower() in text.lower():
            raise UsageError(
                f"port {port} of this machine, where the ranks were to meet, is in use",
                "give another, as torchrun --master-port 29501",
            ) from error
        raise UsageError(
            f"the ranks can't find each other: {text.splitlines()[0]}", "start with torchrun"
        ) from error
    return store


def _tell(error: Exception, ranks: Ranks, store: Any) -> Exception:
    """The error to end with: the one of the rank that failed first."""
    is_echo = isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and any(word in str(error).lower() for word in ("gloo", "nccl", "connection"))
    )
    with contextlib.suppress(RuntimeError):
        if not is_echo:
            message = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            words = {"rank": ranks.rank, "message": message, "hint": getattr(error, "hint", "")}
            store.compare_set(_FAILURE, "", json.dumps(words))
            _hang_up(ranks, store)
            return error
        end = time.monotonic() + _LAST_WORDS_SECONDS
        while time.monotonic() < end:
            if store.check([_FAILURE]):
                found = json.loads(store.get(_FAILURE))
                store.add(_HEARD, 1)
                message = f"rank {found['rank']} failed: {found['message']}"
                return UrsaError(message, found["hint"])
            time.sleep(0.05)
    return UrsaError(
        "another rank of the run is gone, without a word",
        "see what its machine says; the same command continues from the last checkpoint",
    )


def _hang_up(ranks: Ranks, store: Any) -> None:
    """Let the others notice, and read what was said before this rank, and its store, go."""
    with contextlib.suppress(Exception):
        dist.destroy_process_group()
    end = time.monotonic() + _LAST_WORDS_SECONDS
    while store.add(_HEARD, 0) < ranks.count - 1 and time.monotonic() < end:
        time.sleep(0.05)
