"""Clips of each batch of a run: shuffled, by grid, a function of (seed, batch number) alone.

Batch ``i`` is batch ``i // lanes`` of lane ``i % lanes``. Each epoch's order of a bucket is cut
into one equal stretch per lane, so that processes of different lanes read different data. An order
shuffles groups of rows, and then the rows of a pool: the successive groups that fit in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ursa_core.grids import LatentGrid
from ursa_core.seeding import stream


@dataclass(frozen=True)
class Bucket:
    """Rows whose clips make batches of one shape."""

    grid: LatentGrid  # latent grid of the clips
    batch_size: int  # clips per batch
    rows: NDArray[np.int64]  # numbers of the rows, ascending: int64 (n,)
    num_codes: int  # codes of all its rows, as stored
    group_starts: NDArray[np.int64]  # first row of each group of the table, and its end

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
        sizes = [bucket.batch_size for bucket in buckets]
        self._batches = [-(-n // size) for n, size in zip(self._lane_rows, sizes, strict=True)]
        self._turns = np.repeat(np.arange(len(buckets)), self._batches)
        pools = 1 if self._share is None else lanes
        self._order = lru_cache(2 * len(buckets))(self._make_order)
        self._pool = lru_cache(2 * len(buckets) * pools)(self._make_pool)
        self._schedule = lru_cache(lanes + 1)(self._make_schedule)

    def batch(self, index: int) -> tuple[Bucket, list[int]]:
        """Bucket and row numbers of batch ``index``."""
        turn, lane = divmod(index, self._lanes)
        number, count = self._turn(turn, lane)
        bucket, rows = self.buckets[number], self._lane_rows[number]
        chosen = []
        for place in range(count * bucket.batch_size, (count + 1) * bucket.batch_size):
            epoch, at = divmod(place, rows)
            # Lanes are equally long: the last one may take some rows of the first.
            chosen.append(self._row(number, epoch, (lane * rows + at) % len(bucket.rows)))
        return bucket, chosen

    def _turn(self, turn: int, lane: int) -> tuple[int, int]:
        """Bucket of a lane's batch, and how many of its batches the lane had before."""
        if len(self.buckets) == 1:
            return 0, turn
        epoch, at = divmod(turn, len(self._turns))
        schedule = self._schedule(epoch, lane)
        number = int(schedule[at])
        before = int(np.count_nonzero(schedule[:at] == number))
        return number, epoch * self._batches[number] + before

    def _make_schedule(self, epoch: int, lane: int) -> NDArray[np.int64]:
        return self._turns[self._shuffled(len(self._turns), "buckets", epoch * self._lanes + lane)]

    def _row(self, number: int, epoch: int, place: int) -> int:
        _, begins, pools = self._order(number, epoch)
        group = int(np.searchsorted(begins, place, side="right")) - 1
        begin, rows = self._pool(number, epoch, int(pools[group]))
        return int(rows[place - begin])

    def _make_order(self, number: int, epoch: int) -> tuple[NDArray[np.int64], ...]:
        """An epoch of a bucket: its groups in order, and the beginning and pool of each."""
        bucket = self.buckets[number]
        groups = self._shuffled(len(bucket.starts) - 1, f"groups of {bucket.grid}", epoch)
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
        shuffled = self._shuffled(len(rows), f"rows of {bucket.grid}", index)
        return int(begins[first]), rows[shuffled]

    def _shuffled(self, count: int, name: str, index: int) -> NDArray[np.int64]:
        return torch.randperm(count, generator=stream(self._seed, name, index)).numpy()
