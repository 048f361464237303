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

        Raises `UsageError` where there is no such split, `DataError` where no shot is long enough.
        """
        if split not in SPLITS:
            raise UsageError(
                f"there is no split {split!r} of the film", f"use one of {', '.join(SPLITS)}"
            )
        shots = [shot for shot in self.film.shots if shot.held_out == (split == "heldout")]
        fitting = [shot for shot in shots if shot.stop - shot.start >= frames]
        if not fitting:
            raise DataError(
                f"no {split} shot of the film has {frames} frames", "take fewer, or other film"
            )
        return fitting

    def training_clip(
        self, seed: int, index: int, split: str, frames: int, height: int, width: int
    ) -> NDArray[np.uint8]:
        """Window ``index``, uint8 (frames, height, width, 3): a part of a shot, or its mirror.

        Arguments are those of ``shapes.training_clip``, errors those of ``shots``; splits share no
        shot.
        """
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
