"""Captioned clips of animated emoji over flat backgrounds, 8 frames per second.

``a {name} on a {colour} background``. (seed, index, split) determines a clip, so a data set is a
range of indices. One (subject, background) pair in ten is held out of training.
"""

import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from ursa_core.worlds.shapes import Frames

BACKGROUNDS = {
    "black": (20, 20, 24), "white": (245, 245, 245), "gray": (140, 144, 150), "red": (205, 55, 55),
    "orange": (242, 140, 50), "yellow": (250, 220, 90), "green": (84, 170, 98),
    "teal": (30, 145, 150), "blue": (66, 120, 220), "navy": (28, 38, 92), "purple": (124, 77, 196),
    "pink": (245, 160, 195),
}  # fmt: skip
SCALE = 0.9
"""Side of the subject's square as a share of the frame's shorter side.

A subject always stands in the middle in one size: that leaves so much less to learn that a small
model gets it right, and the codes' cells cover the subject in the same way in every clip.
"""
PHASE_STEP = 4  # clips begin at every fourth frame of a loop: fewer pictures, the same motion


def caption(name: str, background: str) -> str:
    """``a {name} on a {background} background``."""
    return f"{_article(name)} {name} on {_article(background)} {background} background"


def _article(words: str) -> str:
    return "an" if words[0].lower() in "aeiou" else "a"


def nearest_background(word: str) -> str | None:
    """The background nearest to a CSS colour, as teal to turquoise; None for other words."""
    if word.lower() not in ImageColor.colormap:
        return None
    given = np.array(ImageColor.getrgb(word)[:3])
    return min(BACKGROUNDS, key=lambda name: float(np.linalg.norm(given - BACKGROUNDS[name])))


def is_held_out(name: str, background: str) -> bool:
    """Whether a pair is held out of training: one or two backgrounds per subject."""
    place = zlib.crc32(name.encode()) + 3 * list(BACKGROUNDS).index(background)
    return place % 10 == 0


def backgrounds_of(name: str, split: str) -> list[str]:
    """Backgrounds of a subject in a split."""
    wanted = split == "heldout"
    return [b for b in BACKGROUNDS if split == "all" or is_held_out(name, b) == wanted]


def render(
    loop: Frames, background: str, height: int, width: int, times: NDArray[np.int64]
) -> Frames:
    """Draw a clip: uint8 (F, height, width, 3), with the subject in the middle, on whole pixels.

    ``loop`` are RGBA frames of the subject, uint8 (n, S, S, 4), and ``times`` (F,) the numbers of
    those to draw, counted on beyond its end.
    """
    side = max(round(SCALE * min(height, width)), 1)
    place = (round((width - side) / 2), round((height - side) / 2))
    clip = np.empty((len(times), height, width, 3), np.uint8)
    for number, time in enumerate(times.tolist()):
        figure = Image.fromarray(loop[time % len(loop)])
        figure = figure.resize((side, side), Image.Resampling.LANCZOS)
        frame = Image.new("RGB", (width, height), BACKGROUNDS[background])
        frame.paste(figure, place, figure)
        clip[number] = np.asarray(frame)
    return clip


def sample_phase(rng: np.random.Generator, loop: Frames) -> int:
    """Number of the frame that a clip of a loop begins with."""
    return PHASE_STEP * int(rng.integers(-(-len(loop) // PHASE_STEP)))
