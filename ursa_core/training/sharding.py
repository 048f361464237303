"""Training spread over ranks: with DDP each rank holds all weights, with FSDP2 a shard of them.

PyTorch's own engines do both.
Tensors that FSDP2 shards are ``DTensor``s; what needs whole ones asks here.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ursa_core.training.distributed import Ranks


def spread(
    objective: nn.Module,
    blocks: Iterable[nn.Module],
    kind: str,
    ranks: Ranks,
    device: torch.device,
    is_half: bool,
) -> nn.Module:
    """What to call in place of ``objective`` so that gradients are means over the ranks.

    Args:
        objective: module whose forward gives the loss, on the device.
        blocks: its parts that are gathered one after another, with ``fsdp``.
        kind: ``ddp`` or ``fsdp``.
        ranks: that train; one alone needs nothing.
        device: of this rank.
        is_half: with ``fsdp``, gather and multiply in bfloat16; autocast does it elsewhere.
    """
    if ranks.count == 1:
        return objective
    if kind == "ddp":
        return DistributedDataParallel(objective)
    half = torch.bfloat16 if is_half else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
    mesh = torch.distributed.device_mesh.init_device_mesh(device.type, (ranks.count,))
    for part in (*blocks, objective):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    return objective


def recompute_(blocks: Iterable[nn.Module]) -> None:
    """Have blocks keep what goes into them alone, and run again for their gradient."""
    for block in blocks:
        block.forward = functools.partial(
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
        )


def halve_frozen_(blocks: Iterable[nn.Module]) -> None:
    """Hold matrices that aren't trained in bfloat16, as autocast would make them each time."""
    for block in blocks:
        for parameter in block.parameters():
            if parameter.ndim == 2 and not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()


def synchronising(wrapped: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Exchange gradients after the last micro-batch of a step only, where that saves anything.

    FSDP2 does it after each: it would have to hold whole gradients else.
    """
    if isinstance(wrapped, DistributedDataParallel) and not is_last:
        return wrapped.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def gathered(wrapped: nn.Module) -> Iterator[None]:
    """Parts of the network can be called by themselves meanwhile, by all ranks alike."""
    if isinstance(wrapped, FSDPModule):
        wrapped.unshard()
    try:
        yield
    finally:
        if isinstance(wrapped, FSDPModule):
            wrapped.reshard()


def is_sharded(wrapped: nn.Module) -> bool:
    """Whether no rank holds all weights."""
    return isinstance(wrapped, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every rank has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The whole ``tensor``, the same on all ranks, sharded as ``like``."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
