"""What a tokenizer keeps of videos and images, and how it uses its codes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ursa_core.evaluation.measures.fvd import I3D, MIN_FRAMES, Array, frechet_distance
from ursa_core.evaluation.measures.lpips import MIN_SIDE_PX, Lpips
from ursa_core.evaluation.measures.videos import flicker
from ursa_core.evaluation.measures.weight_files import FVD, LPIPS, WeightFile
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, to_video
from ursa_core.media.quality import psnr, ssim
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames


@dataclass(frozen=True)
class Reconstruction:
    """A clip beside what came back of it.

    Attributes:
        psnr: in dB, mean over frames.
        ssim: mean over frames.
        flicker: mean change of a pixel from frame to frame beyond the clip's own, in levels.
        lpips: mean over frames, None without its weights.
        num_codes: that it was stored in.
        num_pixels: of all its frames.
    """

    psnr: float
    ssim: float
    flicker: float
    lpips: float | None
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


class Networks:
    """The networks for LPIPS and FVD whose weights are there.

    Args:
        shape: of the clips.
        device: to run on.

    Raises:
        CheckpointError: weights are damaged, or others.
    """

    def __init__(self, shape: PixelShape, device: torch.device) -> None:
        self.notes: list[str] = []
        self.digests: dict[str, str] = {}
        self._lpips: Lpips | None = None
        self._i3d: I3D | None = None
        self._given: list[Array] = []
        self._decoded: list[Array] = []
        too_small = min(shape.height, shape.width) < MIN_SIDE_PX
        if self._is_there(LPIPS, f"{MIN_SIDE_PX} pixels a side" if too_small else ""):
            self._lpips = Lpips.load(device)
        if self._is_there(FVD, f"{MIN_FRAMES} frames" if shape.frames < MIN_FRAMES else ""):
            self._i3d = I3D.load(device)

    def _is_there(self, file: WeightFile, needs: str) -> bool:
        if needs:
            self.notes.append(f"{file.score} is not measured: it needs {needs}.")
        elif not file.path.is_file():
            self.notes.append(file.missing_note)
        else:
            self.digests[file.score] = f"{file.name}, {file.digest()}"
            return True
        return False

    def lpips(self, frames: Frames, decoded: Frames) -> float | None:
        """How different a clip looks from what came back of it."""
        return self._lpips.distance(frames, decoded) if self._lpips else None

    def add(self, frames: Frames, decoded: Frames) -> None:
        """Count a clip, and what came back of it, for the FVD."""
        if self._i3d:
            self._given.append(self._i3d.features(frames))
            self._decoded.append(self._i3d.features(decoded))

    @property
    def fvd(self) -> float | None:
        """Distance of the decoded clips from those given, None for fewer than two."""
        return frechet_distance(self._given, self._decoded) if len(self._given) > 1 else None


@torch.inference_mode()
def reconstruct(
    tokenizer: VisualTokenizer, frames: Frames, use: CodeUse, networks: Networks
) -> tuple[Reconstruction, Frames]:
    """A clip (F, H, W, 3) through the tokenizer and back.

    Its codes are counted in ``use``, and it is for the FVD of ``networks``.

    Returns:
        The figures, and the decoded clip.

    Raises:
        ShapeError: it doesn't fit, or is too small for SSIM.
    """
    device = next(tokenizer.parameters()).device
    codes = tokenizer.encode(to_video(frames).to(device))[0]
    use.add(codes)
    decoded = decode_frames(tokenizer, codes)
    networks.add(frames, decoded)
    found = Reconstruction(
        psnr(decoded, frames),
        ssim(decoded, frames),
        flicker(decoded) - flicker(frames),
        networks.lpips(frames, decoded),
        codes.numel(),
        frames[..., 0].size,
    )
    return found, decoded


def bits_per_pixel(found: list[Reconstruction], num_codes: int) -> float:
    """Bits that the codes take, each log2 of the codebook's size, for a pixel of the clips."""
    codes = sum(each.num_codes for each in found)
    return codes * float(np.log2(num_codes)) / sum(each.num_pixels for each in found)
