"""The MaskGIT sampler of the masked path: the most confident codes come first."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.draws import Randomness, uniforms
from ursa_core.path.masked import MaskedPath
from ursa_core.sampling.posterior import Head, draw_scored_codes


def maskgit(
    hidden_at: Callable[[Tensor, Tensor], Tensor],
    head: Head,
    path: MaskedPath,
    x_t: Tensor,
    times: Tensor,
    generators: Randomness,
    *,
    temperature: float = 1.0,
    top_p: float | None = None,
    choice_temperature: float = 4.5,
    on_step: Callable[[int, Tensor], None] | None = None,
    on_estimate: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Codes (B, L) int64 with every mask of ``x_t`` revealed, each once.

    After a step that ends at t, the share cos(π·t/2) of the masks is left, and at least one was
    revealed: those with the largest log-probability of the code drawn plus Gumbel noise times
    ``choice_temperature``·(1 − t). It ends early when no mask is left.

    Args, besides those of ``denoise``:
        hidden_at: Codes x_t and time t to hidden states (B, L, D), guidance included.
        x_t: Codes, int64 (B, L); those that aren't the mask stay.
        times: Time grid (N + 1,), rising to 1.
        choice_temperature: Temperature of the choice of positions; 0 takes the most confident.

    Raises:
        UsageError: Positions have times of their own, or the draws refuse a value.
    """
    if times.ndim != 1:
        raise UsageError(
            "MaskGIT can't give each frame a time of its own",
            "use one time for the clip, or the integrated solver",
        )
    num_masks = (x_t == path.mask_id).sum(-1)
    for step, (t, t_next) in enumerate(itertools.pairwise(times), start=1):
        masked = x_t == path.mask_id
        if not bool(masked.any()):
            break
        hidden = hidden_at(x_t, t)
        codes, log_probs = draw_scored_codes(
            head, hidden, path.num_codes, generators, temperature=temperature, top_p=top_p
        )
        noise = uniforms(x_t.shape, generators, x_t.device).clamp(min=1e-12)
        gumbel = -torch.log(-torch.log(noise))
        score = log_probs + choice_temperature * (1 - float(t_next)) * gumbel
        left = _masks_left(float(t_next), num_masks)
        reveal = (masked.sum(-1) - left).clamp(min=1)
        # Positions without a mask rank last, so that ranks below `reveal` are masks.
        score = score.masked_fill(~masked, -math.inf)
        order = score.argsort(stable=True, dim=-1, descending=True)
        rank = order.argsort(-1)
        x_t = torch.where(masked & (rank < reveal[:, None]), codes, x_t)
        if on_estimate:
            on_estimate(step, torch.where(masked, codes, x_t))
        if on_step:
            on_step(step, x_t)
    return x_t


def _masks_left(t: float, num_masks: Tensor) -> Tensor:
    """Masks left at t by the cosine schedule: int64, none at 1."""
    if t == 1:
        return torch.zeros_like(num_masks)
    return (num_masks * math.cos(math.pi / 2 * t)).floor().long()
