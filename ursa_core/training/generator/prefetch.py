"""What the next passes need, made by threads while a pass is computed."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Prefetcher(Generic[Made]):
    """Items by number, the next ones begun when one is taken.

    Numbers are taken with one distance throughout, that of a rank's micro-batches, which the first
    two tell. Any other number is made when it is asked for.

    Args:
        make: an item of a number; called by several threads, and depends on the number alone.
        workers: threads, each of which is two items ahead; 0 makes all when they are asked for.

    Attributes:
        seconds_waited: for the item that was taken last.
    """

    def __init__(self, make: Callable[[int], Made], workers: int) -> None:
        self._make, self._count = make, 2 * workers
        self._pool = ThreadPoolExecutor(workers, "batches") if workers else None
        self._begun: dict[int, Future[Made]] = {}
        self._last: int | None = None
        self.seconds_waited = 0.0

    def take(self, index: int) -> Made:
        """Item ``index``.

        Raises:
            Exception: what making it raised.
        """
        started = time.perf_counter()
        found = self._begun.pop(index, None)
        item = self._make(index) if found is None else found.result()
        self.seconds_waited = time.perf_counter() - started
        self._begin_after(index)
        return item

    def _begin_after(self, index: int) -> None:
        distance = 0 if self._last is None else index - self._last
        self._last = index
        if self._pool is None or distance <= 0:
            return
        wanted = range(index + distance, index + distance * self._count + 1, distance)
        for number in set(self._begun) - set(wanted):
            self._begun.pop(number).cancel()
        for number in wanted:
            if number not in self._begun:
                self._begun[number] = self._pool.submit(self._make, number)
