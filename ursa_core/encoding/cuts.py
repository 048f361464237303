"""Which clips are cut out of a film, and which of them are wanted."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ursa_core.grids import PixelShape
from ursa_core.media import Frames

Mode = Literal["head", "chunk", "slide", "uniform", "full"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Filters:
    """What clips have to be like; None asks for nothing.

    Attributes:
        min_size: pixels of the shorter side of the file's frames.
        min_seconds: length of the file.
        max_seconds: length of the file.
        min_motion: of the cut clip, in [0, 1].
        max_motion: of the cut clip, in [0, 1].
    """

    min_size: int | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    min_motion: float | None = None
    max_motion: float | None = None

    def of_size(self, height: int, width: int) -> str:
        """Why frames of this size aren't wanted; empty if they are."""
        if self.min_size is not None and min(height, width) < self.min_size:
            return f"smaller than {self.min_size} pixels"
        return ""

    def of_length(self, seconds: float) -> str:
        """Why a file of this length isn't wanted; empty if it is."""
        if self.min_seconds is not None and seconds < self.min_seconds:
            return f"shorter than {self.min_seconds:g} s"
        if self.max_seconds is not None and seconds > self.max_seconds:
            return f"longer than {self.max_seconds:g} s"
        return ""

    def of_motion(self, motion: float) -> str:
        """Why a clip that moves so much isn't wanted; empty if it is."""
        if self.min_motion is not None and motion < self.min_motion:
            return f"motion below {self.min_motion:g}"
        if self.max_motion is not None and motion > self.max_motion:
            return f"motion above {self.max_motion:g}"
        return ""


@dataclass(frozen=True)
class Cut:
    """How clips are cut out of what they come from.

    Attributes:
        fps: frames sampled a second.
        shape: frames of a clip, and the size they are scaled and cropped to.
        mode: ``head``, the first frames; ``chunk``, clip after clip; ``slide``, a clip from every
            ``stride``-th frame on; ``uniform``, ``count`` clips spread evenly, whose frames may
            overlap; ``full``, all frames but those at the end that don't fit the strides.
        stride: frames from one clip's start to the next one's.
        count: clips of a file, fewer where it has fewer frames.
        sizes: (height, width) that a file may get besides, the one nearest in aspect ratio.
        filters: what is wanted.
        source_fps: frames a second that files are taken to have, whatever they state.
    """

    fps: float
    shape: PixelShape
    mode: Mode = "head"
    stride: int = 1
    count: int = 1
    sizes: tuple[tuple[int, int], ...] = ()
    filters: Filters = Filters()
    source_fps: float | None = None

    @property
    def takes_several(self) -> bool:
        """Whether a file may give several clips, which are called ``NAME@FRAME`` then."""
        return self.mode in ("chunk", "slide", "uniform")

    @property
    def all_sizes(self) -> tuple[tuple[int, int], ...]:
        """Sizes (height, width) that clips may have."""
        return ((self.shape.height, self.shape.width), *self.sizes)

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """The size that frames of this size get: of all, the nearest in aspect ratio."""

        def distance(size: tuple[int, int]) -> float:
            return abs(float(np.log(size[0] / size[1] * width / height)))

        return min(self.all_sizes, key=distance)

    def name(self, item: str, start: int) -> str:
        """What the clip of an item that begins with frame ``start`` is called."""
        return f"{item}@{start}" if self.takes_several else item

    def item_of(self, clip: str) -> str:
        """The item of a clip's name."""
        return clip.rpartition("@")[0] if self.takes_several else clip

    def starts(self, num_frames: int | None = None) -> Iterable[int]:
        """First frames of the clips, ascending; endless where a film's end ends them.

        Args:
            num_frames: of the film, needed where ``mode`` is ``uniform``.
        """
        if self.mode == "chunk":
            return itertools.count(0, self.shape.frames)
        if self.mode == "slide":
            return itertools.count(0, self.stride)
        if self.mode == "uniform" and num_frames is not None:
            last = max(num_frames - self.shape.frames, 0)
            if self.count == 1:
                return [last // 2]
            places = np.linspace(0, last, self.count).round().astype(int)
            return [int(start) for start in np.unique(places)]
        return [0]

    def to_json(self) -> dict[str, Any]:
        """What shards record of it: what differs from the first frames of all files."""
        sizes = ",".join(f"{height}x{width}" for height, width in self.all_sizes)
        frames = None if self.mode == "full" else self.shape.frames
        record: dict[str, Any] = {"fps": self.fps, "frames": frames, "size": sizes}
        if self.source_fps is not None:
            record["source_fps"] = self.source_fps
        if self.mode != "head":
            record["clips"] = self.mode
        if self.mode == "slide":
            record["stride"] = self.stride
        if self.mode == "uniform":
            record["count"] = self.count
        wanted = {name: value for name, value in vars(self.filters).items() if value is not None}
        return record | wanted


def windows(
    frames: Iterator[Frames], starts: Iterable[int], length: int
) -> Iterator[tuple[int, Frames]]:
    """Clips (length, H, W, 3) with their first frame's number, up to the end of the frames.

    No more than ``length`` frames are held.

    Args:
        frames: one by one, each (H, W, 3).
        starts: first frames, ascending.
        length: frames of a clip.
    """
    held: deque[Frames] = deque()
    begin = 0
    for start in starts:
        while begin < start:
            if held:
                held.popleft()
            elif next(frames, None) is None:
                return
            begin += 1
        while len(held) < length:
            frame = next(frames, None)
            if frame is None:
                return
            held.append(frame)
        yield start, np.stack(held)
