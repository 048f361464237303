"""Cross-entropy under a linear head, one chunk of positions at a time.

All logits would take most of a training step's memory: 10,080 positions of 64,000 codes are 2.6 GB.
Each chunk's gradient is computed while its logits exist.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Bytes of a chunk's logits by kind of device: small next to the rest, and a good load.
CHUNK_BYTES = {"cpu": 8_000_000, "other": 256_000_000}


def chunked_cross_entropy(
    hidden: Tensor, head: Tensor, x_1: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of codes under ``hidden @ head.T`` in nats: the mean, and of each position.

    ``hidden`` is float (N, D), ``head`` (K, D), ``x_1`` int64 (N,), and ``weights`` float (N,) or
    None for equal ones; if all are 0, so are loss and gradients. Products have autocast's number
    format if it is on; everything else is at least float32. The mean has exact gradients for
    ``hidden`` and ``head``, for one backward pass.
    """
    device = hidden.device.type
    is_cast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_cast else head.dtype
    budget = CHUNK_BYTES["cpu" if device == "cpu" else "other"]
    chunks = -(-len(hidden) // max(budget // (4 * len(head)), 1))
    rows = -(-len(hidden) // chunks)
    apply: Any = _ChunkedCrossEntropy.apply
    loss, each = apply(hidden, head, x_1, weights, rows, dtype)
    return loss, each


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        x_1: Tensor,
        weights: Tensor | None,
        rows: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        to_hidden, to_head = ctx.needs_input_grad[:2]
        wide = torch.promote_types(dtype, torch.float32)
        matrix = head.to(dtype)
        each = hidden.new_empty(len(hidden), dtype=wide)
        hidden_gradient = torch.empty_like(hidden) if to_hidden else None
        head_gradient = torch.zeros_like(head, dtype=wide) if to_head else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                part = slice(start, start + rows)
                states, codes = hidden[part].to(dtype), x_1[part, None]
                log_probs = torch.log_softmax((states @ matrix.T).to(wide), 1)
                each[part] = -log_probs.gather(1, codes)[:, 0]
                if not (to_hidden or to_head):
                    continue
                slope = log_probs.exp_()
                slope.scatter_add_(1, codes, slope.new_full(codes.shape, -1.0))
                if weights is not None:
                    slope *= weights[part, None]
                slope = slope.to(dtype)
                if hidden_gradient is not None:
                    hidden_gradient[part] = slope @ matrix
                if head_gradient is not None and dtype == wide:
                    head_gradient.addmm_(slope.T, states)
                elif head_gradient is not None:
                    head_gradient += slope.T @ states
        total = each.new_tensor(len(each))
        if weights is not None:
            total = weights.sum()
            total = total.masked_fill(total == 0, 1.0)
        ctx.gradients = hidden_gradient, head_gradient
        ctx.total, ctx.head_dtype = total, head.dtype
        ctx.mark_non_differentiable(each)
        return (each if weights is None else each * weights).sum() / total, each

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients of the forward pass, in place: they aren't needed again."""
        hidden_gradient, head_gradient = ctx.gradients
        del ctx.gradients
        scale = slope / ctx.total
        if hidden_gradient is not None:
            hidden_gradient *= scale
        if head_gradient is not None:
            head_gradient = head_gradient.mul_(scale).to(ctx.head_dtype)
        return hidden_gradient, head_gradient, None, None, None, None
