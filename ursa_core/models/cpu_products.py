"""Attention and norms as a CPU does them fastest without gradients; elsewhere PyTorch's own.

PyTorch's fused attention multiplies 16-bit numbers on a CPU at less than half the rate of plain
products, and its root mean square norm takes several passes. Both are tested equal to these.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

SCORE_BYTES = 1 << 19
"""Size of the attention scores held at once: they stay in the cache, in memory mapped once."""
SCORE_ROWS = 64
"""Smallest number of queries per product."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of all positions to all: (B, N, S, E) in the dtype of the queries.

    Queries are (B, N, S, E), keys and values (B, G, S, E): head n reads group n·G // N.
    """
    heads, groups, width = q.shape[1], k.shape[1], q.shape[-1]
    if not _plain_cpu(q) or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=groups != heads)
    queries = q.reshape(-1, heads // groups * q.shape[2], width)
    keys = k.reshape(-1, *k.shape[2:]).transpose(1, 2)
    values = v.reshape(-1, *v.shape[2:])
    rows = max(SCORE_ROWS, SCORE_BYTES // (len(keys) * keys.shape[2] * q.element_size()))
    y = torch.empty_like(queries)
    for part, into in zip(queries.split(rows, 1), y.split(rows, 1), strict=True):
        scores = torch.baddbmm(q.new_empty(1, 1, 1), part, keys, beta=0, alpha=width**-0.5)
        into.copy_(torch.bmm(scores.softmax(-1), values))
    return y.view(q.shape)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise x (..., D): over its root mean square, computed in float32, times the gain (D,)."""
    if not _plain_cpu(x):
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)
    wide = x.to(torch.float32, copy=True)
    mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    return wide.mul_(mean.add_(eps).rsqrt_()).mul_(weight.float()).to(x.dtype)


def _plain_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_grad_enabled()
