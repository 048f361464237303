"""What a procedural clip shows, read from its pixels: background, colour, shape, motion.

Plain image analysis with no network and no knowledge of the prompt. Names and colours are the
world's; it shares no other code with the renderer, so that a fault there doesn't hide itself here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ursa_core.errors import ShapeError
from ursa_core.media.frames import check_frames
from ursa_core.worlds.shapes import BACKGROUNDS, COLOURS

Array = NDArray[np.float64]

SYMMETRY = {"square": 4, "triangle": 3, "star": 5}
"""Turns by a full circle over this many look the same; a circle and a ring show no turn at all."""
NOTHING = "nothing"  # colour, shape and motion of a clip without an object
# The smallest motions of the world: a quarter of the width, twice the radius, a quarter turn.
# A motion counts from half of its smallest size on; where several do, the largest in this
# measure names the clip.
SMALLEST_SHIFT, SMALLEST_GROWTH, SMALLEST_TURN = 0.25, float(np.log(4.0)), float(np.pi / 2)
LEAST_MOTION = 0.5
MIN_CONTRAST = 25.0  # in RGB, of object and background; tokenizer and codec noise stay below
MIN_AREA_PX = 12.0
RADII = (np.arange(22) + 0.5) * 0.08
ANGLES = np.arange(90) * (2 * np.pi / 90)
TEMPLATE_SIZES = (5.0, 6.0, 7.5, 9.0, 11.0, 14.0, 18.0)
EDGE_PX = 1.6  # width of a template's soft edge: anti-aliasing and some blur of the codec


@dataclass(frozen=True)
class Verdict:
    """What a clip shows, named as in captions or ``nothing``, and the measurements behind it."""

    background: str
    colour: str = NOTHING
    shape: str = NOTHING
    motion: str = NOTHING
    background_error: float = 0.0  # RGB distance to the named colour, in [0, 442]
    colour_error: float = 0.0  # to the named colour, too
    shape_error: float = 0.0  # share of the object that disagrees with the named shape, from 0
    shift: tuple[float, float] = (0.0, 0.0)  # to the right and down, in shares of the size
    area_ratio: float = 1.0  # area in the last frame over that in the first
    turn_degrees: float = 0.0  # rotation from first to last frame, clockwise; 0 for circle and ring


@dataclass(frozen=True)
class _Track:
    """The object where it shows: frame numbers (n,), centres x, y (n, 2), areas (n,)."""

    frames: NDArray[np.intp]
    centres: Array
    areas: Array

    def travel(self, values: Array, num_frames: int) -> Array:
        """Change of ``values`` (n, ...) from first to last frame of the clip, by a straight fit."""
        times = self.frames - self.frames.mean()
        slope = np.tensordot(times, values, 1) / max(float(times @ times), 1.0)
        return np.asarray(slope * (num_frames - 1))


@dataclass(frozen=True)
class Measurements:
    """What a clip shows, in numbers: colours as RGB, and errors and turns of every shape."""

    ground: Array
    colour: Array | None = None  # none where nothing stands out
    errors: Mapping[str, float] = field(default_factory=dict)
    worst: Mapping[str, float] = field(default_factory=dict)  # errors of a shape's worst frame
    shift: tuple[float, float] = (0.0, 0.0)
    growth: float = 0.0  # logarithm of the last area over the first
    turns: Mapping[str, float] = field(default_factory=dict)  # radians from first to last frame


def judge(frames: NDArray[np.uint8]) -> Verdict:
    """What a clip shows, uint8 (F, H, W, 3), RGB, at least 16×16 pixels; otherwise `ShapeError`."""
    return verdict(measure(frames))


def verdict(seen: Measurements) -> Verdict:
    """What measurements amount to."""
    background, background_error = _nearest(seen.ground, BACKGROUNDS)
    if seen.colour is None:
        return Verdict(background, background_error=background_error)
    colour, colour_error = _nearest(seen.colour, COLOURS)
    shape = min(seen.errors, key=lambda name: seen.errors[name])
    turn = seen.turns.get(shape, 0.0)
    sizes = motion_sizes(seen.shift, seen.growth, turn)
    largest = max(sizes, key=lambda name: sizes[name])
    motion = largest if sizes[largest] >= LEAST_MOTION else "stays still"
    return Verdict(
        background, colour, shape, motion, background_error, colour_error, seen.errors[shape],
        seen.shift, float(np.exp(seen.growth)), float(np.degrees(turn)),
    )  # fmt: skip


def measure(frames: NDArray[np.uint8]) -> Measurements:
    """Measurements of a clip, which raise as ``judge``."""
    check_frames(frames)
    num_frames, height, width = frames.shape[:3]
    if num_frames < 1 or min(height, width) < 16:
        fault = f"{num_frames} frames of {height}x{width} pixels are too little to judge"
        raise ShapeError(fault, "give at least one frame of 16x16 pixels")
    pixels = frames.astype(np.float64)
    # The object seldom reaches the outermost two pixels.
    border = pixels[:, [0, 1, -2, -1]], pixels[:, :, [0, 1, -2, -1]]
    ground = np.median(np.concatenate([each.reshape(-1, 3) for each in border]), axis=0)
    colour = _object_colour(pixels, ground)
    if colour is None:
        return Measurements(ground)
    direction = colour - ground
    cover = (pixels - ground) @ (direction / (direction @ direction))
    track = _follow(cover)
    if track is None:
        return Measurements(ground)
    profiles = _polar_profiles(cover, track)
    across, down = (track.travel(track.centres, num_frames) / (width, height)).tolist()
    growth = float(track.travel(np.log(track.areas), num_frames))
    mass = profiles @ (RADII**3)  # far from the centre it carries the corners
    spectrum = np.fft.rfft(mass, axis=1)
    # Followed beyond one symmetry of the shape.
    turns = {
        shape: float(track.travel(np.unwrap(-np.angle(spectrum[:, order])) / order, num_frames))
        for shape, order in SYMMETRY.items()
    }
    errors, worst = _shape_errors(profiles, track, height, width)
    return Measurements(ground, colour, errors, worst, (across, down), growth, turns)


def motion_sizes(shift: tuple[float, float], growth: float, turn: float) -> dict[str, float]:
    """Sizes of the motions along the larger axis, in size and in angle, 1 being the smallest."""
    across, down = shift
    sideways = abs(across) >= abs(down)
    along = across if sideways else down
    ways = ("moves right", "moves left") if sideways else ("moves down", "moves up")
    return {
        ways[0 if along > 0 else 1]: abs(along) / SMALLEST_SHIFT,
        "grows" if growth > 0 else "shrinks": abs(growth) / SMALLEST_GROWTH,
        "spins": abs(turn) / SMALLEST_TURN,
    }


def _nearest(rgb: Array, named: dict[str, tuple[int, int, int]]) -> tuple[str, float]:
    distances = np.linalg.norm(np.array(list(named.values())) - rgb, axis=1)
    return list(named)[distances.argmin()], float(distances.min())


def _object_colour(pixels: Array, ground: Array) -> Array | None:
    """Mean RGB of the pixels most surely inside the object, None where nothing stands out."""
    distance = np.sqrt(((pixels - ground) ** 2).sum(-1)).ravel()
    # The smallest object covers two percent of a frame, half of that well inside its outline.
    count = max(distance.size // 150, 8)
    inside = np.argpartition(distance, -count)[-count:]
    strongest = np.median(distance[inside])
    if strongest < MIN_CONTRAST:
        return None
    candidates = pixels.reshape(-1, 3)[distance > 0.85 * strongest]
    return np.asarray(np.median(candidates, axis=0))


def _follow(cover: Array) -> _Track | None:
    """Centre and area of the object in each frame, None if too few frames show one."""
    height, width = cover.shape[1:]
    x = np.arange(width, dtype=np.float64) + 0.5
    y = np.arange(height, dtype=np.float64)[:, None] + 0.5
    found = []
    for number, frame in enumerate(cover):
        # First what is surely inside; then, near it, all coverage, whose noise averages out.
        centre = _moments((frame > 0.5).astype(np.float64), x, y)
        if centre is None:
            continue
        reach = 2.0 * np.sqrt(centre[2] / np.pi) + 2.0
        near = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < reach**2
        centre = _moments(np.clip(frame, -0.3, 1.3) * near, x, y)
        if centre is not None:
            found.append((number, *centre))
    if len(found) < max(1, cover.shape[0] // 2):
        return None
    table = np.array(found)
    return _Track(table[:, 0].astype(np.intp), table[:, 1:3], table[:, 3])


def _moments(weight: Array, x: Array, y: Array) -> tuple[float, float, float] | None:
    area = float(weight.sum())
    if area < MIN_AREA_PX:
        return None
    return float((weight * x).sum() / area), float((weight * y).sum() / area), area


def _polar_profiles(cover: Array, track: _Track) -> Array:
    """Coverage around the centre in units of the radius of a disc of equal area, (n, A, R)."""
    height, width = cover.shape[1:]
    unit = np.sqrt(track.areas / np.pi)[:, None, None]
    x = track.centres[:, 0, None, None] + unit * RADII * np.cos(ANGLES)[:, None] - 0.5
    y = track.centres[:, 1, None, None] + unit * RADII * np.sin(ANGLES)[:, None] - 0.5
    seen = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right_share, low_share = x - left, y - top
    number = track.frames[:, None, None]
    upper, lower = (
        cover[number, row, left] * (1 - right_share) + cover[number, row, left + 1] * right_share
        for row in (top, top + 1)
    )
    return np.asarray(np.clip(upper * (1 - low_share) + lower * low_share, 0, 1) * seen)


def _star(along: Array, across: Array) -> Array:
    # The edge from a tip at (1.25, 0) to the notch half a sector further.
    edge = np.array([0.55 * np.cos(np.pi / 5) - 1.25, 0.55 * np.sin(np.pi / 5)])
    edge /= np.linalg.norm(edge)
    return np.asarray((along - 1.25) * edge[1] - across * edge[0])


OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda along, across: np.hypot(along, across) - 1,
    "square": lambda along, _: along - 1,
    "triangle": lambda along, _: along - 1,
    "ring": lambda along, across: np.abs(np.hypot(along, across) - 0.74) - 0.26,
    "star": _star,
}
"""Signed distance to each outline in any unit of its own, negative inside, by place.

Places are along the middle of a sector of the shape's symmetry, and across it from 0 on. A shape
that is added here, and to ``SYMMETRY`` where it shows turns, is judged too.
"""


def _distance(shape: str, radius: Array, angle: Array) -> Array:
    sector = 2 * np.pi / SYMMETRY.get(shape, 1)
    folded = np.abs(angle - sector * np.round(angle / sector))
    return OUTLINES[shape](radius * np.cos(folded), radius * np.sin(folded))


@cache
def _template(shape: str, size_px: float) -> Array:
    """Polar profile (A, R) of a shape whose area is that of a disc with radius ``size_px``."""
    radius, angle = np.meshgrid(np.linspace(0.005, 3, 400), ANGLES)
    inside = _distance(shape, radius, angle) < 0
    area = (inside * radius).sum() * (radius[0, 1] - radius[0, 0]) * (ANGLES[1] - ANGLES[0])
    unit = np.sqrt(area / np.pi)
    radius, angle = np.meshgrid(RADII, ANGLES)
    distance = _distance(shape, radius * unit, angle) / unit * size_px
    return np.asarray(np.clip(0.5 - distance / EDGE_PX, 0, 1))


def _shape_errors(
    profiles: Array, track: _Track, height: int, width: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Errors of each shape, each frame in its best rotation: their mean and largest."""
    units = np.sqrt(track.areas / np.pi)
    room = np.minimum(track.centres, np.array([width, height]) - track.centres).min(1)
    whole = room > 1.2 * units
    # Large objects show their outline best; those cut by the border don't show it.
    weights = track.areas * np.where(whole, 1.0, 0.05)
    ring_area = RADII / RADII.sum()
    spectra = np.fft.rfft(profiles, axis=1)
    nearest = np.abs(np.log(units)[:, None] - np.log(TEMPLATE_SIZES)).argmin(1)
    errors, worst = {}, {}
    for shape in OUTLINES:
        templates = np.stack([_template(shape, size_px) for size_px in TEMPLATE_SIZES])[nearest]
        cross = spectra * np.conj(np.fft.rfft(templates, axis=1))
        match = np.fft.irfft(cross @ ring_area, n=len(ANGLES), axis=1).max(1)
        energy = ((profiles**2 + templates**2).sum(1)) @ ring_area
        norm = (templates**2).sum(1) @ ring_area
        each = (energy - 2 * match) / norm
        errors[shape] = float(np.average(each, weights=weights))
        worst[shape] = float(each[whole].max()) if whole.any() else errors[shape]
    return errors, worst
