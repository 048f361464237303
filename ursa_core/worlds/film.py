"""Windows of real film, cut at random within one shot: training material of tokenizers."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ursa_core.errors import DataError, UsageError
from ursa_core.worlds.sprites import Film, Shot

SPLITS = ("train", "heldout")


class FilmClips:
    """An endless data set of windows without captions.

    Args:
        film: its frames and shots.
    """

    def __init__(self, film: Film) -> None:
        self.film = film

    def shots(self, split: str, frames: int) -> list[Shot]:
        """Shots of a split that have so many frames.

        Raises:
            UsageError: there is no such split.
            DataError: no shot of the split is so long.
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

        Args:
            seed: of the data set.
            index: of the window.
            split: ``train`` or ``heldout``, which share no shot.
            frames: of the window.
            height: of the frames, in pixels.
            width: of the frames, in pixels.

        Returns:
            uint8 (frames, height, width, 3).

        Raises:
            UsageError: there is no such split.
            DataError: no shot of the split is so long.
        """
        fitting = self.shots(split, frames)
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        # Each window as likely as any other, so long shots come as often as they are long.
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
