"""Captioned clips of animated emoji over flat backgrounds, 8 frames per second.

``a {name} on a {colour} background``; some subjects are small, stand aside, slide or bounce, and
the caption says so. (seed, index, split) determines a clip, so a data set is a range of indices.
One (subject, background) pair in ten is held out of training.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from ursa_core.bundle.subjects import synonyms
from ursa_core.worlds.shapes import SPLITS, Frames, check_split
from ursa_core.worlds.sprites import Sprites

BACKGROUNDS = {
    "black": (20, 20, 24), "white": (245, 245, 245), "gray": (140, 144, 150), "red": (205, 55, 55),
    "orange": (242, 140, 50), "yellow": (250, 220, 90), "green": (84, 170, 98),
    "teal": (30, 145, 150), "blue": (66, 120, 220), "navy": (28, 38, 92), "purple": (124, 77, 196),
    "pink": (245, 160, 195),
}  # fmt: skip
KINDS = {"plain": 0.84, "small": 0.04, "aside": 0.04, "sliding": 0.04, "bouncing": 0.04}
"""Motion or place of the whole picture, with its share of the clips."""
SCALES = {
    "plain": (0.9, 0.9), "small": (0.42, 0.5), "aside": (0.42, 0.5), "sliding": (0.5, 0.6),
    "bouncing": (0.6, 0.7),
}  # fmt: skip
"""Side of the subject's square as a share of the frame's shorter side.

A plain subject always stands in the middle in one size: that leaves so much less to learn that a
small model gets it right, and the codes' cells cover the subject in the same way in every clip.
"""
ASIDE, SLIDE = 0.2, 0.32
"""Distance of a subject aside from the middle, and way of a sliding one, in shares of the width."""
BOUNCE_HEIGHT, BOUNCE_FRAMES = 0.22, 8
"""Height of a bounce as a share of the frame's, and number of frames that it takes."""
PHASE_STEP = 4  # clips begin at every fourth frame of a loop: fewer pictures, the same motion
NAME_ONLY, SYNONYM = 0.08, 0.06
"""Shares of the captions that are the name alone, and that use another word for the subject."""


@dataclass(frozen=True)
class ClipSpec:
    """Everything that decides a clip; lengths are shares of the shorter side, places of the frame.

    ``side`` is ``left`` or ``right``, where a subject stands aside or slides, ``scale`` that of its
    square, ``centre`` its first place, ``phase`` the frame of the loop that the clip begins with.
    """

    subject: int
    background: str
    kind: str
    side: str
    scale: float
    centre: tuple[float, float]
    phase: int


def caption(name: str, background: str, kind: str = "plain", side: str = "right") -> str:
    """The sentence that describes a clip."""
    words = {
        "plain": name,
        "small": f"small {name}",
        "aside": f"small {name} on the {side}",
        "sliding": f"{name} sliding {side}",
        "bouncing": f"{name} bouncing",
    }[kind]
    return f"{_article(words)} {words} on {_article(background)} {background} background"


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


def sample_spec(
    rng: np.random.Generator, subject: int, background: str, kind: str, loop_frames: int
) -> ClipSpec:
    """A clip of a kind, with random size, place and phase."""
    scale = float(rng.uniform(*SCALES[kind]))
    side = ("left", "right")[int(rng.integers(2))]
    sign = 1 if side == "right" else -1
    stray = 0.0 if kind == "plain" else min((1 - scale) / 2, 0.03)
    x, y = 0.5 + rng.uniform(-1, 1, 2) * stray
    if kind == "aside":
        x += sign * ASIDE
    elif kind == "sliding":
        x -= sign * SLIDE / 2
    elif kind == "bouncing":
        y += BOUNCE_HEIGHT / 2
    phase = PHASE_STEP * int(rng.integers(-(-loop_frames // PHASE_STEP)))
    return ClipSpec(subject, background, kind, side, scale, (float(x), float(y)), phase)


def render(
    loop: Frames, spec: ClipSpec, height: int, width: int, times: NDArray[np.int64],
    full_frames: int,
) -> Frames:  # fmt: skip
    """Draw a clip: uint8 (F, height, width, 3); the subject stands on whole pixels.

    ``loop`` are RGBA frames of the subject, uint8 (n, S, S, 4), and ``times`` the numbers (F,) of
    the frames in the whole clip of ``full_frames``, over which a subject slides.
    """
    side = max(round(spec.scale * min(height, width)), 1)
    way = {"left": -SLIDE, "right": SLIDE}[spec.side] if spec.kind == "sliding" else 0.0
    clip = np.empty((len(times), height, width, 3), np.uint8)
    for number, time in enumerate(times.tolist()):
        x, y = spec.centre
        x += way * (time / max(full_frames - 1, 1))
        if spec.kind == "bouncing":
            y -= BOUNCE_HEIGHT * abs(np.sin(np.pi * time / BOUNCE_FRAMES))
        place = (round(x * width - side / 2), round(y * height - side / 2))
        rgba = Image.fromarray(loop[(spec.phase + time) % len(loop)])
        figure = rgba.resize((side, side), Image.Resampling.LANCZOS)
        frame = Image.new("RGB", (width, height), BACKGROUNDS[spec.background])
        frame.paste(figure, place, figure)
        clip[number] = np.asarray(frame)
    return clip


class EmojiClips:
    """An endless data set of captioned clips of ``sprites``."""

    def __init__(self, sprites: Sprites) -> None:
        self.sprites = sprites
        self._synonyms = synonyms(sprites.subjects)

    def training_clip(
        self, seed: int, index: int, split: str, frames: int, height: int, width: int,
        full_frames: int | None = None,
    ) -> tuple[Frames, str]:  # fmt: skip
        """Clip ``index`` and its caption, as ``shapes.training_clip`` gives them."""
        check_split(split, SPLITS, "emoji")
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        number = int(rng.integers(len(self.sprites.subjects)))
        name = self.sprites.subjects[number].name
        choices = backgrounds_of(name, split)
        background = choices[int(rng.integers(len(choices)))]
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        loop = self.sprites.loop(number)
        spec = sample_spec(rng, number, background, kind, len(loop))
        full = full_frames or frames
        times = int(rng.integers(full - frames + 1)) + np.arange(frames)
        clip = render(loop, spec, height, width, times, full)
        draw, others = rng.random(), self._synonyms[name]
        if kind == "plain" and draw < NAME_ONLY / KINDS["plain"]:
            return clip, name
        if others and draw > 1 - SYNONYM:
            name = others[int(rng.integers(len(others)))]
        return clip, caption(name, background, kind, spec.side)
