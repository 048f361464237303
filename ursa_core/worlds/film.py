"""Windows of real film, cut at random within one shot: training material of tokenizers."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ursa_core.errors import DataError, UsageError
from ursa_core.worlds.sprites import Film, Shot

SPLITS = ("train", "heldout")


class FilmClips:
    """An endless data set of windows of ``film``, without captions."""

    def __init__(self, film: Film) -> None:
        self.film = film

    def shots(self, split: str, frames: int) -> list[Shot]:
        """Shots of a split with at least ``frames`` frames.

        Raises:
            UsageError: There is no such split.
            DataError: No shot of the split is long enough.
        """
        if split not in SPLITS:
            raise UsageError(
                f"there is no split {split!r} of the film", f"use one of {', '.join(SPLITS)}"
            )
        fitting = [
            shot
            for shot in self.film.shots
            if shot.held_out == (split == "heldout") and shot.stop - shot.start >= frames
        ]
        if not fitting:
            raise DataError(
                f"no {split} shot of the film has {frames} frames", "take fewer, or other film"
            )
        return fitting

    def training_clip(
        self, seed: int, index: int, split: str, frames: int, height: int, width: int
    ) -> NDArray[np.uint8]:
        """Window ``index``: a random place in a shot, a random part of the picture, or its mirror.

        Arguments are those of ``shapes.training_clip``; the splits share no shot.

        Returns:
            uint8 (frames, height, width, 3).

        Raises:
            UsageError: There is no such split.
            DataError: No shot of the split is long enough.
        """
        fitting = self.shots(split, frames)
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        # Every window is equally likely, so long shots come in proportion to their length.
        rooms = np.array([shot.stop - shot.start - frames + 1 for shot in fitting])
        shot = fitting[int(rng.choice(len(fitting), p=rooms / rooms.sum()))]
        first = shot.start + int(rng.integers(shot.stop - shot.start - frames + 1))
        window = self.film.frames[first : first + frames]
        largest = min(window.shape[1] / height, window.shape[2] / width)
        scale = largest * rng.uniform(min(1.0, 1 / largest), 1.0)
        box_height, box_width = height * scale, width * scale
        top = rng.uniform(0, window.shape[1] - box_height)
        left = rng.uniform(0, window.shape[2] - box_width)
        box = (left, top, left + box_width, top + box_height)
        resized = [
            Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box)
            for frame in window
        ]
        clip = np.stack([np.asarray(image) for image in resized])
        return clip[:, :, ::-1] if rng.random() < 0.5 else clip
