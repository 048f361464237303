"""Similarity of two clips, and of neighbouring frames, pixel by pixel."""

import itertools

import numpy as np
from numpy.typing import NDArray

from ursa_core.errors import ShapeError

MAX_PSNR = 100.0
"""Decibels of a frame without any difference, so that it leaves the mean of a film finite."""


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in decibels, 0 to 100: mean of frames uint8 (F, H, W, 3); ShapeError if they differ."""
    check_shapes(a, b)
    values = []
    for x, y in zip(a, b, strict=True):
        error = float(np.square(x.astype(np.float64) - y).mean())
        decibels = 10 * np.log10(255.0**2 / error) if error else MAX_PSNR
        values.append(min(float(decibels), MAX_PSNR))
    return float(np.mean(values))


def flicker(frames: NDArray[np.uint8]) -> float:
    """Mean absolute change of a pixel from frame to frame (F, H, W, 3), in levels of 255."""
    pairs = itertools.pairwise(frames.astype(np.int16))
    steps = [float(np.abs(later - earlier).mean()) for earlier, later in pairs]
    return float(np.mean(steps)) if steps else 0.0


def check_shapes(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
    """Refuse clips of different shapes; raises `ShapeError`."""
    if a.shape != b.shape:
        raise ShapeError(f"clips of {a.shape} and {b.shape} can't be compared", "make them equal")
