"""Integration of jump rates over a step, in beta instead of in time."""

import functools

import numpy as np
import torch
from torch import Tensor


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


@functools.lru_cache(maxsize=64)
def _gauss_legendre(num_nodes: int) -> tuple[list[float], list[float]]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
