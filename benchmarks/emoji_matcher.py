"""Which emoji a clip shows, over which background, and how much it moves, read from its pixels.

The nearest of all reference loops, at any phase, by the colours and the form of the foreground over
time; position and size are taken out first. No network and no knowledge of the prompt. Colours are
kept apart from those of the renderer, so that a fault there can't excuse itself here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ursa_core.errors import ShapeError

Array = NDArray[np.float32]

BACKGROUNDS = {
    "black": (20, 20, 24),
    "white": (245, 245, 245),
    "gray": (140, 144, 150),
    "red": (205, 55, 55),
    "orange": (242, 140, 50),
    "yellow": (250, 220, 90),
    "green": (84, 170, 98),
    "teal": (30, 145, 150),
    "blue": (66, 120, 220),
    "navy": (28, 38, 92),
    "purple": (124, 77, 196),
    "pink": (245, 160, 195),
}
NOTHING = "nothing"
GRID = 20
"""Pixels of the normalised figure, to a side."""
REACH = 2.3
"""Half the normalised square's side, in standard deviations of the foreground's place."""
FAINT, SURE = 18.0, 48.0
"""RGB distances from the ground at which foreground begins to count, and counts whole."""
MIN_SHARE = 0.004
"""Least share of a frame that is a figure."""


@dataclass(frozen=True)
class Match:
    """What a clip shows.

    Attributes:
        subject: name of the nearest reference, or ``nothing``.
        background: name of the nearest colour.
        background_error: RGB distance to it, in [0, 442].
        error: root mean square difference from the reference over the normalised figure, RGB.
        second_error: that of the nearest other subject.
        motion: mean absolute change a frame over the normalised figure, RGB.
        reference_motion: the same of the nearest reference.
    """

    subject: str
    background: str
    background_error: float
    error: float = 0.0
    second_error: float = 0.0
    motion: float = 0.0
    reference_motion: float = 0.0


@dataclass(frozen=True)
class _Figures:
    """Normalised figures of loops over one ground.

    Attributes:
        pixels: float32 (N, GRID·GRID·3), centred frame by frame.
        motion: mean change a frame of each subject, centred once for all its frames.
    """

    pixels: Array
    motion: Array

    @cached_property
    def squares(self) -> Array:
        """Squared norm of each figure."""
        return np.asarray((self.pixels**2).sum(1))


class EmojiMatcher:
    """Names the emoji of clips.

    Args:
        names: of the references.
        loops: of each its frames, uint8 (F, S, S, 4), RGBA.
    """

    def __init__(self, names: Sequence[str], loops: Sequence[NDArray[np.uint8]]) -> None:
        self.names, self._loops = list(names), loops
        self._starts = np.cumsum([0, *(len(loop) for loop in loops)])
        self._by_ground: dict[str, _Figures] = {}

    def match(self, frames: NDArray[np.uint8]) -> Match:
        """What a clip uint8 (F, H, W, 3), RGB, shows.

        Raises:
            ShapeError: the array isn't such a clip of at least 16×16 pixels.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise ShapeError(
                f"an array of {frames.dtype} and shape {frames.shape} is no clip",
                "give uint8 frames of shape (frames, height, width, 3)",
            )
        if not len(frames) or min(frames.shape[1:3]) < 16:
            raise ShapeError(
                f"{frames.shape[0]} frames of {frames.shape[1]}x{frames.shape[2]} pixels are too "
                "little to match",
                "give at least one frame of 16x16 pixels",
            )
        ground = _ground(frames)
        background, background_error = _nearest_colour(ground)
        found = _normalise(frames, ground, BACKGROUNDS[background])
        if found is None:
            return Match(NOTHING, background, background_error)
        pixels, motion = found
        figures = self._figures(background)
        distances = (pixels**2).sum(1)[:, None] - 2 * pixels @ figures.pixels.T + figures.squares
        errors = np.array(
            [self._best_phase(distances, number) for number in range(len(self.names))]
        )
        order = np.argsort(errors)
        best = int(order[0])
        rms = np.sqrt(np.maximum(errors[order[:2]], 0) / pixels.shape[1])
        return Match(
            self.names[best],
            background,
            background_error,
            float(rms[0]),
            float(rms[-1]),
            motion,
            float(figures.motion[best]),
        )

    def motion_of(self, name: str, background: str) -> float:
        """Mean absolute change a frame of a reference, as in ``Match.motion``."""
        return float(self._figures(background).motion[self.names.index(name)])

    def _best_phase(self, distances: Array, number: int) -> float:
        """Least mean squared difference of a clip from a loop, over all phases."""
        inside = distances[:, self._starts[number] : self._starts[number + 1]]
        count = inside.shape[1]
        times = np.arange(len(inside))
        phases = (np.arange(count)[:, None] + times) % count
        return float(inside[times, phases].mean(1).min())

    def _figures(self, background: str) -> _Figures:
        """The references over one ground, made when it first comes up."""
        if background not in self._by_ground:
            ground = np.array(BACKGROUNDS[background], np.float32)
            pixels: list[Array] = []
            motion: list[float] = []
            for loop in self._loops:
                cover = loop[..., 3:].astype(np.float32) / 255
                over = (ground + (loop[..., :3] - ground) * cover + 0.5).astype(np.uint8)
                found = _normalise(over, ground, BACKGROUNDS[background])
                empty = np.zeros((len(loop), GRID * GRID * 3), np.float32), 0.0
                figures, change = found or empty
                pixels.append(figures)
                motion.append(change)
            self._by_ground[background] = _Figures(
                np.concatenate(pixels), np.array(motion, np.float32)
            )
        return self._by_ground[background]


def _ground(frames: NDArray[np.uint8]) -> Array:
    """Median RGB of the outermost two pixels over all frames."""
    rows = frames[:, [0, 1, -2, -1]].reshape(-1, 3)
    columns = frames[:, :, [0, 1, -2, -1]].reshape(-1, 3)
    return np.asarray(np.median(np.concatenate([rows, columns]), axis=0), np.float32)


def _nearest_colour(rgb: Array) -> tuple[str, float]:
    distances = np.linalg.norm(np.array(list(BACKGROUNDS.values())) - rgb, axis=1)
    place = int(distances.argmin())
    return list(BACKGROUNDS)[place], float(distances[place])


def _normalise(
    frames: NDArray[np.uint8], ground: Array, fill: tuple[int, int, int]
) -> tuple[Array, float] | None:
    """Figures as float32 (F, GRID·GRID·3) less the ground, and their motion; None without any.

    Each frame is centred by itself for the figures; for the motion all share one centre, so that
    the way of the whole figure counts.
    """
    height, width = frames.shape[1:3]
    distance = np.sqrt(((frames.astype(np.float32) - ground) ** 2).sum(-1))
    weight = np.clip((distance - FAINT) / (SURE - FAINT), 0, 1)
    mass = weight.sum((1, 2))
    if np.median(mass) < MIN_SHARE * height * width:
        return None
    mass = np.maximum(mass, 1e-3)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    across, down = weight.sum(1), weight.sum(2)
    centre_x, centre_y = across @ x / mass, down @ y / mass
    spread = (across @ x**2 / mass - centre_x**2) + (down @ y**2 / mass - centre_y**2)
    half = REACH * float(np.sqrt(np.median(spread) / 2))
    pad = int(np.ceil(2 * half)) + 2
    padded = np.empty((len(frames), height + 2 * pad, width + 2 * pad, 3), np.uint8)
    padded[:] = fill
    padded[:, pad : pad + height, pad : pad + width] = frames
    middle = float(np.median(centre_x)), float(np.median(centre_y))
    own = [
        _cut(frame, (float(cx) + pad, float(cy) + pad), half)
        for frame, cx, cy in zip(padded, centre_x, centre_y, strict=True)
    ]
    shared = np.stack([_cut(frame, (middle[0] + pad, middle[1] + pad), half) for frame in padded])
    motion = float(np.abs(np.diff(shared, axis=0)).mean()) if len(frames) > 1 else 0.0
    base = np.array(fill, np.float32)
    return (np.stack(own) - base).reshape(len(frames), -1), motion


def _cut(frame: NDArray[np.uint8], centre: tuple[float, float], half: float) -> Array:
    """The square around a centre, scaled to GRID pixels."""
    limit_y, limit_x = frame.shape[0], frame.shape[1]
    x = min(max(centre[0], half), limit_x - half)
    y = min(max(centre[1], half), limit_y - half)
    box = (x - half, y - half, x + half, y + half)
    scaled = Image.fromarray(frame).resize((GRID, GRID), Image.Resampling.BILINEAR, box)
    return np.asarray(scaled, np.float32)
