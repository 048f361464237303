"""Which clips are cut out of a film."""

import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from ursa_core.encoding.options import Filters, Mode
from ursa_core.grids import PixelShape, Strides
from ursa_core.media import Frames, resize_and_crop
from ursa_core.media.quality import flicker
from ursa_core.seeding import stream_seed

LEAST_CROP = 0.82  # share of a clip's width and height that a crop has at least
CROP = re.compile(r".*~[1-9]\d*")  # name of a crop


@dataclass(frozen=True)
class LoadedClip:
    """A clip that was cut: frames uint8 (F, H, W, 3), and its file's captions and notes."""

    frames: Frames
    captions: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()

    @cached_property
    def motion(self) -> float:
        """Mean change of a pixel from frame to frame, 0 (a still) to 1 (black and white)."""
        return flicker(self.frames) / 255


@dataclass(frozen=True)
class Dropped:
    """A clip or file that a filter leaves out: its name, which filter, and what it found."""

    name: str
    reason: str
    found: str


@dataclass(frozen=True)
class ClipCut:
    """How clips are cut out of what they come from."""

    fps: float  # frames sampled per second
    shape: PixelShape  # frames per clip, and the size that they are scaled and cropped to
    # `head`, the first frames; `chunk`, clip after clip; `slide`, a clip from every `stride`-th
    # frame on; `uniform`, `count` clips spread evenly, whose frames may overlap; `full`, all frames
    # but those at the end that don't fit the strides.
    mode: Mode = "head"
    stride: int = 1  # frames from one clip's start to the next one's
    count: int = 1  # clips per file, fewer where it has fewer frames
    sizes: tuple[tuple[int, int], ...] = ()  # further sizes (height, width)
    filters: Filters = Filters()  # noqa: RUF009  (frozen)
    source_fps: float | None = None  # frames per second of the files, whatever they state
    crops: int = 0  # random parts of each clip, at its size, besides the whole

    @property
    def _takes_several(self) -> bool:
        """Whether a file may give several clips, which are then called ``NAME@FRAME``."""
        return self.mode in ("chunk", "slide", "uniform")

    @property
    def _all_sizes(self) -> tuple[tuple[int, int], ...]:
        return ((self.shape.height, self.shape.width), *self.sizes)

    def check(self, strides: Strides) -> None:
        """Raise ShapeError where frames or a size don't fit a tokenizer's strides."""
        for size in self._all_sizes:
            strides.grid(PixelShape(self.shape.frames, *size))

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Of all sizes (height, width) the nearest in aspect ratio to frames of this size."""
        ratios = [height_ / width_ * width / height for height_, width_ in self._all_sizes]
        return self._all_sizes[int(np.argmin(np.abs(np.log(ratios))))]

    def name(self, item: str, start: int) -> str:
        """Name of the clip of an item that begins with frame ``start``."""
        return f"{item}@{start}" if self._takes_several else item

    def versions(self, clip: LoadedClip) -> Iterator[LoadedClip]:
        """A clip and its crops, the same in every run; with crops they are called ``NAME~K``."""
        yield replace(clip, name=f"{clip.name}~0") if self.crops else clip
        rng, size = np.random.default_rng(stream_seed(0, clip.name)), clip.frames.shape[1:3]
        for number in range(1, self.crops + 1):
            share = rng.uniform(LEAST_CROP, 1)
            height, width = (round(share * length) for length in size)
            top, left = rng.integers(0, (size[0] - height, size[1] - width), endpoint=True)
            part = clip.frames[:, top : top + height, left : left + width]
            name = f"{clip.name}~{number}"
            yield replace(clip, frames=resize_and_crop(part, *size), name=name)

    def item_of(self, clip: str) -> str:
        """Name of the item that a clip comes from."""
        clip = clip.rpartition("~")[0] if self.crops else clip
        return clip.rpartition("@")[0] if self._takes_several else clip

    def starts(self, num_frames: int | None = None) -> Iterable[int]:
        """First frames of the clips, ascending; a ``uniform`` cut needs the film's length."""
        if self.mode in ("chunk", "slide"):
            return itertools.count(0, self.shape.frames if self.mode == "chunk" else self.stride)
        if self.mode == "uniform" and num_frames is not None:
            last = max(num_frames - self.shape.frames, 0)
            if self.count == 1:
                return [last // 2]
            return np.unique(np.linspace(0, last, self.count).round().astype(int)).tolist()
        return [0]

    def to_json(self) -> dict[str, Any]:
        """Options as shards record them."""
        sizes = ",".join(f"{height}x{width}" for height, width in self._all_sizes)
        frames = None if self.mode == "full" else self.shape.frames
        asked = {
            "source_fps": self.source_fps,
            "clips": None if self.mode == "head" else self.mode,
            "stride": self.stride if self.mode == "slide" else None,
            "count": self.count if self.mode == "uniform" else None,
            "crops": self.crops or None,
            **{each.name: getattr(self.filters, each.name) for each in fields(Filters)},
        }
        record = {"fps": self.fps, "frames": frames, "size": sizes}
        return record | {name: value for name, value in asked.items() if value is not None}


def windows(
    frames: Iterator[Frames], starts: Iterable[int], length: int
) -> Iterator[tuple[int, Frames]]:
    """Clips (length, H, W, 3) of frames (H, W, 3), each with its number among ``starts``."""
    held: deque[Frames] = deque(maxlen=length)
    begin = 0
    for start in starts:
        while begin < start:
            if held:
                held.popleft()
            elif next(frames, None) is None:
                return
            begin += 1
        held.extend(itertools.islice(frames, length - len(held)))
        if len(held) < length:
            return
        yield start, np.stack(held)
