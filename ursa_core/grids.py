"""Pixel shapes and latent grids, the only place that divides pixels by strides; and bounds.

Bounds that several rooms share say how much is computed at once, and what a path can be.
"""

from dataclasses import dataclass

from ursa_core.errors import ShapeError

MAX_TABLE_ENTRIES = 1 << 27
"""Largest table of distances: (classes × codes) entries of two bytes each."""
TABLE_BYTES = 3
"""Bytes of that table per entry, with what its classes hold beside."""
MLP_ROWS = 4096
"""Positions per pass through a network's MLP."""
SLICE_PIXELS = 1 << 21
"""Pixels decoded at once, or those of one latent frame if there are more."""
ALPHA_RANGE = (0.01, 100.0)
C_RANGE = (1e-4, 1e4)
"""Ranges of a path's alpha and c, where its sharpness stays finite in all that is computed."""


@dataclass(frozen=True)
class LatentGrid:
    """Shape of a clip in codes: latent frames, rows, columns."""

    frames: int
    rows: int
    columns: int

    @property
    def num_codes(self) -> int:
        """Codes of the whole clip."""
        return self.frames * self.rows * self.columns

    @property
    def codes_per_frame(self) -> int:
        """Codes of one latent frame."""
        return self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.frames}×{self.rows}×{self.columns}"


@dataclass(frozen=True)
class PixelShape:
    """Shape of a clip in pixels: frames, height, width."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}×{self.height}×{self.width}"


@dataclass(frozen=True)
class Strides:
    """Pixels per grid cell of a causal tokenizer: 1 + temporal·k frames make 1 + k latent ones."""

    temporal: int
    spatial: int

    def grid(self, shape: PixelShape) -> LatentGrid:
        """Latent grid of a pixel shape; a ShapeError names the nearest sizes that fit."""
        if shape.frames < 1 or (shape.frames - 1) % self.temporal:
            fault = f"{shape.frames} frames don't fit a temporal stride of {self.temporal}"
            raise ShapeError(fault, f"use {_nearest(shape.frames, 1, self.temporal)} frames")
        for name, size in (("height", shape.height), ("width", shape.width)):
            if size < 1 or size % self.spatial:
                raise ShapeError(
                    f"a {name} of {size} pixels doesn't fit a spatial stride of {self.spatial}",
                    f"use a {name} of {_nearest(size, self.spatial, self.spatial)}",
                )
        return LatentGrid(
            (shape.frames - 1) // self.temporal + 1,
            shape.height // self.spatial,
            shape.width // self.spatial,
        )

    def pixels(self, grid: LatentGrid) -> PixelShape:
        """Pixel shape that a latent grid decodes to."""
        return PixelShape(
            (grid.frames - 1) * self.temporal + 1,
            grid.rows * self.spatial,
            grid.columns * self.spatial,
        )


def _nearest(size: int, least: int, step: int) -> str:
    below = size - (size - least) % step
    return str(least) if size < least else f"{below} or {below + step}"
