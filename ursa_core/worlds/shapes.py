"""A procedural world of captioned clips: one flat shape that moves, grows, spins or rests.

``a {colour} {shape} {motion} on a {background} background``, 8 frames per second. (seed, index,
split) determines a clip, so a data set is a range of indices. One combination of colour, shape and
motion in five is held out of training, over all backgrounds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ursa_core.errors import UsageError

Array = NDArray[np.float32]
Frames = NDArray[np.uint8]

COLOURS = {
    "red": (220, 40, 40), "green": (40, 180, 70), "blue": (50, 90, 220), "yellow": (240, 210, 50),
    "purple": (150, 60, 190), "orange": (245, 140, 40), "white": (240, 240, 240),
    "cyan": (60, 200, 210),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "ring", "star")
MOVES = {"moves right": (1, 0), "moves left": (-1, 0), "moves up": (0, -1), "moves down": (0, 1)}
MOTIONS = (*MOVES, "stays still", "grows", "shrinks", "spins")
BACKGROUNDS = {
    "black": (15, 15, 20), "gray": (120, 120, 125), "navy": (20, 25, 70), "brown": (95, 65, 40),
}  # fmt: skip
FPS = 8.0
SPLITS = ("train", "heldout", "all")


@dataclass(frozen=True)
class ClipSpec:
    """Everything that decides a clip; lengths are shares of the shorter side, angles radians."""

    colour: str
    shape: str
    motion: str
    background: str
    centre: tuple[tuple[float, float], tuple[float, float]]  # in the first and the last frame
    radius: tuple[float, float]  # of both, geometric between them, so that growth looks even
    angle: tuple[float, float]


def caption(colour: str, shape: str, motion: str, background: str) -> str:
    """``a {colour} {shape} {motion} on a {background} background``."""
    return f"a {colour} {shape} {motion} on a {background} background"


def is_held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether a combination is held out of training."""
    place = list(COLOURS).index(colour) + 2 * SHAPES.index(shape) + 3 * MOTIONS.index(motion)
    return place % 5 == 0


def check_split(split: str, splits: Sequence[str], world: str) -> None:
    """Refuse a split that a world doesn't have; raises `UsageError`."""
    if split not in splits:
        hint = f"use one of {', '.join(splits)}"
        raise UsageError(f"there is no split {split!r} of the {world}", hint)


@cache
def combinations(split: str = "all") -> tuple[tuple[str, str, str], ...]:
    """All (colour, shape, motion) of a split that pixels can distinguish."""
    return tuple(
        (colour, shape, motion)
        for colour in COLOURS
        for shape in SHAPES
        for motion in MOTIONS
        if not (motion == "spins" and shape in ("circle", "ring"))
        and (split == "all" or is_held_out(colour, shape, motion) == (split == "heldout"))
    )


def sample_spec(
    rng: np.random.Generator, colour: str, shape: str, motion: str, background: str
) -> ClipSpec:
    """A clip of the given attributes, with random size, place, speed and phase."""
    start = end = rng.uniform(0.12, 0.18)
    if motion in ("grows", "shrinks"):
        small = rng.uniform(0.085, 0.11)
        large = small * rng.uniform(2.0, 2.4)
        start, end = (small, large) if motion == "grows" else (large, small)
    tilt = rng.uniform(-0.2, 0.2)
    turn = 0.0
    if motion == "spins":
        tilt = rng.uniform(0, 2 * np.pi)
        turn = rng.uniform(np.pi / 2, np.pi) * rng.choice([-1, 1])
    margin = REACH[shape] * max(start, end) + 0.02
    place = rng.uniform(margin, 1 - margin, 2)
    ends = np.stack([place, place])
    if motion in MOVES:
        direction = MOVES[motion]
        axis = 0 if direction[0] else 1
        room = 1 - 2 * margin
        travel = rng.uniform(max(0.28, room * 0.45), room)
        low = margin + rng.uniform(0, room - travel)
        ends[:, axis] = (low, low + travel)[:: direction[axis]]
    (x, y), (end_x, end_y) = ends.tolist()
    centre = ((x, y), (end_x, end_y))
    radius, angle = (float(start), float(end)), (float(tilt), float(tilt + turn))
    return ClipSpec(colour, shape, motion, background, centre, radius, angle)


def _star_distance(x: Array, y: Array) -> Array:
    """Distance beyond the edges of a five-pointed star that points up."""
    outer, inner, sector = 1.25, 0.55, 2 * np.pi / 5
    angle = np.arctan2(x, -y)
    folded = np.abs(angle - sector * np.round(angle / sector))
    reach = np.hypot(x, y)
    px, py = reach * np.cos(folded), reach * np.sin(folded)
    ix, iy = inner * np.cos(sector / 2), inner * np.sin(sector / 2)
    normal = np.array([iy, outer - ix]) / np.hypot(iy, outer - ix)
    return np.asarray((px - outer) * normal[0] + py * normal[1], np.float32)


REACH = {"circle": 1.0, "square": 1.2, "triangle": 1.3, "ring": 1.0, "star": 1.25}
"""Largest extent of each shape from its centre, in radii."""


def _triangle_distance(x: Array, y: Array) -> Array:
    # Normals point away from the middle of each edge; the first edge lies opposite the tip.
    angle, sector = np.arctan2(x, y), 2 * np.pi / 3
    folded = angle - sector * np.round(angle / sector)
    return np.hypot(x, y) * np.cos(folded) - np.float32(0.65)


OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - np.float32(0.85),
    "triangle": _triangle_distance,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.74) - np.float32(0.26),
    "star": _star_distance,
}
"""Signed distance to each outline, negative inside, in radii; y points down.

A shape that is added here and to ``REACH`` can be drawn, and is in no split.
"""


def render(spec: ClipSpec, height: int, width: int, progress: NDArray[np.float64]) -> Frames:
    """Draw a clip, uint8 (F, height, width, 3), at ``progress`` (F,) of the motion, in [0, 1]."""
    side = min(height, width)
    p = progress.astype(np.float32)[:, None, None]
    start, end = np.array(spec.centre, np.float32)
    radius = np.float32(spec.radius[0]) * np.float32(spec.radius[1] / spec.radius[0]) ** p * side
    angle = np.float32(spec.angle[0]) + np.float32(spec.angle[1] - spec.angle[0]) * p
    centre_x, centre_y = (start[k] + (end[k] - start[k]) * p for k in (0, 1))
    half = np.float32(0.5)
    x = np.arange(width, dtype=np.float32) + half - centre_x * width
    y = np.arange(height, dtype=np.float32)[:, None] + half - centre_y * height
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    distance = OUTLINES[spec.shape](x * cos + y * sin, y * cos - x * sin) * radius
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    back = np.array(BACKGROUNDS[spec.background], np.float32)
    front = np.array(COLOURS[spec.colour], np.float32)
    return np.asarray(back + (front - back) * cover + 0.5, np.uint8)


def training_clip(
    seed: int, index: int, split: str, frames: int, height: int, width: int,
    full_frames: int | None = None,
) -> tuple[Frames, str]:  # fmt: skip
    """Clip ``index`` of an endless data set, uint8 (frames, height, width, 3), and its caption.

    ``split`` is ``train``, ``heldout`` or ``all``. ``full_frames`` is the length of the whole
    motion, from which a window is cut at random; the default is ``frames``, all of it.
    """
    check_split(split, SPLITS, "shapes")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    choices = combinations(split)
    colour, shape, motion = choices[rng.integers(len(choices))]
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    spec = sample_spec(rng, colour, shape, motion, background)
    full = full_frames or frames
    first = rng.integers(full - frames + 1)
    progress = (first + np.arange(frames)) / max(full - 1, 1)
    return render(spec, height, width, progress), caption(colour, shape, motion, background)
