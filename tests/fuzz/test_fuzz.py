"""A short fuzz of every reader; ``make fuzz`` is the long one."""

import pytest

from tests.fuzz.__main__ import finds_planted
from tests.fuzz.engine import fuzz
from tests.fuzz.readers import Reader, readers

NAMES = (
    *("recipes", "lists", "captions", "tokens", "weights", "configs", "reports"),
    *("images", "films"),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return readers(tmp_path_factory.mktemp("seeds"))


def test_the_table_is_whole(table):
    assert tuple(table) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_readers_raise_nothing_but_our_errors(table, name, tmp_path):
    fuzz(table[name], tmp_path, {"films": 30, "configs": 60}.get(name, 100), 1, shrink=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_fault_is_found(table, name, tmp_path):
    assert finds_planted(table[name], tmp_path, 1000, 0)
