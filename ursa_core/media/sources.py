"""All media as their readers see them: frames, each shown for some time, and their sampling."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ursa_core.errors import DataError
from ursa_core.media.frames import Frames

MAX_PIXELS = 2**26
"""Pixels of the largest picture that is read, 8192 x 8192; decoding takes some 15 bytes a pixel."""
MAX_MOVING_PIXELS = 2**24
"""Pixels of the largest animation, 4096 x 4096: each of its frames is drawn on the whole canvas."""
PIXELS_PER_BYTE = 2**14
"""Pixels that a clip in memory may have per byte of its file, on top of `MAX_PIXELS`.

Damaged headers claim gigabytes in a few thousand bytes; films of a still slide have some thousand.
"""
MOVING_PIXELS_PER_BYTE = 2**12
"""The same of an animation, which is drawn and composed frame by frame even where none is held."""
MAX_HOLD_SECONDS = 60.0
"""How long frames may be shown on average, so that work is bounded by the frames that exist."""
MAX_REPEATS = 20
"""How often frames may be repeated on average where a film gives its own rate."""
Load = Callable[[], Frames]
"""Makes the array (H, W, 3) of a frame."""
Shown = Generator[tuple[float, Load], None, None]
"""Frames in the order in which they are presented, each with the seconds that it is shown."""


@dataclass(frozen=True)
class Source:
    """An opened file, folder of frames or image, and what it states, the likeliest rate first."""

    shown: Shown
    is_still: bool = False
    rates: tuple[float, ...] = ()
    seconds: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was assumed where it states nothing


def at_rate(shown: Shown, fps: float) -> Shown:
    """The frames at times k/fps, up to the end of the last one.

    Each is the nearest in time, but a frame that is held for several samples stays until half a
    sample before the next one's time.
    """
    k, end, seconds = 0, 0.0, 0.0
    step = 1 / fps
    load: Load | None = None
    for next_seconds, next_load in shown:
        early = seconds / 2 if seconds < 1.5 * step else step / 2
        # Of two that are as near the earlier, however the times are rounded.
        while load is not None and k / fps <= end - early + 1e-6:
            yield step, load
            k += 1
        end, seconds, load = end + next_seconds, next_seconds, next_load
    while load is not None and (k / fps < end - 1e-6 or k == 0):
        yield step, load
        k += 1


def own_rate(seconds: Sequence[float], stated: Sequence[float] = ()) -> tuple[float, bool]:
    """Frames per second of a film, and whether its frames come evenly.

    Where they don't, longer frames count as several short ones: the tenth percentile, so that
    single ones that came early don't decide. ``stated`` rates are preferred where they agree.
    """
    lengths = np.array(seconds)
    if not lengths.any():  # all at one time
        return (*stated, 25.0)[0], True
    short = float(np.sort(lengths)[len(lengths) // 10]) or float(lengths[lengths > 0].min())
    lengths[-1] = max(lengths[-1], short)  # one that is cut short at the end is a frame as well
    total = float(lengths.sum())
    # Containers round times: the mean of many is nearer to what was meant.
    tick = float(lengths[(lengths < 1.5 * short) & (lengths > 0)].mean())
    mean_rate = len(lengths) / total
    drift = np.abs(np.cumsum(lengths) - np.arange(1, len(lengths) + 1) / mean_rate).max()
    is_even = bool(drift <= tick / 2)
    # A few frames whose times are damaged shouldn't become a million.
    ticks = min(float(np.rint(lengths / tick).clip(1).sum()), MAX_REPEATS * (len(lengths) + 10))
    rate = mean_rate if is_even else ticks / total
    preferred = (each for each in stated if math.isclose(each, rate, rel_tol=0.01))
    return next(preferred, round(rate, 6)), is_even


def bounded(path: str | Path, shown: Shown) -> Shown:
    """The frames; a DataError if they are shown for longer than `MAX_HOLD_SECONDS` on average."""
    total = 0.0
    for count, (seconds, load) in enumerate(shown, 1):
        total += seconds
        if total > MAX_HOLD_SECONDS * (count + 1):
            frames = f"{count} frame{'s' * (count != 1)}"
            raise DataError(
                f"{path} shows {frames} for {total:.6g} seconds, and so long ones aren't read",
                f"write the film again, with a frame for each {MAX_HOLD_SECONDS:g} seconds or more",
            )
        yield seconds, load


def check_size(path: str | Path, height: float, width: float, limit: int | None = None) -> None:
    """Refuse pictures that would fill the memory, by default `MAX_PIXELS`, before decoding them."""
    limit = limit or MAX_PIXELS
    if height * width > limit:
        fault = f"{path} has {height:.0f}x{width:.0f} pixels, more than {limit / 1e6:.0f} million"
        raise DataError(fault, "scale it down first")
