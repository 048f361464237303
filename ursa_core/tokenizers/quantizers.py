"""Quantizers: finite scalar (a code is a row of small integers) and learned (a row of a table)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ursa_core.errors import ShapeError
from ursa_core.grids import PixelShape, Strides

_PRODUCTS = 1 << 24  # of latents and codes, held at once: 64 MB of float32


class FiniteScalarQuantizer(nn.Module):
    """Rounds each channel to one of a few levels; a code is the mixed-radix number of its digits.

    The first level is the fastest digit of a code; each is at least 2. Source: Mentzer et al. 2024;
    the bound and the digit order are those of the published checkpoints.
    """

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        self.num_codes = math.prod(levels)
        # On the CPU even where a checkpoint's model is built on the meta device, without values.
        sizes = torch.tensor(levels, dtype=torch.int64, device="cpu")
        radix = torch.cumprod(torch.tensor([1, *levels[:-1]], device="cpu"), 0)
        # A little over half the range, so that the outermost levels are reached in finite z.
        half_range = (sizes - 1) * 1.001 / 2
        offset = torch.where(sizes % 2 == 0, 0.5, 0.0)
        self.sizes = nn.Buffer(sizes, persistent=False)
        self.radix = nn.Buffer(radix, persistent=False)
        self.centre = nn.Buffer(sizes // 2, persistent=False)
        self.half_range = nn.Buffer(half_range, persistent=False)
        self.offset = nn.Buffer(offset, persistent=False)
        self.z_shift = nn.Buffer(torch.atanh(offset / half_range), persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """Squash ``z`` (..., C) into the range of the digits, centred on 0."""
        return torch.tanh(z + self.z_shift) * self.half_range - self.offset

    def quantize(self, z: Tensor) -> Tensor:
        """Codes (...) int64 of latents ``z`` (..., C)."""
        digits = self.bound(z.float()).round().long() + self.centre
        return (digits * self.radix).sum(-1)

    def vectors(self, codes: Tensor) -> Tensor:
        """Code vectors (..., C) float32 in about [-1, 1] of codes (...) int64."""
        digits = codes.unsqueeze(-1).div(self.radix, rounding_mode="floor") % self.sizes
        return (digits - self.centre).float() / self.centre

    def straight_through(self, z: Tensor) -> Tensor:
        """Code vectors (..., C) of latents ``z``, with the gradient of the bound alone."""
        bounded = self.bound(z.float())
        return (bounded + (bounded.round() - bounded).detach()) / self.centre

    def soft(self, z: Tensor, sharpness: float) -> Tensor:
        """Vectors (..., C) of latents ``z`` that near code vectors as ``sharpness`` grows from 0.

        Between two levels it is a hyperbolic tangent, so that the gradient knows of the rounding
        to come. Source: Agustsson and Theis 2020.
        """
        bounded = self.bound(z.float())
        below = bounded.detach().floor().maximum(-self.centre)
        middle = below.minimum(self.sizes - 2 - self.centre) + 0.5
        step = torch.tanh(sharpness * (bounded - middle)) / math.tanh(sharpness / 2) / 2
        return (middle + step) / self.centre

    @property
    def codebook(self) -> Tensor:
        """Vectors of all codes, (K, C) float32."""
        return self.vectors(torch.arange(self.num_codes, device=self.radix.device))


class VectorQuantizer(nn.Module):
    """Picks the code whose learned vector, one of K of width C, has the largest dot product."""

    def __init__(self, num_codes: int, width: int) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.embedding = nn.Embedding(num_codes, width)

    def quantize(self, z: Tensor) -> Tensor:
        """Codes (...) int64 of latents ``z`` (..., C), the first of equals; in blocks."""
        blocks = z.reshape(-1, z.shape[-1]).split(max(1, _PRODUCTS // self.num_codes))
        nearest = [(block @ self.embedding.weight.T).argmax(1) for block in blocks]
        return torch.cat(nearest).view(z.shape[:-1])

    def vectors(self, codes: Tensor) -> Tensor:
        """Code vectors (..., C) of codes (...) int64."""
        return self.embedding(codes)

    @property
    def codebook(self) -> Tensor:
        """Vectors of all codes, (K, C), without gradient."""
        return self.embedding.weight.detach()


class PixelTokenizer(nn.Module):
    """What tokenizers of videos and of images share; its kind sets both attributes."""

    config: Any
    quantizer: FiniteScalarQuantizer | VectorQuantizer

    @property
    def strides(self) -> Strides:
        """Pixels per code."""
        return Strides(self.config.temporal_stride, self.config.spatial_stride)

    @property
    def codebook(self) -> Tensor:
        """Vectors of all codes, (K, C) float32."""
        return self.quantizer.codebook

    def check_pixels(self, video: Tensor, name: str) -> None:
        """Raise ShapeError for a tensor that isn't (B, 3, F, H, W), or doesn't fit the strides."""
        if video.ndim != 5 or video.shape[1] != 3:
            raise ShapeError(
                f"{name} tensor of shape {tuple(video.shape)} can't be encoded",
                "give (batch, 3, frames, height, width), 1 frame for an image",
            )
        self.strides.grid(PixelShape(*video.shape[2:]))
