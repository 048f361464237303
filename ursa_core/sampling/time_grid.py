"""Time grids: the times of the sampler's steps, for the clip or for each frame."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ursa_core.errors import ShapeError
from ursa_core.grids import LatentGrid


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Times t / (t + shift·(1 − t)), earlier for a shift above 1."""
    return t / (t + shift * (1 - t))


def time_grid(steps: int, shift: float = 1.0, stored: Sequence[float] | None = None) -> Tensor:
    """Times of the steps, float32 (steps + 1,) from 0 to 1: shifted, or those ``stored``.

    The latter, of any number of steps, are interpolated for another one.
    """
    even = torch.arange(steps + 1, dtype=torch.float64) / steps
    if stored:
        return torch.from_numpy(np.interp(even, np.linspace(0, 1, len(stored)), stored)).float()
    return shift_time(even, shift).float()


def times_from(times: Tensor, t_0: float) -> Tensor:
    """``t_0``, followed by the times of a grid (N + 1,) above it."""
    return torch.cat([times.new_tensor([t_0]), times[times > t_0]])


def frame_times(times: Tensor, grid: LatentGrid) -> Tensor:
    """Times of all positions (..., L) from those of the grid's frames (..., F), else ShapeError."""
    if times.shape[-1] != grid.frames:
        hint = f"give {grid.frames} times per step"
        raise ShapeError(f"times of {times.shape[-1]} frames don't fit a grid of {grid}", hint)
    return times.repeat_interleave(grid.codes_per_frame, dim=-1)
