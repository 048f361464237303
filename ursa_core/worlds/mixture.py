"""Clips to train a tokenizer on: procedural shapes alone, or mixed with emoji and film."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ursa_core.worlds.emoji import EmojiClips
from ursa_core.worlds.film import FilmClips
from ursa_core.worlds.shapes import training_clip
from ursa_core.worlds.sprites import load_film, load_sprites

KINDS = ("emoji", "film", "shapes")


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
    ) -> tuple[NDArray[np.uint8], str]:
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
