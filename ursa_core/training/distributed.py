"""The ranks that train together under ``torchrun``, and the network spread over them."""

import contextlib
import errno
import functools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ursa_core.devices import local_device
from ursa_core.errors import DeviceError, UrsaError, UsageError
from ursa_core.parts import launched_part

_TIMEOUT = timedelta(minutes=30)  # longest wait for another rank: one rank alone draws sample grids
# A launcher's store outlives the ranks that it restarts.
_FAILURE = f"ursa/failure/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
_HEARD = f"{_FAILURE}/heard"
_GOODBYE = timedelta(seconds=5)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default."""

    rank: int = 0  # number of this process, from 0
    count: int = 1
    files: dist.ProcessGroup | None = None  # for background threads that write checkpoints

    @property
    def is_first(self) -> bool:
        """Whether this rank writes for all."""
        return self.rank == 0

    def sum_(self, values: Tensor) -> Tensor:
        """Sum of the values of all ranks, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def mean(self, value: float) -> float:
        """Mean of the ranks' values."""
        return self.sum_(torch.tensor(value, dtype=torch.float64)).item() / self.count

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some rank."""
        return bool(self.sum_(torch.tensor(float(flag)))) if self.count > 1 else flag

    def wait(self) -> None:
        """Barrier: return when all ranks have called it."""
        self.any(False)

    def share(self, accumulate: int) -> range:
        """This rank's micro-batches of a step; refuses a number that ranks can't share evenly."""
        if accumulate % self.count:
            fitting = -(-accumulate // self.count) * self.count
            raise UsageError(
                f"train.accumulate {accumulate} can't be shared by {self.count} ranks",
                f"give a multiple, as train.accumulate={fitting}, and adjust train.batch_size",
            )
        return range(self.rank, accumulate, self.count)


class Interrupted(UrsaError):  # noqa: N818  (not a failure: the run is saved)
    """Training was stopped by a signal, and is saved."""

    exit_code = 130


def pick_own_device(name: str, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The device that this rank trains on; each rank of a machine needs a GPU of its own."""
    device = local_device(name, environment)
    if device.type == "cuda" and "LOCAL_RANK" in environment:
        if int(environment["LOCAL_RANK"]) >= (count := torch.cuda.device_count()):
            hint = f"start torchrun with --nproc-per-node {count}"
            raise DeviceError(f"this machine has {count} GPUs and more ranks", hint)
        torch.cuda.set_device(device)
    if device.type == "mps" and launched_part(environment) is not None:
        raise DeviceError("ranks can't share an mps device", "give train.device=cpu")
    return device


@contextlib.contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started, connected until the block ends, or this process alone.

    If it fails on one rank, the others end with its error, not with a broken connection.
    """
    launched = launched_part(os.environ)
    if launched is None or launched.count == 1:
        yield Ranks()
        return
    store = _join(device)
    ranks = Ranks(launched.number - 1, launched.count, dist.new_group(backend="gloo"))
    try:
        yield ranks
    except Interrupted:
        raise
    except Exception as error:
        raise _first_error(error, ranks, store) from error
    finally:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()


def _join(device: torch.device) -> Any:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, count = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        text = str(error)
        fault = f"the ranks can't find each other: {text.splitlines()[0]}", "start with torchrun"
        if "EADDRINUSE" in text or os.strerror(errno.EADDRINUSE).lower() in text.lower():
            port = f"port {os.environ.get('MASTER_PORT', '')} of this machine, where the ranks"
            hint = "give another port, as torchrun --master-port 29501"
            fault = f"{port} were to meet, is in use", hint
        raise UsageError(*fault) from error
    return store


def _first_error(error: Exception, ranks: Ranks, store: Any) -> Exception:
    """The error of the rank that failed first: this rank's own, or one read from the store."""
    names_it = any(word in str(error).lower() for word in ("gloo", "nccl", "connection"))
    is_echo = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and names_it)
    with contextlib.suppress(RuntimeError):
        if is_echo:
            store.wait([_FAILURE], _GOODBYE)
            rank, message, hint = json.loads(store.get(_FAILURE))
            store.add(_HEARD, 1)
            return UrsaError(f"rank {rank} failed: {message}", hint)
        message = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        words = json.dumps([ranks.rank, message, getattr(error, "hint", "")])
        store.compare_set(_FAILURE, "", words)
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
        end = time.monotonic() + _GOODBYE.total_seconds()
        # The store may end with this process.
        while store.add(_HEARD, 0) < ranks.count - 1 and time.monotonic() < end:
            time.sleep(0.05)
    if not is_echo:
        return error
    return UrsaError(
        "another rank of the run ended without an error message",
        "see the log of its machine; the same command continues from the last checkpoint",
    )


def spread(
    objective: nn.Module,
    blocks: Iterable[nn.Module],
    kind: str,
    ranks: Ranks,
    device: torch.device,
    is_bfloat16: bool,
) -> nn.Module:
    """The module to call instead of ``objective``, so that gradients are means over the ranks.

    With ``ddp`` each rank holds all weights, with ``fsdp`` a shard of them, as ``DTensor``s, of
    which the ``blocks`` are gathered one after another, in bfloat16 if that is on.
    """
    if ranks.count == 1:
        return objective
    if kind == "ddp":
        return DistributedDataParallel(objective)
    dtype = torch.bfloat16 if is_bfloat16 else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    mesh = dist.device_mesh.init_device_mesh(device.type, (ranks.count,))
    for part in (*blocks, objective):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    return objective


def recompute_(blocks: Iterable[nn.Module]) -> None:
    """Activation checkpointing: recompute blocks in the backward pass."""
    for block in blocks:
        block.forward = functools.partial(
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
        )


def cast_frozen_to_bfloat16_(blocks: Iterable[nn.Module]) -> None:
    """Hold frozen matrices in bfloat16, which autocast would cast them to each time."""
    for block in blocks:
        for parameter in block.parameters():
            if parameter.ndim == 2 and not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()


def synchronising(wrapped: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Context of a micro-batch: DDP exchanges gradients only after the last one of a step."""
    if isinstance(wrapped, DistributedDataParallel) and not is_last:
        return wrapped.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def gathered(wrapped: nn.Module) -> Iterator[None]:
    """Context in which all ranks can call parts of the network directly."""
    if not isinstance(wrapped, FSDPModule):
        yield
        return
    wrapped.unshard()
    try:
        yield
    finally:
        wrapped.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor; all ranks have to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Part of the whole ``tensor``, which is the same on all ranks, as in ``like``."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
