"""Batches made ahead by threads: the same ones, begun early, faults told when asked for."""

import threading

import pytest

from ursa_core.errors import DataError
from ursa_core.training.prefetch import Prefetcher


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_are_those_asked_for(workers):
    ahead = Prefetcher(lambda index: index * index, workers)
    wanted = [1, 3, 5, 7, 9, 2, 4, 6, 100, 5, 5]
    assert [ahead.take(index) for index in wanted] == [index * index for index in wanted]


def test_the_next_ones_are_begun_by_another_thread():
    made, threads = {}, set()
    begun = threading.Event()

    def make(index):
        made[index] = threading.current_thread().name
        threads.add(made[index])
        if index == 10:
            begun.set()
        return index

    ahead = Prefetcher(make, workers=1)
    ahead.take(2)
    ahead.take(6)
    assert begun.wait(10)  # nobody asked for it yet
    assert ahead.take(10) == 10
    assert made[10] != made[2] == made[6] == threading.current_thread().name
    assert ahead.take(14) == 14
    assert ahead.seconds_waited < 1


def test_nothing_is_begun_without_workers():
    made = []
    ahead = Prefetcher(lambda index: made.append(index), workers=0)
    for index in range(4):
        ahead.take(index)
    assert made == [0, 1, 2, 3]


def test_a_fault_is_told_when_its_item_is_asked_for():
    def make(index):
        if index == 4:
            raise DataError("the shard is torn", "make it anew")
        return index

    ahead = Prefetcher(make, workers=1)
    assert [ahead.take(index) for index in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="torn"):
        ahead.take(4)
