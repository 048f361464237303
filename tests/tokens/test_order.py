"""Which clips make which batch: each once an epoch, shuffled, by grid, from the number alone."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ursa_core.grids import LatentGrid
from ursa_core.tokens.order import Bucket, ClipOrder

SMALL, LARGE = LatentGrid(1, 2, 2), LatentGrid(5, 2, 2)
GROUPS = np.arange(0, 101, 10)


def bucket(rows, size=5, grid=SMALL, starts=GROUPS):
    rows = np.array(rows)
    return Bucket(grid, size, rows, len(rows) * grid.num_codes, starts)


def rows_of(order, indices):
    return [row for index in indices for row in order.batch(index)[1]]


def test_every_epoch_shows_every_row_once_and_in_another_order():
    order = ClipOrder([bucket(range(100))], seed=3)
    epochs = [rows_of(order, range(20 * e, 20 * e + 20)) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(100))
    assert epochs[0] != epochs[1] != epochs[2]
    assert rows_of(ClipOrder([bucket(range(100))], seed=4), range(20)) != epochs[0]


def test_batches_that_cross_an_epoch_leave_nothing_out():
    order = ClipOrder([bucket(range(100), size=7)], seed=3)
    seen = rows_of(order, range(100))  # seven epochs
    assert Counter(seen) == dict.fromkeys(range(100), 7)


def test_a_batch_is_a_function_of_its_number_alone():
    def made():
        return ClipOrder(
            [bucket(range(60)), bucket(range(60, 100), 2, LARGE)], 5, lanes=4, pool_codes=300
        )

    straight = made()
    batches = [straight.batch(index)[1] for index in range(200)]
    for index in (199, 0, 63, 120, 63):
        assert made().batch(index)[1] == straight.batch(index)[1] == batches[index]


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_small_pool_holds_few_groups_at_a_time(lanes):
    """30 rows of 4 codes are three groups, which the lanes share."""
    order = ClipOrder([bucket(range(100), size=1)], 3, lanes, pool_codes=120)
    epoch = rows_of(order, range(100))
    assert sorted(epoch) == list(range(100))
    for lane in range(lanes):
        groups = [row // 10 for row in epoch[lane::lanes]]
        met = list(dict.fromkeys(groups))
        for group in met:
            places = [k for k, each in enumerate(groups) if each == group]
            assert places[-1] - places[0] < max(30 // lanes, 10) + 10
        assert len(met) <= 10 // lanes + 2
    runs = len(list(itertools.groupby(row // 10 for row in epoch[:: lanes or 1])))
    assert (runs > 50) == (lanes == 1)  # shuffled within a pool, not group by group


def test_lanes_take_different_parts():
    order = ClipOrder([bucket(range(100), size=5)], 3, lanes=4, pool_codes=40)
    parts = [set(rows_of(order, range(lane, 20, 4))) for lane in range(4)]
    assert [len(part) for part in parts] == [25] * 4
    assert set.union(*parts) == set(range(100))


def test_more_lanes_than_rows_still_fill_their_batches():
    order = ClipOrder([bucket(range(3), size=2)], 3, lanes=8)
    rows = rows_of(order, range(16))
    assert len(rows) == 32
    assert set(rows) == {0, 1, 2}


def test_each_batch_is_of_one_grid_as_often_as_it_has_clips():
    buckets = [bucket(range(0, 100, 2), 5, SMALL), bucket(range(1, 100, 2), 2, LARGE)]
    order = ClipOrder(buckets, seed=3)
    batches = [order.batch(index) for index in range(35)]  # 10 and 25 make an epoch
    for made, rows in batches:
        assert len(rows) == made.batch_size
        assert {row % 2 for row in rows} == {0 if made.grid == SMALL else 1}
    assert sorted(row for _, rows in batches for row in rows) == list(range(100))
    kinds = [made.grid == SMALL for made, _ in batches]
    assert len(list(itertools.groupby(kinds))) > 5
    again = [order.batch(index)[0].grid == SMALL for index in range(35, 70)]
    assert sum(again) == sum(kinds) == 10
    assert again != kinds


@pytest.mark.parametrize("lanes", [1, 2])
def test_data_sets_have_their_shares_and_each_shows_all_of_its_rows(lanes):
    """A set of 10 of 90 small rows has half of the clips; a third set has large ones alone."""
    few, many, large = range(10), range(10, 90), range(90, 100)
    shares = {few: 0.5, many: 0.3, large: 0.2}
    buckets = [
        replace(bucket(rows, 5, LARGE if rows is large else SMALL), share=share)
        for rows, share in shares.items()
    ]
    order = ClipOrder(buckets, seed=3, lanes=lanes)
    seen = rows_of(order, range(4000))
    for rows, share in shares.items():
        own = Counter(row for row in seen if row in rows)
        assert sum(own.values()) / len(seen) == pytest.approx(share, abs=0.01)
        assert own.keys() == set(rows)
        assert max(own.values()) - min(own.values()) <= 2 * lanes
    mixed = [order.batch(index)[1] for index in range(100)]
    both = [b for b in mixed if {row in few for row in b} == {True, False}]
    assert len(both) > 60  # sets share batches
    assert all({row in large for row in b} in ({True}, {False}) for b in mixed)
    again = ClipOrder(buckets, seed=3, lanes=lanes)
    assert again.batch(3999)[1] == order.batch(3999)[1]


def test_a_bucket_leaves_out_groups_without_its_rows():
    made = bucket([0, 1, 2, 35, 99])
    assert made.starts.tolist() == [0, 3, 4, 5]
