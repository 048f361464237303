"""Joins of frames as they are with frames that a tokenizer decoded.

Codes keep pixels only so well. Where a decoded frame stands for one that is there, the difference
of the two goes on from that frame and fades out, so that no jump shows.
"""

from collections.abc import Mapping

import numpy as np

from ursa_core.media import Frames

FADE_FRAMES = 8
"""Frames over which the difference fades out."""


def following(frames: Frames, window: Frames, overlap: int) -> Frames:
    """The window's frames behind the overlap, joined to the last of ``frames`` without a seam.

    Args:
        frames: uint8 (F, H, W, 3), what there is.
        window: uint8 (N, H, W, 3), whose frame ``overlap − 1`` shows the last of them.
        overlap: Number of frames that both show.
    """
    return with_frames(window[overlap - 1 :], {0: frames[-1:]})[1:]


def with_frames(made: Frames, given: Mapping[int, Frames]) -> Frames:
    """A clip that shows given frames as they are, and leads up to and away from them.

    Args:
        made: uint8 (F, H, W, 3), decoded.
        given: uint8 (n, H, W, 3) by the frame (from 0) that they start at; apart from one another.
    """
    ends = [(at, at + len(frames) - 1) for at, frames in sorted(given.items())]
    place = np.arange(len(made))
    result = made.astype(np.float32)
    for number, (at, last) in enumerate(ends):
        before = at - ends[number - 1][1] if number else FADE_FRAMES + 1
        behind = ends[number + 1][0] - last if number + 1 < len(ends) else FADE_FRAMES + 1
        for edge, start, reach in ((at, at - place, before), (last, place - last, behind)):
            weight = 1 - start / min(reach, FADE_FRAMES + 1)
            weight = np.where((start > 0) & (weight > 0), weight, 0).astype(np.float32)
            difference = given[at][edge - at].astype(np.float32) - made[edge]
            result += weight[:, None, None, None] * difference
    for (at, last), frames in zip(ends, (given[at] for at, _ in ends), strict=True):
        result[at : last + 1] = frames
    return np.asarray(result.round().clip(0, 255), np.uint8)
