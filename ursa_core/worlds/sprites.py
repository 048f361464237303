"""The emoji and film packs, and the clips that are drawn from them, alone or mixed with shapes.

They are plain pixels, decoded once and then mapped into memory. ``recipes/emoji_data.py`` makes
both, each an array and a JSON table in one folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ursa_core.bundle.folder import read_json
from ursa_core.bundle.subjects import Subject, load_subjects, synonyms
from ursa_core.configs import parsed
from ursa_core.errors import CheckpointError, DataError
from ursa_core.worlds import emoji
from ursa_core.worlds.shapes import SPLITS, Frames, check_split, training_clip

FPS = 8.0
SPRITES, SPRITE_TABLE = "sprites.npy", "sprites.json"
FILM, FILM_TABLE = "film.npy", "film.json"
KINDS = ("emoji", "film", "shapes")
FILM_SPLITS = ("train", "heldout")
NAME_ONLY, SYNONYM = 0.08, 0.06
"""Shares of the captions that are the name alone, and that use another word for the subject."""
_REMAKE = "make the folder again with recipes/emoji_data.py"


@dataclass(frozen=True)
class Sprites:
    """Animated subjects on transparency, 8 frames per second, the most distinct ones first."""

    subjects: tuple[Subject, ...]
    frames: NDArray[np.uint8]  # all their RGBA (N, S, S, 4)
    starts: tuple[int, ...]  # (subjects + 1,) the first frame of each, and the end

    def loop(self, number: int) -> NDArray[np.uint8]:
        """Frames of a subject: uint8 (F, S, S, 4)."""
        return self.frames[self.starts[number] : self.starts[number + 1]]

    @cached_property
    def _synonyms(self) -> dict[str, tuple[str, ...]]:
        return synonyms(self.subjects)

    def training_clip(
        self, seed: int, index: int, split: str, frames: int, height: int, width: int,
        full_frames: int | None = None,
    ) -> tuple[Frames, str]:  # fmt: skip
        """Clip ``index`` and its caption, as ``shapes.training_clip`` gives them."""
        check_split(split, SPLITS, "emoji")
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        number = int(rng.integers(len(self.subjects)))
        name = self.subjects[number].name
        choices = emoji.backgrounds_of(name, split)
        background = choices[int(rng.integers(len(choices)))]
        loop = self.loop(number)
        phase, full = emoji.sample_phase(rng, loop), full_frames or frames
        times = phase + int(rng.integers(full - frames + 1)) + np.arange(frames)
        clip = emoji.render(loop, background, height, width, times)
        draw, others = rng.random(), self._synonyms[name]
        if draw < NAME_ONLY:
            return clip, name
        if others and draw > 1 - SYNONYM:
            name = others[int(rng.integers(len(others)))]
        return clip, emoji.caption(name, background)


@dataclass(frozen=True)
class Shot:
    """Frames ``start`` to ``stop`` of an uncut piece of film, and whether it is held out."""

    start: int
    stop: int
    held_out: bool
    clip: str


@dataclass(frozen=True)
class Film:
    """Real film, 8 frames per second, in shots: ``frames`` are uint8 (N, H, W, 3)."""

    frames: NDArray[np.uint8]
    shots: tuple[Shot, ...]

    def shots_of(self, split: str, frames: int) -> list[Shot]:
        """Shots of a split with ``frames`` frames or more; `DataError` if none is so long."""
        check_split(split, FILM_SPLITS, "film")
        shots = [shot for shot in self.shots if shot.held_out == (split == "heldout")]
        fitting = [shot for shot in shots if shot.stop - shot.start >= frames]
        if not fitting:
            hint = "take fewer, or other film"
            raise DataError(f"no {split} shot of the film has {frames} frames", hint)
        return fitting

    def training_clip(
        self, seed: int, index: int, split: str, frames: int, height: int, width: int
    ) -> Frames:
        """Window ``index`` of a shot, maybe mirrored; arguments as of ``shapes.training_clip``."""
        fitting = self.shots_of(split, frames)
        rng = np.random.default_rng([seed, FILM_SPLITS.index(split), index])
        # Every window is equally likely, so long shots come in proportion to their length.
        rooms = np.array([shot.stop - shot.start - frames + 1 for shot in fitting])
        number = int(rng.choice(len(fitting), p=rooms / rooms.sum()))
        first = fitting[number].start + int(rng.integers(rooms[number]))
        window = self.frames[first : first + frames]
        largest = min(window.shape[1] / height, window.shape[2] / width)
        scale = largest * rng.uniform(min(1.0, 1 / largest), 1.0)
        top = rng.uniform(0, window.shape[1] - height * scale)
        left = rng.uniform(0, window.shape[2] - width * scale)
        box = (left, top, left + width * scale, top + height * scale)
        size, filtered = (width, height), Image.Resampling.LANCZOS
        images = [Image.fromarray(frame).resize(size, filtered, box) for frame in window]
        clip = np.stack([np.asarray(image) for image in images])
        return clip[:, :, ::-1] if rng.random() < 0.5 else clip


def load_sprites(folder: Path) -> Sprites:
    """Map the sprites of a prepared folder; raises `DataError` if missing or damaged."""
    frames = _map_array(folder / SPRITES, "emoji", 4)
    try:
        subjects = load_subjects(folder)
        starts = parsed(tuple[int, ...], read_json(folder / SPRITE_TABLE).get("starts"))
    except (CheckpointError, ValueError) as error:
        raise DataError(f"the tables of emoji in {folder} are damaged", _REMAKE) from error
    rising = starts[:1] == (0,) and all(a < b for a, b in pairwise(starts))
    if not subjects or not rising or len(starts) != len(subjects) + 1 or starts[-1] != len(frames):
        raise DataError(f"the tables of emoji in {folder} don't fit one another", _REMAKE)
    return Sprites(subjects, frames, starts)


def load_film(folder: Path) -> Film:
    """Map the film of a prepared folder; raises `DataError` where it is missing or damaged."""
    frames = _map_array(folder / FILM, "film", 3)
    try:
        shots = parsed(tuple[Shot, ...], read_json(folder / FILM_TABLE).get("shots"))
    except (CheckpointError, ValueError) as error:
        raise DataError(f"the table of shots in {folder} is damaged", _REMAKE) from error
    if not shots or any(not 0 <= s.start <= s.stop <= len(frames) for s in shots):
        raise DataError(f"the table of shots in {folder} doesn't fit the film", _REMAKE)
    return Film(frames, shots)


def _map_array(file: Path, what: str, channels: int) -> NDArray[np.uint8]:
    if not file.is_file():
        raise DataError(f"{file.parent} holds no prepared {what}", _REMAKE)
    try:
        array = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is damaged: {error}", _REMAKE) from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != channels or not array.size:
        raise DataError(f"{file} holds no {what}", _REMAKE)
    return array


class ClipMixture:
    """An endless data set that draws each clip from one of several sources.

    ``shares`` are those of ``KINDS``, in any unit; sources without one are never opened. Prepared
    emoji and film are in ``folder``; raises `DataError` where it lacks one of them, or it is
    damaged.
    """

    def __init__(self, shares: Mapping[str, float], folder: Path) -> None:
        weights = np.array([shares.get(kind, 0.0) for kind in KINDS])
        self._ends = np.cumsum(weights / weights.sum())
        self._emoji = load_sprites(folder) if shares.get("emoji") else None
        self._film = load_film(folder) if shares.get("film") else None

    def clip(
        self, seed: int, index: int, split: str, frames: int, height: int, width: int, full: int
    ) -> tuple[Frames, str]:
        """Clip ``index``, as in ``shapes.training_clip``, and its source, one of ``KINDS``."""
        # A stream of its own, so that a source draws the same clips in any mixture.
        draw = np.random.default_rng([seed, index, len(split), 1]).random()
        kind = KINDS[int(np.searchsorted(self._ends, draw, side="right"))]
        if kind == "film" and self._film:
            return self._film.training_clip(seed, index, split, frames, height, width), kind
        draws = self._emoji.training_clip if kind == "emoji" and self._emoji else training_clip
        return draws(seed, index, split, frames, height, width, full)[0], kind

    def require(self, split: str, frames: int) -> None:
        """Refuse film without a shot of ``frames`` frames, as ``Film.shots_of`` does."""
        if self._film:
            self._film.shots_of(split, frames)
