"""Similarity of two clips, pixel by pixel: PSNR and SSIM."""

import itertools

import numpy as np
from numpy.typing import NDArray

from ursa_core.errors import ShapeError

MAX_PSNR = 100.0
"""Decibels of a frame without any difference, so that it leaves the mean of a film finite."""

_WINDOW = 11


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in decibels, 0 to 100: mean of frames uint8 (F, H, W, 3); ShapeError if they differ."""
    _check(a, b)
    values = []
    for x, y in zip(a, b, strict=True):
        error = float(np.square(x.astype(np.float64) - y).mean())
        decibels = 10 * np.log10(255.0**2 / error) if error else MAX_PSNR
        values.append(min(float(decibels), MAX_PSNR))
    return float(np.mean(values))


def changes(frames: NDArray[np.uint8]) -> list[float]:
    """Mean absolute change from each frame (F, H, W, 3) to the next, in levels of 255."""
    pairs = itertools.pairwise(frames.astype(np.int16))
    return [float(np.abs(later - earlier).mean()) for earlier, later in pairs]


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity, at most 1: the mean over frames, uint8 (F, H, W, 3), and windows.

    Windows are Gaussian, 11×11 with sigma 1.5, one around each pixel, the frame mirrored at its
    border; the constants are (0.01·255)² and (0.03·255)² (Wang et al., 2004; by torchmetrics).
    Shapes that differ, or are smaller than the window, are a ShapeError.
    """
    _check(a, b)
    if min(a.shape[1:3]) < _WINDOW:
        hint = f"compare frames of at least {_WINDOW}x{_WINDOW} pixels"
        raise ShapeError(f"frames of {a.shape[1]}x{a.shape[2]} are too small for SSIM", hint)
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = []
    for x, y in zip(a, b, strict=True):
        # One frame at a time: the windows of a film would take a multiple of its memory.
        first, second = (
            torch.tensor(each, dtype=torch.float64).permute(2, 0, 1)[None] for each in (x, y)
        )
        found = structural_similarity_index_measure(
            first, second, kernel_size=_WINDOW, sigma=1.5, data_range=255.0
        )
        assert isinstance(found, torch.Tensor)
        values.append(float(found))
    return float(np.mean(values))


def _check(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
    if a.shape != b.shape:
        raise ShapeError(f"clips of {a.shape} and {b.shape} can't be compared", "make them equal")
