"""Codes that decode to a higher PSNR than the encoder's: gradient descent on the latents."""

import torch
from torch import Tensor

from ursa_core.tokenizers.video_fsq import VideoTokenizer

LEARNING_RATE = 0.1  # Adam's first, in units of the latents before FSQ's bound, about ±1.5
SHARPNESS = (2.0, 64.0)  # of the soft rounding, in the first and the last step
LEAST_ERROR = 1e-6  # squared error of pixels in [-1, 1] that counts as none: 66 dB


@torch.inference_mode(False)
@torch.enable_grad()
def refined_codes(tokenizer: VideoTokenizer, video: Tensor, steps: int) -> Tensor:
    """Codes int64 (1, f, h, w) of the highest PSNR that a descent through the decoder finds.

    It starts at the encoder's latents of a clip (1, 3, F, H, W) in [-1, 1], and rounds them softly,
    ever more sharply (Agustsson and Theis 2020), while the rate falls linearly to zero; if that
    doesn't help, the codes are those of ``encode``. They depend on later frames, even those of a
    causal tokenizer. A step takes about three decodings.
    """
    quantizer = tokenizer.quantizer
    with torch.no_grad():
        latents = tokenizer.latents(video)
    encoded = quantizer.quantize(latents)
    if steps == 0:
        return encoded
    latents.requires_grad_(True)
    optimizer = torch.optim.Adam([latents], LEARNING_RATE)
    first, last = SHARPNESS
    for step in range(steps):
        sharpness = first * (last / first) ** (step / max(steps - 1, 1))
        error = _error(tokenizer, quantizer.soft(latents, sharpness), video)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
        (latents.grad,) = torch.autograd.grad(error, latents)
        optimizer.step()
    with torch.no_grad():
        found = (encoded, quantizer.quantize(latents))
        return min(found, key=lambda c: _error(tokenizer, quantizer.vectors(c), video).item())


def _error(tokenizer: VideoTokenizer, vectors: Tensor, video: Tensor) -> Tensor:
    """Mean over frames of the logarithm of their squared error."""
    error = tokenizer.reconstruct(vectors).clamp(-1, 1) - video
    return (error.square().mean((0, 1, 3, 4)) + LEAST_ERROR).log().mean()
