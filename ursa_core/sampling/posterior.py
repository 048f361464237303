"""Draws of x_1 from the network's posterior, in chunks of positions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ursa_core.errors import CheckpointError
from ursa_core.path.draws import Randomness, chunks, exp2_, pick, precise_dtype, uniforms

Head = Callable[[Tensor], Tensor]
"""Hidden states (n, D) float32 to logits (n, K)."""

_CHUNK_BYTES = {"cpu": 2 << 20, "other": 64 << 20}
_HEAD_ROWS = 64
"""Smallest chunk of positions; below this, reading the head's weights dominates the time."""


def draw_codes(
    head: Head,
    hidden: Tensor,
    num_codes: int,
    generator: Randomness,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    log_probs: Tensor | None = None,
) -> Tensor:
    """Codes (B, L) int64 drawn from the posterior by the hidden states (B, L, D).

    The logits of all positions never exist at once: head and draw run over chunks. Where each item
    has a generator a chunk is of one item, so that its products have the same shapes in any batch.

    The temperature divides the logits; 0 takes the likeliest code. ``top_p`` is the probability
    that the likeliest codes, which alone are drawn, reach together. ``log_probs`` (B, L) float32 is
    filled with those of the codes in the posterior itself, before temperature and top_p.

    Infinite logits are a `CheckpointError`.
    """
    shape = hidden.shape[:2]
    codes = hidden.new_empty(shape, dtype=torch.int64)
    noise = uniforms(shape, generator, hidden.device).reshape(-1)
    states = hidden.reshape(-1, hidden.shape[-1])
    chunk_bytes = _CHUNK_BYTES["cpu" if hidden.device.type == "cpu" else "other"]
    head_bytes = max(chunk_bytes, 4 * num_codes * _HEAD_ROWS)
    together = states.shape[0] if isinstance(generator, torch.Generator) else shape[1]
    for first in range(0, states.shape[0], together):
        for outer in chunks(together, num_codes, head_bytes):
            start = first + outer.start
            head_logits = head(states[start : first + outer.stop].float())
            for inner in chunks(head_logits.shape[0], num_codes, chunk_bytes):
                logits = head_logits[inner]
                rows = slice(start + inner.start, start + inner.stop)
                drawn = pick(posterior_weights(logits, temperature, top_p), noise[rows])
                codes.view(-1)[rows] = drawn
                if log_probs is not None:
                    weights = posterior_weights(logits)
                    chosen = weights.gather(1, drawn[:, None])[:, 0]
                    log_probs.view(-1)[rows] = (chosen / weights.sum(-1)).log()
    return codes


def posterior_weights(
    posterior_logits: Tensor, temperature: float = 1.0, top_p: float = 1.0
) -> Tensor:
    """Unnormalised probabilities (n, K) float32, 1 at the likeliest; errors as ``draw_codes``."""
    logits = posterior_logits.float()
    peak = logits.amax(-1, keepdim=True)
    if not bool(torch.isfinite(peak).all()):
        hint = "check the model's weights, or use float32 if they overflow in a shorter type"
        raise CheckpointError("the network's logits aren't finite", hint)
    if temperature == 0:
        return (logits == peak).float()
    weights = exp2_((logits - peak).mul_(math.log2(math.e) / temperature))
    return weights if top_p == 1 else _nucleus(weights, top_p)


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The weights of the fewest likeliest codes that reach ``top_p`` of the sum, the rest 0."""
    ordered, index = weights.sort(dim=-1, descending=True, stable=True)
    running = ordered.cumsum(-1, dtype=precise_dtype(weights.device))
    before = running - ordered
    kept = torch.where(before < top_p * running[:, -1:], ordered, 0.0)
    return torch.zeros_like(weights).scatter_(1, index, kept)
