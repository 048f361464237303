"""Random draws: uniform numbers a position, and codes picked by them in proportion to weights.

All randomness of paths and samplers starts as uniform numbers drawn for every position at once, so
what a position gets depends on neither the chunks it is computed in nor the other items.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Randomness = torch.Generator | Sequence[torch.Generator]
"""One generator, or one for each item of the first dimension."""

_BLOCK = 64


def precise_dtype(device: torch.device) -> torch.dtype:
    """Float64 where the device has it (MPS has not)."""
    return torch.float32 if device.type == "mps" else torch.float64


def uniforms(shape: Sequence[int], randomness: Randomness, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1) of a shape, on a device.

    They are drawn where the generator lives, so a CPU generator gives the same on every device, but
    for rounding where the device has no float64. Of several, each is for one item, else ValueError.
    """
    if isinstance(randomness, torch.Generator):
        drawn = _rand(shape, randomness)
    elif len(randomness) == shape[0]:
        drawn = torch.stack([_rand(shape[1:], generator) for generator in randomness])
    else:
        raise ValueError(f"{len(randomness)} generators for {shape[0]} items")
    dtype = precise_dtype(device)
    # Rounding to fewer digits must not reach 1.
    return drawn.to(dtype).clamp_(max=1 - torch.finfo(dtype).eps / 2).to(device)


def uniform_codes(
    shape: Sequence[int], num_codes: int, generator: Randomness, device: torch.device | str
) -> Tensor:
    """Codes of a shape, each equally likely: int64."""
    noise = uniforms(shape, generator, torch.device(device))
    return (noise * num_codes).long().clamp(max=num_codes - 1)


def _rand(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    dtype = precise_dtype(generator.device)
    return torch.rand(tuple(shape), generator=generator, device=generator.device, dtype=dtype)


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """One index per row, int64 (n,), in proportion to its weights (n, K); never one of weight zero.

    ``uniform`` are numbers (n,) in [0, 1); the weights of a row have a positive sum.

    Picks a block of entries by the blocks' sums, then an entry in it: one fast pass over the
    weights, and sums short enough that float32 weights lose nothing at 64,000 entries, where
    one running sum would (and `torch.multinomial` ends at 2^24 entries).
    """
    num_entries = weights.shape[1]
    precise = precise_dtype(weights.device)
    size = min(_BLOCK, num_entries)
    whole = num_entries // size * size
    sums = weights[:, :whole].reshape(len(weights), whole // size, size).sum(-1)
    if whole < num_entries:
        sums = torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], dim=1)
    running = sums.to(precise).cumsum(-1)
    target = uniform[:, None].to(precise) * running[:, -1:]
    block = _first_beyond(running, sums, target)
    target = target - (running - sums).gather(1, block)
    entries = block * size + torch.arange(size, device=weights.device)
    inside = weights.gather(1, entries.clamp(max=num_entries - 1)) * (entries < num_entries)
    entry = _first_beyond(inside.to(precise).cumsum(-1), inside, target)
    return (block * size + entry).squeeze(1)


def _first_beyond(running: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """First entry of positive weight whose running sum exceeds the target, else the last such."""
    size = weights.shape[1]
    index = torch.arange(size, device=weights.device)
    positive = weights > 0
    first = torch.where(positive & (running > target), index, size).amin(-1, keepdim=True)
    last = torch.where(positive, index, 0).amax(-1, keepdim=True)
    return torch.minimum(first, last)


def chunks(num_rows: int, num_columns: int, chunk_bytes: int) -> Iterator[slice]:
    """Slices of rows, so that one float32 tensor (rows, columns) of each fits ``chunk_bytes``."""
    size = max(1, chunk_bytes // (4 * num_columns))
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def exp2_(exponents: Tensor) -> Tensor:
    """Powers of two, in place, but at least the dtype's smallest normal number.

    On CPUs subnormal results take ten times as long; the floor, 2^-126 in float32, is out of reach
    of any draw.
    """
    return exponents.clamp_(min=math.log2(torch.finfo(exponents.dtype).tiny)).exp2_()
