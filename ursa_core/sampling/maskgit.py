"""The MaskGIT sampler of the masked path: the most confident codes come first."""

import math

import torch
from torch import Tensor

from ursa_core.path.draws import Randomness, uniforms
from ursa_core.path.masked import MaskedPath

CHOICE_TEMPERATURE = 4.5
"""Temperature of the choice of positions; at 0 the most confident come first."""


def revealed(
    path: MaskedPath, x_t: Tensor, codes: Tensor, log_probs: Tensor, num_masks: Tensor, t: float,
    generators: Randomness,
) -> Tensor:  # fmt: skip
    """Codes (B, L) int64 after a step that ends at ``t``, with some more masks revealed.

    The share cos(π·t/2) of the ``num_masks`` (B,) of the start is left, none at 1, and at least one
    is revealed: those with the largest log-probability (B, L) of their code, drawn in ``codes``,
    plus Gumbel noise times ``CHOICE_TEMPERATURE``·(1 − t).
    """
    masked = x_t == path.mask_id
    noise = uniforms(x_t.shape, generators, x_t.device).clamp(min=1e-12)
    gumbel = -torch.log(-torch.log(noise))
    score = log_probs + CHOICE_TEMPERATURE * (1 - t) * gumbel
    left = (num_masks * (math.cos(math.pi / 2 * t) if t < 1 else 0.0)).floor().long()
    reveal = (masked.sum(-1) - left).clamp(min=1)
    # Positions without a mask rank last, so that ranks below `reveal` are masks.
    score = score.masked_fill(~masked, -math.inf)
    rank = score.argsort(stable=True, dim=-1, descending=True).argsort(-1)
    return torch.where(masked & (rank < reveal[:, None]), codes, x_t)
