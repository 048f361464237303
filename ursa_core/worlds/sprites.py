"""The emoji and film packs as plain pixels, decoded once and then mapped into memory.

``recipes/emoji_data.py`` makes both, each an array and a JSON table in one folder.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ursa_core.bundle.folder import read_json
from ursa_core.bundle.subjects import Subject, load_subjects
from ursa_core.configs import parsed
from ursa_core.errors import CheckpointError, DataError

FPS = 8.0
SPRITES, SPRITE_TABLE = "sprites.npy", "sprites.json"
FILM, FILM_TABLE = "film.npy", "film.json"
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
