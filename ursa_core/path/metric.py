"""The metric path: codes move towards x_1 through codes ever nearer to it."""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.base import Path, Times
from ursa_core.path.codebook import CodebookDistances
from ursa_core.path.draws import Randomness, chunks, exp2_, pick, uniform_codes, uniforms

_BETA_LIMIT = 1e12
"""Stands for the infinite beta of t = 1: only x_1 and its twins have a probability left."""

_CHUNK_BYTES = {"cpu": 2 << 20, "other": 64 << 20}
"""Bytes of one (positions, codes) tensor; on a CPU the few that live at once stay in its cache."""


class MetricPath(Path):
    """p_t(x | x_1) = softmax over x of −beta_t·d(x, x_1), beta_t = c·(t/(1 − t))^alpha.

    d is the squared Euclidean distance between L2-normalised codebook vectors. The chain is the
    kinetic-optimal one, with rates p_t(x | x_1)·dbeta_t·relu(d(x_t, x_1) − d(x, x_1)).

    Args:
        codebook: (K, C) float vectors of the codes; float64 makes all results float64.
        alpha: exponent of the sharpness, above 0.
        c: factor of the sharpness, above 0.
        chunk_bytes: memory of one (positions, K) tensor; results don't depend on it.

    Raises:
        UsageError: the codebook isn't a finite matrix, or alpha or c isn't positive.
    """

    def __init__(
        self, codebook: Tensor, alpha: float, c: float, chunk_bytes: int | None = None
    ) -> None:
        for name, value in (("alpha", alpha), ("c", c)):
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} = {value:g} can't shape a path", "use a number above 0")
        self.codebook = codebook
        self.alpha = alpha
        self.c = c
        self.distances = CodebookDistances(codebook)
        self.dtype = self.distances.dtype
        self.num_codes = self.num_states = self.distances.num_codes
        self._given_chunk_bytes = chunk_bytes
        kind = "cpu" if codebook.device.type == "cpu" else "other"
        self._chunk_bytes = chunk_bytes or _CHUNK_BYTES[kind]

    def to(self, device: torch.device | str) -> "MetricPath":
        """The same path with its tensors on a device."""
        return MetricPath(self.codebook.to(device), self.alpha, self.c, self._given_chunk_bytes)

    def beta_t(self, t: Tensor) -> Tensor:
        """Sharpness at t: 0 at 0, infinite at 1."""
        return self.c * (t / (1 - t)) ** self.alpha

    def dbeta_t(self, t: Tensor) -> Tensor:
        """Derivative of the sharpness in t; infinite at 1, and at 0 where alpha < 1."""
        return self.c * self.alpha * t ** (self.alpha - 1) / (1 - t) ** (self.alpha + 1)

    def initial(
        self, shape: Sequence[int], generator: Randomness, device: torch.device | str = "cpu"
    ) -> Tensor:
        """x_0: int64 codes, each equally likely."""
        return uniform_codes(shape, self.num_codes, generator, device)

    def corrupt(self, x_1: Tensor, t: Times, generator: Randomness) -> Tensor:
        """x_t drawn from p_t(x | x_1): int64, the shape of ``x_1``."""
        beta = self._sharpness(t, x_1).reshape(-1)
        codes = x_1.reshape(-1)
        noise = uniforms(x_1.shape, generator, x_1.device).reshape(-1)
        x_t = torch.empty_like(codes)
        for rows in self._chunks(codes.numel()):
            weights = _boltzmann(self.distances.rows(codes[rows]), beta[rows])
            x_t[rows] = pick(weights, noise[rows])
        return x_t.view_as(x_1)

    def conditional_probs(self, x_1: Tensor, t: Times) -> Tensor:
        """p_t(x | x_1) of every code: (..., K), rows sum to 1."""
        beta = self._sharpness(t, x_1).reshape(-1)
        weights = _boltzmann(self.distances.rows(x_1.reshape(-1)), beta)
        return (weights / weights.sum(-1, keepdim=True)).view(*x_1.shape, self.num_codes)

    def jump_rates(self, x_t: Tensor, x_1: Tensor, t: Times) -> Tensor:
        """Rates per unit of t from x_t towards x_1: (..., K), 0 at x_t and farther codes; t < 1.

        Raises:
            UsageError: t is 1, or 0 with alpha below 1, where they are infinite.
        """
        dbeta = self.dbeta_t(self._times(t, x_1))
        if not bool(torch.isfinite(dbeta).all()):
            raise UsageError(
                "the jump rates are infinite at one of the times",
                "keep t below 1, and above 0 where alpha < 1",
            )
        gap = _gap(self.distances.rows(x_1.reshape(-1)), x_t.reshape(-1))
        return self.conditional_probs(x_1, t) * dbeta[..., None] * gap.view(*x_1.shape, -1)

    def step(
        self,
        x_t: Tensor,
        x_1: Tensor,
        t: Times,
        t_next: Times,
        generator: Randomness,
        solver: str = "integrated",
    ) -> Tensor:
        """Codes at ``t_next``, given x_t and a drawn x_1: int64, by at most one jump a position.

        The destination is drawn in proportion to the rates, integrated over the step as their sum
        is. At ``t_next`` = 1 this is the limit: x_1 or one of its twins. ``euler`` takes the rates
        at t = 0 as zero, as the reference implementation does.

        Raises:
            UsageError: an unknown solver, or times outside [0, 1] or in the wrong order.
        """
        start, end = self._interval(t, t_next, x_t, solver)
        if solver == "euler":
            nodes = self._sharpness(start, x_t).reshape(1, -1)
            rate = torch.where((start > 0) & (start < end), self.dbeta_t(start), 0.0)
            measures = (rate * (end - start)).reshape(1, -1)
        else:
            nodes, measures = quadrature(
                self._sharpness(start, x_t).reshape(-1), self._sharpness(end, x_t).reshape(-1)
            )
        noise = uniforms((*x_t.shape, 3), generator, x_t.device).reshape(-1, 3)
        codes, targets = x_t.reshape(-1), x_1.reshape(-1)
        moved = torch.empty_like(codes)
        for rows in self._chunks(codes.numel()):
            moved[rows] = self._jump(
                codes[rows], targets[rows], nodes[:, rows], measures[:, rows], noise[rows]
            )
        return moved.view_as(x_t)

    def _jump(
        self, x_t: Tensor, x_1: Tensor, nodes: Tensor, measures: Tensor, noise: Tensor
    ) -> Tensor:
        """One jump or none a position, by rates at ``nodes`` (betas) weighted with ``measures``."""
        distances = self.distances.rows(x_1)
        gap = _gap(distances, x_t)
        # A jump belongs to one node; drawing the node first, in proportion to its share of the
        # total, and then the destination at that node is a draw from the sum over the nodes.
        shares = torch.stack([_rate(distances, gap, beta) for beta in nodes], dim=1) * measures.T
        jumps = (noise[:, 0] < -torch.expm1(-shares.sum(1))).nonzero().squeeze(1)
        if jumps.numel() == 0:
            return x_t
        node = pick(shares[jumps], noise[jumps, 1])
        beta = nodes.T[jumps].gather(1, node[:, None]).squeeze(1)
        weights = _boltzmann(distances[jumps], beta).mul_(gap[jumps])
        return x_t.index_copy(0, jumps, pick(weights, noise[jumps, 2]))

    def _sharpness(self, t: Times, x: Tensor) -> Tensor:
        """beta_t at each position, kept finite so that its product with a distance 0 is 0."""
        return self.beta_t(self._times(t, x)).clamp(max=_BETA_LIMIT)

    def _chunks(self, num_positions: int) -> Iterator[slice]:
        return chunks(num_positions, self.num_codes, self._chunk_bytes)


def _boltzmann(distances: Tensor, beta: Tensor) -> Tensor:
    """exp(−beta·d): (n, K), 1 at x_1, so no row's sum underflows."""
    return exp2_(distances * (beta * -math.log2(math.e))[:, None])


def _gap(distances: Tensor, x_t: Tensor) -> Tensor:
    """How much nearer to x_1 than x_t each code is, 0 where it isn't: (n, K)."""
    return (distances.gather(1, x_t[:, None]) - distances).clamp_(min=0)


def _rate(distances: Tensor, gap: Tensor, beta: Tensor) -> Tensor:
    """Total jump rate per unit of beta: (n,)."""
    weights = _boltzmann(distances, beta)
    total = weights.sum(-1)
    return weights.mul_(gap).sum(-1) / total


def quadrature(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes (J, n) and weights (J, n) that integrate rates per unit of beta from start to end.

    In beta the rates don't depend on the schedule and have no singularity at t = 0. They vary over
    scales of 1 near beta = 0, as squared distances do, and over scales of beta beyond; so the rule
    is Gauss-Legendre in log(1 + beta), with more nodes for longer steps.
    """
    low = torch.log1p(start)
    span = torch.log1p(end) - low
    abscissae, weights = _gauss_legendre(max(2, 2 + math.ceil(2.5 * (float(span.max()) - 0.15))))
    at = torch.as_tensor(abscissae, dtype=start.dtype, device=start.device)[:, None]
    nodes = torch.expm1(low + at * span)
    measure = torch.as_tensor(weights, dtype=start.dtype, device=start.device)[:, None]
    return nodes, measure * span * (1 + nodes)


@functools.lru_cache(maxsize=64)
def _gauss_legendre(num_nodes: int) -> tuple[list[float], list[float]]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
