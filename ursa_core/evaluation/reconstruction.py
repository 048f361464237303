"""What a tokenizer keeps of videos and images, and how it uses its codes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ursa_core.evaluation.image_metrics import psnr, ssim
from ursa_core.evaluation.video_figures import flicker
from ursa_core.media import Frames, to_video
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames


@dataclass(frozen=True)
class Reconstruction:
    """A clip beside what came back of it.

    Attributes:
        psnr: in dB, mean over frames.
        ssim: mean over frames.
        flicker: mean change of a pixel from frame to frame beyond the clip's own, in levels.
        num_codes: that it was stored in.
        num_pixels: of all its frames.
    """

    psnr: float
    ssim: float
    flicker: float
    num_codes: int
    num_pixels: int


class CodeUse:
    """How often each code of a codebook occurs."""

    def __init__(self, num_codes: int) -> None:
        self.counts = torch.zeros(num_codes, dtype=torch.int64)

    def add(self, codes: Tensor) -> None:
        """Count codes int64 of any shape."""
        self.counts += torch.bincount(codes.flatten().cpu(), minlength=len(self.counts))

    @property
    def used(self) -> float:
        """Share of the codes that occur at all."""
        return float((self.counts > 0).double().mean())

    @property
    def perplexity(self) -> float:
        """Codes that would tell as much if all occurred alike: exp of the entropy."""
        share = self.counts[self.counts > 0].double() / self.counts.sum()
        return float(torch.exp(-(share * share.log()).sum()))

    @property
    def entropy_bits(self) -> float:
        """Bits that a code takes at least, coded by how often each occurs."""
        return float(np.log2(self.perplexity))


@torch.inference_mode()
def reconstruct(
    tokenizer: VisualTokenizer, frames: Frames, use: CodeUse
) -> tuple[Reconstruction, Frames]:
    """A clip (F, H, W, 3) through the tokenizer and back; its codes are counted in ``use``.

    Returns:
        The figures, and the decoded clip.

    Raises:
        ShapeError: it doesn't fit, or is too small for SSIM.
    """
    device = next(tokenizer.parameters()).device
    codes = tokenizer.encode(to_video(frames).to(device))[0]
    use.add(codes)
    decoded = decode_frames(tokenizer, codes)
    found = Reconstruction(
        psnr(decoded, frames),
        ssim(decoded, frames),
        flicker(decoded) - flicker(frames),
        codes.numel(),
        frames[..., 0].size,
    )
    return found, decoded


def bits_per_pixel(found: list[Reconstruction], num_codes: int) -> float:
    """Bits that the codes take, each log2 of the codebook's size, for a pixel of the clips."""
    codes = sum(each.num_codes for each in found)
    return codes * float(np.log2(num_codes)) / sum(each.num_pixels for each in found)
