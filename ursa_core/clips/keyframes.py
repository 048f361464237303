"""Where the images that a clip goes through stand in it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ursa_core.clips.given import label, latent_frame_of
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_core.clips.requests import Source


def place_keyframes(
    first: "Source | None",
    last: "Source | None",
    between: "Sequence[tuple[Source, int]]",
    num_frames: int,
    temporal_stride: int,
    loop: bool = False,
) -> "Mapping[int, Source]":
    """Images by the frame (from 0) of the clip that shows them, in order.

    Args:
        first: Image of frame 0, if any.
        last: Image of the last frame, or of the frame behind it in a loop, if any.
        between: Images and their frames, in rising order.
        num_frames: Number of frames of the clip.
        temporal_stride: Frames that a latent frame stands for; an image fills them all.
        loop: Whether ``last`` is the frame that follows when the clip is played again.

    Raises:
        UsageError: A frame is past the end, out of order, given twice, or shares its latent frame.
    """
    for image, frame in between:
        if not 0 <= frame < num_frames:
            raise UsageError(
                f"the keyframe {label(image)}@{frame} isn't in a clip of {num_frames} frames",
                f"give a frame from 0 to {num_frames - 1}, or more `frames`",
            )
    for (_, early), (image, late) in pairwise(between):
        if late < early:
            raise UsageError(
                f"the keyframe {label(image)}@{late} stands behind that of frame {early}",
                "give the keyframes in rising order",
            )
    ends = [(first, 0)] if first is not None else []
    ends += [*between]
    ends += [(last, num_frames - (not loop))] if last is not None else []
    for (_, early), (image, late) in pairwise(ends):
        if late == early:
            raise UsageError(
                f"frame {late} is given twice, the second time as {label(image)}", "give one"
            )
        if latent_frame_of(early, temporal_stride) == latent_frame_of(late, temporal_stride):
            raise UsageError(
                f"frames {early} and {late} are too near to hold an image each",
                f"keep {temporal_stride} frames or more between keyframes",
            )
    return {frame: image for image, frame in ends}
