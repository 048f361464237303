"""Rotary positions over time, row and column, with interleaved frequencies."""

import torch
from torch import Tensor

from ursa_core.grids import LatentGrid


def positions(prompt_length: int, grid: LatentGrid) -> Tensor:
    """Coordinates (time, row, column) of text, begin of video and codes, int64 (S + 1 + L, 3).

    Text and begin of video count 0, 1, … in all three coordinates, so that their positions are
    one-dimensional; a code has its frame, which counts on from there, its row and its column.
    """
    text = torch.arange(prompt_length + 1).unsqueeze(1).expand(-1, 3)
    cells = torch.cartesian_prod(
        torch.arange(grid.frames) + prompt_length + 1,
        torch.arange(grid.rows),
        torch.arange(grid.columns),
    )
    return torch.cat([text, cells.view(-1, 3)])


def rotations(coordinates: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each float32 (S, head_dim), as ``rotate`` takes them.

    The sines are negative in the first half.

    Frequency i turns with coordinate i mod 3 for the first 3·(head_dim // 8) frequencies, then
    with row and column in turn. Source: Sec. 4.1 of the paper; order of the published models.

    Args:
        coordinates: int64 (S, 3).
        head_dim: Width of a head, a multiple of 16.
        theta: Base of the frequencies.
    """
    half = head_dim // 2
    index = torch.arange(half)
    interleaved = 3 * (head_dim // 8)
    axis = torch.where(index < interleaved, index % 3, 1 + (index - interleaved) % 2)
    frequency = 1.0 / theta ** (index.float() / half)
    angles = coordinates.float()[:, axis] * frequency.to(coordinates.device)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the heads (B, S, N, head_dim) by their positions' angles, first half against second."""
    half = x.shape[-1] // 2
    return (x * cos[:, None]).add_(x.roll(half, -1).mul_(sin[:, None]))
