"""Confidence intervals of shares, means and differences."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Z = 1.959963984540054  # standard deviations of a 95 % interval; every interval here is one
_RESAMPLES, _CHUNK = 10_000, 500


@dataclass(frozen=True)
class Interval:
    """A value and the 95 % interval around it."""

    value: float
    low: float
    high: float


def wilson(successes: int, num: int) -> Interval:
    """A share with Wilson's score interval (1927), which holds near 0 and 1 and for few trials."""
    if not 0 <= successes <= num or num < 1:
        raise ValueError(f"{successes} of {num} is no share")
    share = successes / num
    centre = (share + Z**2 / (2 * num)) / (1 + Z**2 / num)
    reach = Z / (1 + Z**2 / num) * math.sqrt(share * (1 - share) / num + Z**2 / (4 * num**2))
    # Rounding must not push the interval off the value or beyond the ends.
    low, high = max(0.0, min(centre - reach, share)), min(1.0, max(centre + reach, share))
    return Interval(share, low, high)


def mean(values: Array, seed: int = 0) -> Interval:
    """A mean of values (n,) with the bootstrap's percentile interval, 10,000 resamples."""
    middle = float(values.mean())
    if len(values) == 1:
        return Interval(middle, middle, middle)
    rng, size = np.random.default_rng(seed), (_CHUNK, len(values))
    chunks = range(_RESAMPLES // _CHUNK)
    means = np.concatenate([values[rng.integers(len(values), size=size)].mean(1) for _ in chunks])
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(middle, min(float(low), middle), max(float(high), middle))


def paired_share(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Interval:
    """Difference of two shares over the same samples, ``b`` minus ``a``.

    Newcombe's interval from Wilson's of each, with the correlation of the pairs
    (Statistics in Medicine 17, 1998, method 10).
    """
    num = len(a)
    of_a, of_b = wilson(int(a.sum()), num), wilson(int(b.sum()), num)
    both, only_a = int((a & b).sum()), int((a & ~b).sum())
    only_b, neither = int((~a & b).sum()), int((~a & ~b).sum())
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    excess = both * neither - only_a * only_b
    corrected = excess - num / 2 if excess > num / 2 else min(excess, 0)
    phi = corrected / math.sqrt(product) if product else 0.0
    difference = of_b.value - of_a.value
    below = (of_b.value - of_b.low, of_a.high - of_a.value)
    above = (of_b.high - of_b.value, of_a.value - of_a.low)
    reach_low, reach_high = (
        math.sqrt(max(x**2 - 2 * phi * x * y + y**2, 0.0)) for x, y in (below, above)
    )
    return Interval(difference, difference - reach_low, difference + reach_high)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value, if as many pairs change one way as the other."""
    changed, fewer = only_a + only_b, min(only_a, only_b)
    if changed == 0:
        return 1.0
    tail = sum(math.comb(changed, k) for k in range(fewer + 1)) / 2**changed
    return min(1.0, 2 * tail)
