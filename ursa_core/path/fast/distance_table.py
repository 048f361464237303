"""The distances from a code to all others, and the codes at each, per class of codes.

An FSQ codebook is a grid, so swapping channels that have the same levels, and mirroring a channel
whose levels are symmetric, maps it onto itself and keeps all distances. Codes that such maps join
form a class: 1,200 classes stand for the 64,000 codes of the published tokenizer, and a class has
some 2,700 distinct distances. All sums over codes become sums over these.
"""

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ursa_core.grids import MAX_TABLE_ENTRIES
from ursa_core.path.distances import CodebookDistances
from ursa_core.path.draws import precise_dtype

_EQUAL = 1e-7
"""Distances that differ by less than this are equal: the rounding of float32 vectors."""
_BLOCK_ENTRIES = 1 << 20


class CodeGrid(NamedTuple):
    """A codebook whose codes are mixed-radix numbers of their digits, and its symmetries."""

    sizes: Tensor  # (C,) int64 levels of each channel, the first one fastest
    canonical: Tensor  # (K,) int64, the code of each code's class that stands for it
    source: Tensor  # (K, C) int64, channel that each channel of the canonical code comes from
    mirrored: Tensor  # (K, C) bool, channels of a code that are mirrored in its canonical code

    @staticmethod
    def of(codebook: Tensor) -> "CodeGrid | None":
        """The grid of a codebook (K, C) on the CPU, None if it isn't one."""
        values = [codebook[:, channel].unique() for channel in range(codebook.shape[1])]
        sizes = torch.tensor([len(v) for v in values])
        # Channels of random vectors have up to K values each: stop before the product overflows.
        if float(sizes.double().prod()) != len(codebook):
            return None
        digits = _digits(torch.arange(len(codebook)), sizes)
        grid = torch.stack([v[digits[:, i]] for i, v in enumerate(values)], dim=1)
        if not torch.equal(grid, codebook):
            return None
        symmetric = torch.tensor([torch.equal(v, -v.flip(0)) for v in values])
        mirrored = symmetric & (2 * digits < sizes - 1)
        folded = torch.where(mirrored, sizes - 1 - digits, digits)
        source, levels = torch.empty_like(digits), [tuple(v.tolist()) for v in values]
        for same in dict.fromkeys(levels):
            channels = torch.tensor([i for i, each in enumerate(levels) if each == same])
            order = folded[:, channels].argsort(dim=1, descending=True, stable=True)
            source[:, channels] = channels[order]
        canonical = _codes(folded.gather(1, source), sizes)
        return CodeGrid(sizes, canonical, source, mirrored)

    def to(self, device: torch.device) -> "CodeGrid":
        """The same grid with its tensors on a device."""
        return CodeGrid(*(each.to(device) for each in self))

    def from_canonical(self, seen: Tensor, by: Tensor) -> Tensor:
        """Codes (n,) that ``seen`` become if the canonical codes of ``by`` become ``by``."""
        digits = _digits(seen, self.sizes)
        back = torch.empty_like(digits).scatter_(1, self.source[by], digits)
        return _codes(torch.where(self.mirrored[by], self.sizes - 1 - back, back), self.sizes)


def _radix(sizes: Tensor) -> Tensor:
    return torch.cumprod(sizes, 0) // sizes


def _digits(codes: Tensor, sizes: Tensor) -> Tensor:
    return codes[:, None].div(_radix(sizes), rounding_mode="floor") % sizes


def _codes(digits: Tensor, sizes: Tensor) -> Tensor:
    return (digits * _radix(sizes)).sum(-1)


class DistanceTable:
    """Levels of distance, from near to far, of each class of codes.

    It is made on the CPU in float64, so that near ties have the same order on every device, and a
    uniform number draws the same code everywhere. Without a ``grid``, the symmetries of the
    codebook, each code is a class of its own. ``class_of`` is int64 (K,); ``distance`` (R, J) the
    squared one of a level, 4 beyond a class's last, and ``count`` the codes at it, 0 beyond.
    """

    def __init__(self, distances: CodebookDistances, grid: CodeGrid | None) -> None:
        self._grid = grid
        num_codes = distances.num_codes
        everything = torch.arange(num_codes)
        canonical = everything if grid is None else grid.canonical
        standing, self.class_of = canonical.unique(return_inverse=True)
        small = torch.int16 if num_codes <= 1 << 16 else torch.int32
        shape = (len(standing), num_codes)
        self._members = torch.empty(shape, dtype=small)
        begins = torch.ones(shape, dtype=torch.bool)
        self.num_levels = 0  # J, the most of a class
        for rows in torch.arange(shape[0]).split(max(1, _BLOCK_ENTRIES // num_codes)):
            ordered, members = _sort(distances.rows(standing[rows]))
            self._members[rows] = members.to(small)  # wraps beyond 2^15
            begins[rows, 1:] = ordered.diff(dim=1) > _EQUAL
            self.num_levels = max(self.num_levels, int(begins[rows].sum(1).max()))
        self._start = torch.full((shape[0], self.num_levels), num_codes, dtype=torch.int32)
        self.distance = torch.full((shape[0], self.num_levels), 4.0, dtype=torch.float64)
        for index, row in enumerate(begins):
            start = row.nonzero().squeeze(1)
            self._start[index, : len(start)] = start
            nearest = self._member_codes(torch.full_like(start, index), start)
            own = standing[index].expand_as(nearest)
            self.distance[index, : len(start)] = distances.pairs(own, nearest)
        ends = torch.nn.functional.pad(self._start[:, 1:], (0, 1), value=num_codes)
        self.count = (ends - self._start).double()

    @staticmethod
    def entries(codebook: Tensor) -> int:
        """Classes times codes of a codebook (K, C); 0 if its table would be too large."""
        return _entries(codebook, CodeGrid.of(codebook.cpu()))

    @classmethod
    def of(cls, codebook: Tensor) -> Self | None:
        """The table of a codebook (K, C), on its device; None if it would be too large."""
        on_cpu = codebook.cpu()
        grid = CodeGrid.of(on_cpu)
        if not _entries(on_cpu, grid):
            return None
        return cls(CodebookDistances(on_cpu), grid)._to(codebook.device)

    def _to(self, device: torch.device) -> Self:
        for name in ("class_of", "_members", "_start", "distance", "count"):
            value = getattr(self, name)
            dtype = precise_dtype(device) if value.is_floating_point() else value.dtype
            setattr(self, name, value.to(device, dtype))
        self._grid = None if self._grid is None else self._grid.to(device)
        return self

    def member(self, x_1: Tensor, level: Tensor, uniform: Tensor) -> Tensor:
        """Codes (n,) at a level of distance from codes ``x_1``, picked by uniform numbers."""
        classes = self.class_of[x_1]
        count = self.count[classes, level]
        place = (uniform * count).floor().clamp_(min=0).minimum(count - 1).int()
        seen = self._member_codes(classes, self._start[classes, level] + place)
        return seen if self._grid is None else self._grid.from_canonical(seen, x_1)

    def _member_codes(self, classes: Tensor, place: Tensor) -> Tensor:
        stored = self._members[classes.long(), place.long()].long()
        return stored & 0xFFFF if self._members.dtype == torch.int16 else stored


def _entries(codebook: Tensor, grid: CodeGrid | None) -> int:
    classes = len(codebook) if grid is None else len(grid.canonical.unique())
    return classes * len(codebook) if classes * len(codebook) <= MAX_TABLE_ENTRIES else 0


def _sort(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances (n, K) from near to far, to 1e-9, and the codes (n, K) they belong to.

    By the radix sort that NumPy has for 16 bits, five times faster than by comparison.
    """
    key = (distances.numpy() * ((1 << 30) - 1)).astype(np.uint32)
    order = np.argsort(key.astype(np.uint16), axis=1, kind="stable")
    high = (np.take_along_axis(key, order, 1) >> 16).astype(np.uint16)
    codes = torch.from_numpy(np.take_along_axis(order, np.argsort(high, axis=1, kind="stable"), 1))
    return distances.gather(1, codes), codes
