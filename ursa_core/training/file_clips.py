"""Clips of one's own files for a tokenizer, cut once as ``ursa tokenize`` cuts them."""

import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from ursa_core.bundle.settings import BundleSettings
from ursa_core.encoding.cuts import LoadedClip
from ursa_core.encoding.encode import Piece
from ursa_core.encoding.options import TokenizeOptions
from ursa_core.encoding.run import clip_cut
from ursa_core.encoding.sources import MediaFile, find_sources
from ursa_core.errors import DataError, UrsaError, UrsaWarning
from ursa_core.media import Frames
from ursa_core.parts import num_cores
from ursa_core.places import located
from ursa_core.recipe.fields import TokenizerData
from ursa_core.seeding import stream_seed

Split = Literal["train", "heldout"]
Shape = tuple[int, ...]
_AT_ONCE = 16  # files read ahead of those that are written


class FileClips:
    """The clips of the files that a recipe names; ``fps`` is the rate where it gives none.

    They lie uncompressed in a temporary file (``TMPDIR``), and clips of one shape make a batch.
    ``identity`` has digits that change with the clips.
    """

    def __init__(self, data: TokenizerData, temporal_stride: int, fps: float) -> None:
        sizes = [(data.height, data.width), *data.more_sizes]
        options = TokenizeOptions(size=sizes, **vars(data.cut))
        options.refuse()
        self.cut = clip_cut(options, BundleSettings(fps=fps, frames=data.frames))
        left_out: list[Path] = []
        sources = find_sources(list(map(located, data.files or ())), on_left_out=left_out.append)
        if left_out:
            _warn(f"left out, as no media of a known suffix: {left_out[0]} and the like")
        order = sorted(sources, key=lambda each: stream_seed(0, each.name))
        count = round(data.held_out * len(sources)) or int(data.held_out > 0)
        held_out = {each.key for each in order[:count]}
        self._begins: dict[Split, dict[Shape, list[int]]] = {"train": {}, "heldout": {}}
        digest, size = hashlib.sha256(), 0
        with tempfile.TemporaryFile() as file:
            for source, clip in self._read(sources, temporal_stride):
                file.write(clip.frames.tobytes())
                digest.update(clip.frames.tobytes())
                split: Split = "heldout" if source.key in held_out else "train"
                self._begins[split].setdefault(clip.frames.shape, []).append(size)
                size += clip.frames.size
            file.flush()
            if not self._begins["train"]:
                raise DataError(
                    f"{', '.join(data.files or ())}: no clip of {data.frames} frames to train on",
                    "ask for fewer frames, allow more in data.cut, or hold out fewer files",
                )
            self._pixels = np.memmap(file, np.uint8, "r")
        self.num_clips = sum(len(b) for each in self._begins.values() for b in each.values())
        self.has_held_out = bool(self._begins["heldout"])
        self.identity = digest.hexdigest()[:16]

    def _read(
        self, sources: list[MediaFile], temporal_stride: int
    ) -> Iterator[tuple[MediaFile, LoadedClip]]:
        def clips(source: MediaFile) -> list[Piece] | UrsaError:
            try:
                return list(source.clips(self.cut, temporal_stride))
            except UrsaError as error:
                return error

        left_out, num_dropped = self.cut.filters.reason, 0
        with ThreadPoolExecutor(num_cores()) as pool:
            for first in range(0, len(sources), _AT_ONCE):
                some = sources[first : first + _AT_ONCE]
                for source, made in zip(some, pool.map(clips, some), strict=True):
                    if isinstance(made, UrsaError):
                        _warn(f"skipped: {made.message}")
                        continue
                    kept = [
                        clip
                        for clip in made
                        if isinstance(clip, LoadedClip) and not left_out("motion", clip.motion)
                    ]
                    num_dropped += len(made) - len(kept)
                    yield from ((source, clip) for clip in kept)
        if num_dropped:
            _warn(f"clips left out by the bounds in data.cut: {num_dropped}")

    def drawn(self, seed: int, turn: int, first: int, count: int) -> Frames:
        """Clips of one shape, drawn by its share of clips for a turn: uint8 (count, F, H, W, 3)."""
        shapes = self._begins["train"]
        weights = np.array([len(begins) for begins in shapes.values()])
        rng = np.random.default_rng([seed, turn, 2])
        shape = list(shapes)[rng.choice(len(shapes), p=weights / weights.sum())]
        rngs = (np.random.default_rng([seed, index, 3]) for index in range(first, first + count))
        return self._stacked(shape, [int(rng.choice(shapes[shape])) for rng in rngs])

    def batch(self, split: Split, index: int, size: int) -> Frames:
        """Batch ``index`` of a split's clips, in order and around again."""
        batches = [
            (shape, begins[k : k + size])
            for shape, begins in self._begins[split].items()
            for k in range(0, len(begins), size)
        ]
        return self._stacked(*batches[index % len(batches)])

    def _stacked(self, shape: Shape, begins: list[int]) -> Frames:
        size = int(np.prod(shape))
        return np.stack([self._pixels[at : at + size].reshape(shape) for at in begins])


def _warn(text: str) -> None:
    warnings.warn(text, UrsaWarning, stacklevel=2)
