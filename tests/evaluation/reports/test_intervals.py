"""Intervals against published examples, and against how often they hold."""

import numpy as np
import pytest
from scipy.stats import binomtest

from ursa_core.evaluation.reports.intervals import mcnemar, mean, paired_share, wilson


@pytest.mark.parametrize(("right", "num"), [(0, 7), (3, 7), (81, 263), (148, 148), (1, 29)])
def test_wilson_is_that_of_scipy(right: int, num: int) -> None:
    found = wilson(right, num)
    expected = binomtest(right, num).proportion_ci(method="wilson")
    assert found.value == right / num
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_refuses_what_is_no_share() -> None:
    for right, num in ((1, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError, match="is no share"):
            wilson(right, num)


def test_mcnemar_is_the_binomial_test() -> None:
    for only_a, only_b in ((0, 0), (1, 9), (5, 5), (12, 3)):
        changed = only_a + only_b
        expected = binomtest(only_a, changed).pvalue if changed else 1.0
        assert mcnemar(only_a, only_b) == pytest.approx(expected)


def test_newcombe_gives_his_published_example() -> None:
    # Newcombe 1998, table III: 36, 12, 2, 0 of 50 pairs, method 10.
    a = np.array([1] * 48 + [0] * 2, bool)
    b = np.array([1] * 36 + [0] * 12 + [1] * 2, bool)
    found = paired_share(b, a)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=6e-4)


def test_the_bootstrap_holds_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(40):
        found = mean(rng.normal(3, 1, 40), seed)
        held += found.low <= 3 <= found.high
    assert 33 <= held <= 40
    assert mean(np.array([2.0])).low == 2.0


def test_pairs_tell_more_than_two_samples() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(0, 10, 60)
    b = a + 0.5 + rng.normal(0, 0.2, 60)
    found = mean(b - a)
    assert found.low > 0.4
    assert found == mean(b - a)
    alone = mean(b)
    assert alone.high - alone.low > 10 * (found.high - found.low)
