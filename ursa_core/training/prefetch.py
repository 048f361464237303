"""Batches that threads make while the step before is computed."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Prefetcher(Generic[Made]):
    """Items by index; taking one makes ``workers`` threads start the next ones.

    Indices have a constant distance, the number of ranks, which follows from the first two.
    """

    def __init__(self, make: Callable[[int], Made], workers: int) -> None:
        self._make, self._count = make, 2 * workers
        self._pool = ThreadPoolExecutor(workers, "batches") if workers else None
        self._begun: dict[int, Future[Made]] = {}
        self._last: int | None = None
        self.seconds_waited = 0.0

    def take(self, index: int) -> Made:
        """Item ``index``; raises whatever its maker raised."""
        started = time.monotonic()
        found = self._begun.pop(index, None)
        item = self._make(index) if found is None else found.result()
        self.seconds_waited = time.monotonic() - started
        distance = 0 if self._last is None else index - self._last
        self._last = index
        if self._pool is not None and distance > 0:
            wanted = range(index + distance, index + distance * self._count + 1, distance)
            for number in set(self._begun) - set(wanted):
                self._begun.pop(number).cancel()
            for number in sorted(set(wanted) - set(self._begun)):
                self._begun[number] = self._pool.submit(self._make, number)
        return item
