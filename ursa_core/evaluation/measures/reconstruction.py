"""What a tokenizer keeps of videos and images, and how it uses its codes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ursa_core import __version__
from ursa_core.evaluation.measures.clips import Clips
from ursa_core.evaluation.measures.fvd import I3D, MIN_FRAMES, Array, frechet_distance
from ursa_core.evaluation.measures.lpips import MIN_SIDE_PX, Lpips
from ursa_core.evaluation.measures.videos import flicker
from ursa_core.evaluation.measures.weight_files import FVD, LPIPS, WeightFile
from ursa_core.evaluation.reports.report import Report, Sample, Score
from ursa_core.files import make_folder
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, contact_sheet, to_video, write_media
from ursa_core.media.quality import psnr, ssim
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames

_UNITS = {"psnr": "dB", "ssim": "", "flicker": "levels", "lpips": ""}


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
        """Number of codes that are as uncertain if all are as frequent: exp of the entropy."""
        share = self.counts[self.counts > 0].double() / self.counts.sum()
        return float(torch.exp(-(share * share.log()).sum()))


class Networks:
    """The networks for LPIPS and FVD whose weights are there.

    Args:
        shape: Shape of the clips.
        device: Device to run on.

    Raises:
        CheckpointError: Weights are damaged, or others.
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
            self.digests[file.score] = file.label
            return True
        return False

    def lpips(self, frames: Frames, decoded: Frames) -> float | None:
        """How different a clip looks from its reconstruction."""
        return self._lpips.distance(frames, decoded) if self._lpips else None

    def add(self, frames: Frames, decoded: Frames) -> None:
        """Count a clip and its reconstruction for the FVD."""
        if self._i3d:
            self._given.append(self._i3d.features(frames))
            self._decoded.append(self._i3d.features(decoded))

    @property
    def fvd(self) -> float | None:
        """Distance of the decoded clips from the given ones, None for fewer than two."""
        return frechet_distance(self._given, self._decoded) if len(self._given) > 1 else None


@torch.inference_mode()
def report(
    tokenizer: VisualTokenizer, clips: Clips, folder: Path, settings: Mapping[str, Any]
) -> Report:
    """What the tokenizer keeps of some clips.

    Args:
        tokenizer: Tokenizer to measure.
        clips: Clips to encode and decode.
        folder: Folder for pictures of each clip above its reconstruction.
        settings: What the clips and the tokenizer are.

    Raises:
        CheckpointError: Weights of LPIPS or FVD are damaged, or others.
        DataError: No clip could be used, or the folder can't be written.
        ShapeError: The clips are too small for SSIM.
    """
    device = next(tokenizer.parameters()).device
    networks, use = Networks(clips.cut.shape, device), CodeUse(len(tokenizer.codebook))
    samples, num_pixels = [], 0
    make_folder(folder)
    for index, (name, frames) in enumerate(clips):
        codes = tokenizer.encode(to_video(frames).to(device))[0]
        use.add(codes)
        decoded = decode_frames(tokenizer, codes)
        networks.add(frames, decoded)
        num_pixels += frames[..., 0].size
        values = {
            "psnr": psnr(decoded, frames),
            "ssim": ssim(decoded, frames),
            "flicker": flicker(decoded) - flicker(frames),
        }
        lpips = networks.lpips(frames, decoded)
        values |= {} if lpips is None else {"lpips": lpips}
        file = f"{index:05d}.png"
        sheet = contact_sheet([frames, decoded], columns=1)
        write_media(folder / file, sheet[None], 1.0, {"clip": name})
        caption = f"{name}: {values['psnr']:.2f} dB, SSIM {values['ssim']:.3f}"
        samples.append(Sample(file, caption, values, values["psnr"]))
    scores = [Score.mean_of(name, samples, unit) for name, unit in _UNITS.items() if name in values]
    fvd = networks.fvd
    scores += [] if fvd is None else [Score("fvd", fvd, num=len(samples))]
    num_codes = int(use.counts.sum())
    bits_per_code = float(np.log2(len(use.counts)))
    bits = num_codes * bits_per_code / num_pixels
    entropy = bits * float(np.log2(use.perplexity)) / bits_per_code
    scores += [
        Score("codes used", use.used, unit="share", num=num_codes),
        Score("perplexity", use.perplexity, unit=f"of {len(use.counts)} codes"),
        Score("bits per pixel", bits, unit="bits"),
        Score("entropy per pixel", entropy, unit="bits"),
    ]
    per_clip = {"pixels_per_clip": frames[..., 0].size, "codes_per_clip": codes.numel()}
    notes = (
        "flicker: change from frame to frame beyond that of the clips themselves.",
        f"Bits per pixel: {bits_per_code:.2f} bits for each code.",
        "Entropy per pixel: what codes take at least, by how often each occurs.",
        *networks.notes,
        *clips.notes,
    )
    return Report(
        "reconstruction",
        {**settings, **per_clip, "ursa": __version__, **networks.digests},
        not clips.left_out,
        scores,
        samples=samples,
        notes=notes,
    )
