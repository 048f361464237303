"""Codes that decode to a higher PSNR than the encoder's: gradient descent on the latents."""

import torch
from torch import Tensor

from ursa_core.tokenizers.video_fsq import VideoTokenizer

LEARNING_RATE = 0.05
"""Of Adam, in units of the latents before FSQ's bound, which lie within about 1.5 of 0."""
LEAST_ERROR = 1e-6
"""Squared error, of pixels in [-1, 1], that none is told from: 66 dB."""


@torch.inference_mode(False)
@torch.enable_grad()
def refined_codes(tokenizer: VideoTokenizer, video: Tensor, steps: int) -> Tensor:
    """Codes of the highest PSNR, a mean over frames, that a descent through the decoder finds.

    It starts at the encoder's latents, and gradients pass straight through the rounding. Each clip
    keeps the best codes seen, so none is worse than by ``encode``. A step takes about as long as
    three decodings, and the memory of training. Codes then depend on later frames, even those of a
    causal tokenizer.

    Args:
        tokenizer: its weights stay as they are.
        video: (B, 3, F, H, W) in [-1, 1].
        steps: of the descent, 0 or more.

    Returns:
        int64 (B, f, h, w).

    Raises:
        ShapeError: the pixels don't fit the strides.
    """
    with torch.no_grad():
        latents = tokenizer.latents(video)
    latents.requires_grad_(True)
    optimizer = torch.optim.Adam([latents], LEARNING_RATE)
    codes = tokenizer.quantizer.quantize(latents)
    least = torch.full((len(video),), torch.inf, device=video.device)
    for step in range(steps + 1):
        decoded = tokenizer.reconstruct(tokenizer.quantizer.straight_through(latents))
        by_frame = (decoded.clamp(-1, 1) - video).square().mean((1, 3, 4))
        errors = (by_frame + LEAST_ERROR).log().mean(1)
        with torch.no_grad():
            better = errors < least
            codes[better] = tokenizer.quantizer.quantize(latents[better])
            least = torch.where(better, errors, least)
        if step < steps:
            (latents.grad,) = torch.autograd.grad(errors.sum(), latents)
            optimizer.step()
    return codes
