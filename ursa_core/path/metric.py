"""The metric path: codes move towards x_1 through codes that are ever nearer to it.

    p_t(x | x_1) = softmax over x of −beta_t·d(x, x_1)                      (Eq. 3)
    beta_t = c·(t / (1 − t))^alpha                                           (Eq. 4, `schedules.py`)
    u_t(x) = p_t(x | x_1)·dbeta_t·relu(d(x_t, x_1) − d(x, x_1))              (kinetic-optimal rates,
                                                                   Shaul et al., ICLR 2025)

Read `conditional_probs` and `jump_rates`. `corrupt` and `step` draw from the same distributions
without tensors over all codes (`fast/`).
"""

import math
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.grids import TABLE_BYTES
from ursa_core.path.base import ProbPath, Span, Times
from ursa_core.path.distances import CodebookDistances
from ursa_core.path.draws import Randomness, exp2_, uniforms
from ursa_core.path.fast.distance_table import DistanceTable
from ursa_core.path.fast.streamed import StreamedDraws
from ursa_core.path.fast.table import TableDraws
from ursa_core.path.schedules import Schedule

_BETA_LIMIT = 1e12
"""Stands for the infinite beta of t = 1: only x_1 and its twins have a probability left."""

_CHUNK_BYTES = {"cpu": 4 << 20, "other": 64 << 20}
"""Bytes of one tensor of sums; on a CPU the few that live at once stay in its cache."""


class MetricPath(ProbPath):
    """p_t(x | x_1) = softmax over x of −beta_t·d(x, x_1).

    d is the squared Euclidean distance between L2-normalised vectors of the codebook, float (K, C),
    which must be finite, else UsageError; float64 makes all results float64.
    """

    def __init__(self, codebook: Tensor, schedule: Schedule) -> None:
        self.codebook, self.schedule = codebook, schedule
        self.distances = CodebookDistances(codebook)
        self.dtype = self.distances.dtype
        self.num_codes = self.num_states = self.distances.num_codes

    def to(self, device: torch.device | str) -> "MetricPath":
        """The same path with its tensors on a device."""
        return MetricPath(self.codebook.to(device), self.schedule)

    def corrupt(self, x_1: Tensor, t: Times, generator: Randomness) -> Tensor:
        """x_t drawn from p_t(x | x_1): int64, the shape of ``x_1``."""
        beta = self._sharpness(t, x_1).reshape(-1)
        uniform_draws = uniforms(x_1.shape, generator, x_1.device).reshape(-1)
        return self._draws.corrupt(x_1.reshape(-1), beta, uniform_draws).view_as(x_1)

    def conditional_probs(self, x_1: Tensor, t: Times) -> Tensor:
        """p_t(x | x_1) of every code: (..., K), rows sum to 1."""
        beta = self._sharpness(t, x_1).reshape(-1, 1)
        weights = exp2_(self.distances.rows(x_1.reshape(-1)) * (beta * -math.log2(math.e)))
        probs = weights / weights.sum(-1, keepdim=True)
        return probs.to(self.dtype).view(*x_1.shape, self.num_codes)

    def jump_rates(self, x_t: Tensor, x_1: Tensor, t: Times) -> Tensor:
        """Rates per unit of t from x_t towards x_1: (..., K), 0 at x_t and farther codes; t < 1."""
        dbeta = self.schedule.dbeta(self._times(t, x_1))
        if not bool(torch.isfinite(dbeta).all()):
            hint = "keep t below 1, and above 0 where a power schedule has alpha < 1"
            raise UsageError("the jump rates are infinite at one of the times", hint)
        distances = self.distances.rows(x_1.reshape(-1)).view(*x_1.shape, -1)
        gap = (distances.gather(-1, x_t[..., None]) - distances).clamp_(min=0).to(self.dtype)
        return self.conditional_probs(x_1, t) * dbeta[..., None] * gap

    def _jump(
        self, x_t: Tensor, x_1: Tensor, span: Span, generator: Randomness, solver: str
    ) -> Tensor:
        """Codes after at most one jump each.

        The destination is drawn in proportion to the rates integrated over the step. At ``end`` = 1
        this is the limit: x_1 or one of its twins. ``euler`` takes the rates at t = 0 as zero, as
        the reference implementation does.
        """
        start, end = span
        uniform_draws = uniforms((*x_t.shape, 3), generator, x_t.device).reshape(-1, 3)
        flat_t, flat_1 = x_t.reshape(-1), x_1.reshape(-1)
        beta = self._sharpness(start, x_t).reshape(-1)
        if solver == "euler":
            rate = torch.where((start > 0) & (start < end), self.schedule.dbeta(start), 0.0)
            measure = (rate * (end - start)).reshape(-1)
            moved = self._draws.jump(flat_t, flat_1, (beta, measure), one_node, uniform_draws)
            return moved.view_as(x_t)
        beta_next = self._sharpness(end, x_t).reshape(-1)
        node_counts, moved = num_nodes(beta, beta_next), torch.empty_like(flat_t)
        for count in node_counts.unique().tolist():  # so that no position depends on another's step
            at = (node_counts == count).nonzero().squeeze(1)
            nodes_of = partial(quadrature, nodes=count)
            betas = (beta[at], beta_next[at])
            moved[at] = self._draws.jump(flat_t[at], flat_1[at], betas, nodes_of, uniform_draws[at])
        return moved.view_as(x_t)

    @property
    def table_bytes(self) -> int:
        """Bytes of the table of distances, 0 for a codebook that is too large for one."""
        return TABLE_BYTES * DistanceTable.entries(self.codebook)

    @cached_property
    def _draws(self) -> TableDraws | StreamedDraws:
        """Draws by a table for small codebooks and grids, otherwise streamed over the codes."""
        chunk_bytes = _CHUNK_BYTES["cpu" if self.codebook.device.type == "cpu" else "other"]
        table = DistanceTable.of(self.codebook)
        if table is None:
            return StreamedDraws(self.distances, chunk_bytes)
        return TableDraws(self.distances, table, chunk_bytes)

    def _sharpness(self, t: Times, x: Tensor) -> Tensor:
        """beta_t at each position, kept finite so that its product with a distance 0 is 0."""
        return self.schedule.beta(self._times(t, x)).clamp(max=_BETA_LIMIT)


def num_nodes(start: Tensor, end: Tensor) -> Tensor:
    """Nodes (n,) int64 that steps from ``start`` to ``end`` (betas) need: 2 for short ones."""
    span = torch.log1p(end) - torch.log1p(start)
    return (2 + (2.5 * (span - 0.15)).ceil()).clamp(min=2).long()


def quadrature(start: Tensor, end: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes (N, n) and weights (N, n) that integrate rates per unit of beta from start to end.

    In beta the rates don't depend on the schedule and have no singularity at t = 0. They vary over
    scales of 1 near beta = 0, as squared distances do, and over scales of beta beyond; so the rule
    is Gauss-Legendre in log(1 + beta), with more nodes for longer steps.
    """
    low = torch.log1p(start)
    span = torch.log1p(end) - low
    abscissae, weights = _gauss_legendre(nodes)
    at = torch.as_tensor(abscissae, dtype=start.dtype, device=start.device)[:, None]
    betas = torch.expm1(low + at * span)
    measure = torch.as_tensor(weights, dtype=start.dtype, device=start.device)[:, None]
    return betas, measure * span * (1 + betas)


def one_node(beta: Tensor, measure: Tensor) -> tuple[Tensor, Tensor]:
    """The rule of an Euler step: rates at one beta (n,) times a measure (n,)."""
    return beta[None], measure[None]


@lru_cache(maxsize=64)
def _gauss_legendre(num_nodes: int) -> tuple[list[float], list[float]]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
