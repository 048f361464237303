"""Clips of each batch of a run: shuffled, by grid, a function of (seed, batch number) alone.

Each epoch's order of a bucket is cut into one equal stretch per lane, so that processes of
different lanes read different data. An order shuffles groups of rows, and then the rows of a pool:
the successive groups that fit in memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ursa_core.grids import LatentGrid
from ursa_core.seeding import stream

MIXED = 10_000  # clips among which the shares of data sets are exact, up to rounding


@dataclass(frozen=True)
class Bucket:
    """Rows whose clips make batches of one shape; those of one grid share its batches."""

    grid: LatentGrid  # latent grid of the clips
    batch_size: int  # clips per batch
    rows: NDArray[np.int64]  # numbers of the rows, ascending: int64 (n,)
    num_codes: int  # codes of all its rows, as stored
    group_starts: NDArray[np.int64]  # first row of each group of the table, and its end
    share: float | None = None  # share of all clips that are drawn; None for that of its rows

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Place among ``rows`` at which each group starts, and the end: (groups + 1,)."""
        return np.unique(np.searchsorted(self.rows, self.group_starts))


class ClipOrder:
    """The clips of each batch, which is from one bucket; ``lanes`` are equal parts of a step.

    Clips are shuffled among ``pool_codes`` codes over all buckets and lanes, or as a whole.
    """

    def __init__(
        self, buckets: Sequence[Bucket], seed: int, lanes: int = 1, pool_codes: int = 1 << 26
    ) -> None:
        self.buckets, self._seed, self._lanes = list(buckets), seed, lanes
        total = sum(bucket.num_codes for bucket in buckets)
        # A bucket's share of the pool per lane; None for all of it.
        self._share = None if total <= pool_codes else pool_codes / total / lanes
        self._lane_rows = [-(-len(bucket.rows) // lanes) for bucket in buckets]
        grids = dict.fromkeys(bucket.grid for bucket in buckets)
        self._mixes = [[n for n, b in enumerate(buckets) if b.grid == grid] for grid in grids]
        self.batches = list(map(self._num_batches, self._mixes))  # of an epoch and lane, by grid
        self._sorts = {
            "buckets": np.repeat(np.arange(len(self._mixes)), self.batches),
            **{
                f"sets of {grid}": self._by_share(n)
                for grid, n in zip(grids, self._mixes, strict=True)
            },
        }
        pools = 1 if self._share is None else lanes
        self._order = lru_cache(2 * len(buckets))(self._make_order)
        self._pool = lru_cache(2 * len(buckets) * pools)(self._make_pool)
        self._dealt = lru_cache((lanes + 1) * (len(self._mixes) + 1))(self._make_deal)

    def _num_batches(self, numbers: Sequence[int]) -> int:
        """Batches of a grid in an epoch, which has as many clips as rows, or ``MIXED``."""
        shares = [self.buckets[number].share for number in numbers]
        clips = float(self._lane_rows[numbers[0]])
        if None not in shares:
            clips = max(sum(self._lane_rows), MIXED) * sum(share or 0 for share in shares)
        return math.ceil(clips / self.buckets[numbers[0]].batch_size)

    def batch(self, index: int) -> tuple[Bucket, list[int]]:
        """First bucket of the grid of batch ``index``, and the batch's row numbers."""
        turn, lane = divmod(index, self._lanes)
        mix, count = self._deal("buckets", turn, lane)
        first = self.buckets[self._mixes[mix][0]]
        chosen = []
        for clip in range(count * first.batch_size, (count + 1) * first.batch_size):
            number, place = self._deal(f"sets of {first.grid}", clip, lane)
            rows = self._lane_rows[number]
            epoch, at = divmod(place, rows)
            # Lanes are equally long: the last one may take some rows of the first.
            row = (lane * rows + at) % len(self.buckets[number].rows)
            chosen.append(self._row(number, epoch, row))
        return first, chosen

    def _by_share(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        """The buckets of a grid, each as often among ``MIXED`` as its share says; one alone."""
        if len(numbers) == 1:
            return np.array(numbers)
        shares = np.cumsum([0.0, *(self.buckets[n].share or 0.0 for n in numbers)])
        counts = np.diff(np.round(shares / shares[-1] * MIXED)).astype(np.int64)
        return np.repeat(numbers, counts)

    def _deal(self, name: str, place: int, lane: int) -> tuple[int, int]:
        """The sort at a place of a lane, which is dealt all again and again; and those before."""
        sorts = self._sorts[name]
        if sorts[0] == sorts[-1]:
            return int(sorts[0]), place
        block, at = divmod(place, len(sorts))
        dealt = self._dealt(name, block * self._lanes + lane)
        chosen = dealt == dealt[at]
        before = np.count_nonzero(chosen[:at]) + block * np.count_nonzero(chosen)
        return int(dealt[at]), int(before)

    def _make_deal(self, name: str, index: int) -> NDArray[np.int64]:
        return self._sorts[name][self._shuffled(len(self._sorts[name]), name, index)]

    def _row(self, number: int, epoch: int, place: int) -> int:
        _, begins, pools = self._order(number, epoch)
        group = int(np.searchsorted(begins, place, side="right")) - 1
        begin, rows = self._pool(number, epoch, int(pools[group]))
        return int(rows[place - begin])

    def _make_order(self, number: int, epoch: int) -> tuple[NDArray[np.int64], ...]:
        """An epoch of a bucket: its groups in order, and the beginning and pool of each."""
        bucket = self.buckets[number]
        groups = self._shuffled(len(bucket.starts) - 1, f"groups of {self._name(number)}", epoch)
        sizes = np.diff(bucket.starts)[groups]
        begins = np.cumsum(sizes) - sizes
        share = self._share
        rows = len(bucket.rows) if share is None else max(1, int(share * len(bucket.rows)))
        return groups, begins, begins // rows

    def _make_pool(self, number: int, epoch: int, pool: int) -> tuple[int, NDArray[np.int64]]:
        """Beginning of a pool in the epoch's order, and its rows."""
        bucket, starts = self.buckets[number], self.buckets[number].starts
        groups, begins, pools = self._order(number, epoch)
        first, end = np.searchsorted(pools, [pool, pool + 1])
        rows = np.concatenate([bucket.rows[starts[g] : starts[g + 1]] for g in groups[first:end]])
        # An epoch has fewer pools than rows, so no two pools of a bucket share a stream.
        index = epoch * len(bucket.rows) + pool
        shuffled = self._shuffled(len(rows), f"rows of {self._name(number)}", index)
        return int(begins[first]), rows[shuffled]

    def _name(self, number: int) -> str:
        """Name of a bucket's streams: its grid, with its number among those of that grid."""
        grid = self.buckets[number].grid
        before = sum(bucket.grid == grid for bucket in self.buckets[:number])
        return f"{grid} in set {before + 1}" if before else str(grid)

    def _shuffled(self, count: int, name: str, index: int) -> NDArray[np.int64]:
        return torch.randperm(count, generator=stream(self._seed, name, index)).numpy()
