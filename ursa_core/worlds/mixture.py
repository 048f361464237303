"""Clips to train a tokenizer on: procedural shapes alone, or mixed with emoji and film."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ursa_core.worlds import shapes
from ursa_core.worlds.emoji import EmojiClips
from ursa_core.worlds.film import FilmClips
from ursa_core.worlds.sprites import load_film, load_sprites

KINDS = ("emoji", "film", "shapes")


class ClipMixture:
    """An endless data set that draws each clip from one of several sources.

    Args:
        shares: Share of each of ``KINDS``, in any unit; sources without one are never opened.
        folder: Folder of prepared emoji and film, where they have a share.

    Raises:
        DataError: The folder lacks one of them, or it is damaged.
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
        kind = self._kind(seed, index, split)
        if kind == "emoji" and self._emoji:
            clip, _ = self._emoji.training_clip(seed, index, split, frames, height, width, full)
        elif kind == "film" and self._film:
            clip = self._film.training_clip(seed, index, split, frames, height, width)
        else:
            clip, _ = shapes.training_clip(seed, index, split, frames, height, width, full)
        return clip, kind

    def require(self, split: str, frames: int) -> None:
        """Refuse film without a shot of ``frames`` frames, before it is drawn from.

        Raises:
            UsageError: There is no such split.
            DataError: No shot of the split is long enough.
        """
        if self._film:
            self._film.shots(split, frames)

    def _kind(self, seed: int, index: int, split: str) -> str:
        # A stream of its own, so that a source draws the same clips in any mixture.
        draw = np.random.default_rng([seed, index, len(split), 1]).random()
        return KINDS[int(np.searchsorted(self._ends, draw, side="right"))]
