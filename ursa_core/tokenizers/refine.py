"""Codes that decode to a higher PSNR than the encoder's: gradient descent on the latents."""

import math

import torch
from torch import Tensor

from ursa_core.tokenizers.video_fsq import VideoTokenizer

LEARNING_RATE = 0.1
"""Of Adam's first step, in units of the latents before FSQ's bound, within about 1.5 of 0."""
LEAST_ERROR = 1e-6
"""Squared error, of pixels in [-1, 1], that none is told from: 66 dB."""


@torch.inference_mode(False)
@torch.enable_grad()
def refined_codes(tokenizer: VideoTokenizer, video: Tensor, steps: int) -> Tensor:
    """Codes of the highest PSNR, a mean over frames, that a descent through the decoder finds.

    It starts at the encoder's latents, and gradients pass straight through the rounding; the rate
    falls linearly, to nothing after the last step. The best codes seen are kept, so they are never
    worse than by ``encode``. A step takes about as long as three decodings, and the memory of
    training. Codes then depend on later frames, even those of a causal tokenizer.

    Args:
        tokenizer: its weights stay as they are.
        video: one clip, (1, 3, F, H, W) in [-1, 1].
        steps: of the descent, 0 or more.

    Returns:
        int64 (1, f, h, w).

    Raises:
        ShapeError: the pixels don't fit the strides.
    """
    with torch.no_grad():
        latents = tokenizer.latents(video)
    latents.requires_grad_(True)
    optimizer = torch.optim.Adam([latents], LEARNING_RATE)
    least, codes = math.inf, tokenizer.quantizer.quantize(latents)
    for step in range(steps + 1):
        decoded = tokenizer.reconstruct(tokenizer.quantizer.straight_through(latents))
        by_frame = (decoded.clamp(-1, 1) - video).square().mean((0, 1, 3, 4))
        error = (by_frame + LEAST_ERROR).log().mean()
        if error.item() < least:
            least, codes = error.item(), tokenizer.quantizer.quantize(latents)
        if step < steps:
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / (steps + 1))
            (latents.grad,) = torch.autograd.grad(error, latents)
            optimizer.step()
    return codes
