"""Clips to train a tokenizer on: procedural shapes alone, or mixed with emoji and real film."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ursa_core.errors import DataError
from ursa_core.worlds.emoji import EmojiClips
from ursa_core.worlds.shapes import Frames, check_split, training_clip
from ursa_core.worlds.sprites import Film, Shot, load_film, load_sprites

KINDS = ("emoji", "film", "shapes")
SPLITS = ("train", "heldout")


class FilmClips:
    """An endless data set of windows of ``film``, without captions, each within one shot."""

    def __init__(self, film: Film) -> None:
        self.film = film

    def shots(self, split: str, frames: int) -> list[Shot]:
        """Shots of a split with ``frames`` frames or more; `DataError` if none is so long."""
        check_split(split, SPLITS, "film")
        shots = [shot for shot in self.film.shots if shot.held_out == (split == "heldout")]
        fitting = [shot for shot in shots if shot.stop - shot.start >= frames]
        if not fitting:
            hint = "take fewer, or other film"
            raise DataError(f"no {split} shot of the film has {frames} frames", hint)
        return fitting

    def training_clip(
        self, seed: int, index: int, split: str, frames: int, height: int, width: int
    ) -> Frames:
        """Window ``index`` of a shot, maybe mirrored; arguments as of ``shapes.training_clip``."""
        fitting = self.shots(split, frames)
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        # Every window is equally likely, so long shots come in proportion to their length.
        rooms = np.array([shot.stop - shot.start - frames + 1 for shot in fitting])
        number = int(rng.choice(len(fitting), p=rooms / rooms.sum()))
        first = fitting[number].start + int(rng.integers(rooms[number]))
        window = self.film.frames[first : first + frames]
        largest = min(window.shape[1] / height, window.shape[2] / width)
        scale = largest * rng.uniform(min(1.0, 1 / largest), 1.0)
        top = rng.uniform(0, window.shape[1] - height * scale)
        left = rng.uniform(0, window.shape[2] - width * scale)
        box = (left, top, left + width * scale, top + height * scale)
        size, filtered = (width, height), Image.Resampling.LANCZOS
        images = [Image.fromarray(frame).resize(size, filtered, box) for frame in window]
        clip = np.stack([np.asarray(image) for image in images])
        return clip[:, :, ::-1] if rng.random() < 0.5 else clip


class ClipMixture:
    """An endless data set that draws each clip from one of several sources.

    ``shares`` are those of ``KINDS``, in any unit; sources without one are never opened. Prepared
    emoji and film are in ``folder``; raises `DataError` where it lacks one of them, or it is
    damaged.
    """

    def __init__(self, shares: Mapping[str, float], folder: Path) -> None:
        weights = np.array([shares.get(kind, 0.0) for kind in KINDS])
        self._ends = np.cumsum(weights / weights.sum())
        self._emoji = EmojiClips(load_sprites(folder)) if shares.get("emoji") else None
        self._film = FilmClips(load_film(folder)) if shares.get("film") else None

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
        """Refuse film without a shot of ``frames`` frames, as ``FilmClips.shots`` does."""
        if self._film:
            self._film.shots(split, frames)
