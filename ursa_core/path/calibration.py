"""The mean distance to x_1 along the metric path, and the (alpha, c) that suit a codebook.

Time acts only through the sharpness beta, so the mean Euclidean distance E[d(x_t, x_1)] is
tabulated over beta once; each (alpha, c) and each time is then read from this curve.
Source: Sec. 3.2 of the paper, where (alpha, c) is chosen so that the distance falls linearly in t.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.grids import ALPHA_RANGE, C_RANGE
from ursa_core.path.distances import CodebookDistances
from ursa_core.path.draws import chunks
from ursa_core.path.fast.distance_table import DistanceTable

Array = NDArray[np.float64]

_CHUNK_BYTES = 4 << 20
_NUM_POINTS, _MAX_LOG_BETA = 161, 16.0
"""Points of the curve, and log(1 + beta) at its end: hardly any vectors are nearer than 1e-3."""


@dataclass(frozen=True)
class DistanceCurve:
    """Mean Euclidean distance of x_t to x_1 as a function of the sharpness."""

    log_beta: Array  # (M,) log(1 + beta), evenly spaced from 0
    mean: Array  # (M,) E[d(x_t, x_1)], falling
    slope: Array  # (M,) derivative of ``mean`` in ``log_beta``
    error: float  # largest standard error of ``mean``; 0 if the expectation is exact
    num_sampled: int | None = None  # codes x_1 averaged over; None if it is exact

    def at(self, beta: Array) -> Array:
        """Mean distance at sharpnesses, by a cubic; beyond the curve its last value."""
        x = np.log1p(np.minimum(beta, 1e300))
        step = self.log_beta[1]
        place = np.minimum((x / step).astype(np.int64), len(self.log_beta) - 2)
        u = x / step - place
        y0, y1 = self.mean[place], self.mean[place + 1]
        m0, m1 = self.slope[place] * step, self.slope[place + 1] * step
        cubic = y0 + u * (m0 + u * (3 * (y1 - y0) - 2 * m0 - m1 + u * (2 * (y0 - y1) + m0 + m1)))
        return np.where(u > 1, self.mean[-1], cubic)


def distance_curve(
    codebook: Tensor, counts: Tensor | None = None, num_samples: int = 512
) -> DistanceCurve:
    """The mean distance over the sharpness.

    It is exact if the codebook, float (K, C), has a distance table. Otherwise ``num_samples`` codes
    x_1 are drawn (seed 0), and the expectation over x_t is exact for each. ``counts`` (K,) are the
    occurrences of each code as x_1, None is uniform; `UsageError` if they don't fit, or are zero.
    """
    distances = CodebookDistances(codebook)
    num_codes = distances.num_codes
    weights = torch.ones(num_codes) if counts is None else counts.float()
    if weights.shape != (num_codes,) or not float(weights.sum()) > 0:
        fault = f"{len(weights)} counts of codes don't fit a codebook of {num_codes}"
        raise UsageError(fault, "give tokens of this tokenizer, at least one")
    log_beta = torch.linspace(0, _MAX_LOG_BETA, _NUM_POINTS, dtype=torch.float64)
    table = DistanceTable.of(codebook)
    if table is not None:
        share = torch.zeros(len(table.distance), dtype=torch.float64, device=codebook.device)
        share.index_add_(0, table.class_of, weights.to(share))
        sizes = (table.count > 0).sum(1)
        rows = sizes.argsort()  # the classes of a chunk have similar numbers of levels
        rows = rows[share[rows] > 0]
        moments = torch.zeros(_NUM_POINTS, 2, dtype=torch.float64)
        for at in chunks(len(rows), table.num_levels, _CHUNK_BYTES):
            pick = rows[at]
            levels = slice(int(sizes[pick[-1]]))
            each = _moments(table.distance[pick, levels], table.count[pick, levels], log_beta)
            moments += (each * (share[pick] / share.sum())[:, None, None]).sum(0).cpu()
        mean, slope = moments.T.numpy()
        return DistanceCurve(log_beta.numpy(), mean, slope, error=0.0)
    drawn = torch.multinomial(
        weights, num_samples, replacement=True, generator=torch.Generator().manual_seed(0)
    ).to(codebook.device)
    samples = [
        _moments(rows, torch.ones_like(rows[:1]), log_beta)
        for at in chunks(num_samples, num_codes, _CHUNK_BYTES)
        for rows in [distances.rows(drawn[at]).sort(dim=1).values]
    ]
    values = torch.cat(samples).cpu()
    error = float(values[:, :, 0].std(0).max()) / math.sqrt(num_samples)
    mean, slope = values.mean(0).T
    return DistanceCurve(log_beta.numpy(), mean.numpy(), slope.numpy(), error, num_samples)


def _moments(squared: Tensor, count: Tensor, log_beta: Tensor) -> Tensor:
    """Mean distance and its derivative in log(1 + beta), (n, M, 2), at M rising ``log_beta``.

    ``squared`` are rising squared distances (n, J), ``count`` the codes at each, (n, J) or (1, J).
    """
    euclidean = squared.sqrt()
    nearest = squared.amin(0)
    result = torch.empty(len(squared), len(log_beta), 2, dtype=torch.float64, device=squared.device)
    for index, x in enumerate(log_beta.tolist()):
        beta = math.expm1(x)
        # Beyond this the weights are below 1e-17 of the nearest code's.
        num = int((nearest * beta <= 40).sum())
        d_squared, d = squared[:, :num], euclidean[:, :num]
        weights = torch.exp(d_squared * -beta).mul_(count[:, :num])
        total = weights.sum(-1)
        mean_squared = torch.einsum("nj,nj->n", weights, d_squared) / total
        weights.mul_(d)
        mean = weights.sum(-1) / total
        both = torch.einsum("nj,nj->n", weights, d_squared) / total
        # dE[d]/dbeta = −Cov(d, d²), and dbeta = (1 + beta) dx.
        result[:, index, 0] = mean
        result[:, index, 1] = -(both - mean * mean_squared) * math.exp(x)
    return result


@dataclass(frozen=True)
class Candidate:
    """One (alpha, c), and how its path uses time."""

    alpha: float
    c: float
    correlation: float  # Pearson's, of t and the mean distance at ``TIMES``; −1 is linear
    used_from: float  # time at which the mean distance has fallen to 99 % of its start
    used_to: float  # time at which it has fallen to 1 %; 1 if it never does
    deviation: float  # root mean square of the distance, as a share of its start, less 1 − t
    score: float  # quality; larger is better


TIMES = np.arange(50) / 50


def evaluate(curve: DistanceCurve, alpha: float, c: float) -> Candidate:
    """Linearity and used share of time of one (alpha, c).

    The score is −correlation · (used high − used low) − deviation. Without the deviation, paths
    score well that bend towards the ends of [0, 1] and hardly use them; it favours the straight
    line from noise at 0 to data at 1 that the paper aims at.
    """
    mean = curve.at(beta_at(TIMES, alpha, c))
    correlation = float(np.corrcoef(TIMES, mean)[0, 1])
    low, high = (_time_of(curve, share, alpha, c) for share in (0.99, 0.01))
    deviation = float(np.sqrt(np.mean((mean / curve.mean[0] - (1 - TIMES)) ** 2)))
    score = -correlation * (high - low) - deviation
    return Candidate(alpha, c, correlation, low, high, deviation, score)


def beta_at(t: Array, alpha: float, c: float) -> Array:
    """Sharpness c·(t/(1 − t))^alpha at times below 1."""
    with np.errstate(over="ignore"):  # infinity is right
        return np.asarray(c * (t / (1 - t)) ** alpha)


def _time_of(curve: DistanceCurve, share: float, alpha: float, c: float) -> float:
    """Time at which the mean distance has fallen to a share of its start, at most 1."""
    beyond = curve.mean < share * curve.mean[0]
    if not beyond.any():
        return 1.0
    last = int(beyond.argmax())
    fine = np.linspace(curve.log_beta[last - 1], curve.log_beta[last], 257)
    means = curve.at(np.expm1(fine))
    x = float(np.interp(-share * curve.mean[0], -means, fine))
    # t / (1 - t) = (beta / c)^(1 / alpha), which may overflow.
    log_odds = (math.log(max(math.expm1(x), 5e-324)) - math.log(c)) / alpha
    return 0.5 + 0.5 * math.tanh(log_odds / 2)


def search(curve: DistanceCurve, alphas: Array, cs: Array) -> list[Candidate]:
    """All candidates of a grid, best first."""
    grid = [evaluate(curve, float(a), float(c)) for a in alphas for c in cs]
    return sorted(grid, key=lambda candidate: -candidate.score)


def refine(curve: DistanceCurve, start: Candidate) -> Candidate:
    """The best candidate near ``start``, on ever finer grids in log(alpha) and log(c)."""
    best, spread = start, 0.5
    for _ in range(12):
        factors = np.exp(np.linspace(-spread, spread, 7))
        near = ((best.alpha * factors, ALPHA_RANGE), (best.c * factors, C_RANGE))
        alphas, cs = (each[(each >= low) & (each <= high)] for each, (low, high) in near)
        best = search(curve, alphas, cs)[0]
        spread /= 2
    return best
