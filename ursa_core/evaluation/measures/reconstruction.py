"""What a tokenizer keeps of videos and images, and how it uses its codes."""

from pathlib import Path

import numpy as np
import torch

from ursa_core import __version__
from ursa_core.encoding.items import Clips
from ursa_core.evaluation.measures.networks import Networks
from ursa_core.evaluation.reports.report import Options, Report, Sample, Score
from ursa_core.files import make_folder
from ursa_core.media import contact_sheet, to_video, write_media
from ursa_core.media.quality import flicker, psnr
from ursa_core.media.ssim import ssim
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames

_UNITS = {"psnr": "dB", "ssim": "", "flicker": "levels", "lpips": ""}


@torch.inference_mode()
def report(tokenizer: VisualTokenizer, clips: Clips, folder: Path, settings: Options) -> Report:
    """What the tokenizer keeps of some clips, each above its reconstruction in ``folder``.

    Raises `CheckpointError` for other weights of LPIPS or FVD, `DataError` where no clip can be
    used, `ShapeError` where they are too small for SSIM.
    """
    device = next(tokenizer.parameters()).device
    networks = Networks(clips.cut.shape, device)
    counts = torch.zeros(len(tokenizer.codebook), dtype=torch.int64)
    samples, num_pixels = [], 0
    make_folder(folder)
    for index, (name, frames) in enumerate(clips):
        codes = tokenizer.encode(to_video(frames).to(device))[0]
        counts += torch.bincount(codes.flatten().cpu(), minlength=len(counts))
        decoded = decode_frames(tokenizer, codes)
        num_pixels += frames[..., 0].size
        values = {
            "psnr": psnr(decoded, frames),
            "ssim": ssim(decoded, frames),
            "flicker": flicker(decoded) - flicker(frames),
            **networks.measure(frames, decoded),
        }
        file = f"{index:05d}.png"
        sheet = contact_sheet([frames, decoded], columns=1)
        write_media(folder / file, sheet[None], 1.0, {"clip": name})
        caption = f"{name}: {values['psnr']:.2f} dB, SSIM {values['ssim']:.3f}"
        samples.append(Sample(file, caption, values, values["psnr"]))
    scores = [Score.mean_of(name, samples, unit) for name, unit in _UNITS.items() if name in values]
    fvd = networks.fvd
    scores += [] if fvd is None else [Score("fvd", fvd, num=len(samples))]
    num_codes = int(counts.sum())
    share = counts[counts > 0].double() / num_codes
    # Perplexity: the number of codes that are as uncertain if all are as frequent.
    perplexity = float(torch.exp(-(share * share.log()).sum()))
    bits_per_code = float(np.log2(len(counts)))
    bits = num_codes * bits_per_code / num_pixels
    entropy = bits * float(np.log2(perplexity)) / bits_per_code
    scores += [
        Score("codes used", float((counts > 0).double().mean()), unit="share", num=num_codes),
        Score("perplexity", perplexity, unit=f"of {len(counts)} codes"),
        Score("bits per pixel", bits, unit="bits"),
        Score("entropy per pixel", entropy, unit="bits"),
    ]
    notes = (
        "flicker: change from frame to frame beyond that of the clips themselves.",
        f"Bits per pixel: {bits_per_code:.2f} bits for each code.",
        "Entropy per pixel: what codes take at least, by how often each occurs.",
        *networks.notes,
        *clips.notes,
    )
    per_clip = {"pixels_per_clip": frames[..., 0].size, "codes_per_clip": codes.numel()}
    settings = {**settings, **per_clip, "ursa": __version__, **networks.digests}
    return Report("reconstruction", settings, not clips.left_out, scores, (), samples, notes)
