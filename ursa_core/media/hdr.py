"""Frames of high dynamic range as displays of standard range show them."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ursa_core.media.frames import Frames

PQ, HLG = 16, 18
"""Transfers by their numbers in ITU-T H.273."""
_PQ_WHITE = 203.0
"""Light of the white of standard range in PQ, cd/m² (ITU-R BT.2408)."""
_HLG_WHITE = 0.75
"""Its signal in HLG (ITU-R BT.2408)."""
Signal = NDArray[np.float64]
_KNEE = 0.75
_POINTS = 65
# BT.2020 to BT.709, the inverse of ITU-R BT.2087.
_TO_709 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]


def to_sdr(frame: Frames, transfer: int) -> Frames:
    """A frame (H, W, 3) in BT.2020 primaries and a transfer of HDR as sRGB.

    Light up to three quarters of white stays as it is; what is brighter nears white by an
    exponential, so that it isn't cut off.
    """
    return np.asarray(Image.fromarray(frame).filter(_table(transfer)))


@cache
def _table(transfer: int) -> ImageFilter.Color3DLUT:
    axis = np.linspace(0, 1, _POINTS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    signal = np.stack([red, green, blue], -1)
    light = _pq_light(signal) if transfer == PQ else _hlg_light(signal)
    light = (light @ np.transpose(_TO_709)).clip(0)
    above = _KNEE - (1 - _KNEE) * np.expm1(-(light - _KNEE).clip(0) / (1 - _KNEE))
    light = np.where(light <= _KNEE, light, above)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return ImageFilter.Color3DLUT(_POINTS, srgb.ravel().tolist())


def _pq_light(signal: Signal) -> Signal:
    """Light, as a share of white, of a signal of SMPTE ST 2084."""
    power = signal ** (32 / 2523)
    light = (power - 3424 / 4096).clip(0) / (2413 / 128 - 2392 / 128 * power)
    return np.asarray(10000 / _PQ_WHITE * light ** (16384 / 2610))


def _hlg_light(signal: Signal) -> Signal:
    """Light, as a share of white, of a signal of HLG (ITU-R BT.2100).

    HLG is made for displays of any peak; for one of standard range its system gamma is 1.
    """
    return _hlg_scene(signal) / _hlg_scene(np.array(_HLG_WHITE))


def _hlg_scene(signal: Signal) -> Signal:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
