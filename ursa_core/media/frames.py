"""Clips in memory: pixel values, sizes and contact sheets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ursa_core.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

Frames = NDArray[np.uint8]
Rounding = Literal["nearest", "truncate"]
_GAP_PX = 4  # white ones around each strip of a contact sheet


@dataclass(frozen=True)
class Clip:
    """Frames with their rate and the metadata of their file.

    Those are what ``write_media`` was given, otherwise the tags of the file as strings.
    """

    frames: Frames  # RGB frames, uint8 (F, H, W, 3)
    fps: float | None = None  # frames per second; None for a single image
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was assumed where the file states nothing


def check_frames(frames: Frames) -> None:
    """Raise ShapeError unless the array is uint8 (F, H, W, 3) with at least one pixel."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        hint = "give uint8 (F, height, width, 3)"
        raise ShapeError(f"an array of {frames.dtype} {frames.shape} holds no frames", hint)


def resize_and_crop(frames: Frames, height: int, width: int) -> Frames:
    """Frames (F, height, width, 3): scaled to cover that size, and their centre cut out.

    Lanczos filter, widened when shrinking so that nothing aliases; ``frames`` are uint8 (F, h, w,
    3), and a height or width below one is a ShapeError.
    """
    check_frames(frames)
    if height < 1 or width < 1:
        raise ShapeError(f"a size of {height}x{width} has no pixels", "give a size as HxW, 64x64")
    given_height, given_width = frames.shape[1:3]
    if (given_height, given_width) == (height, width):
        return frames.copy()
    # The largest centred box with the wanted aspect ratio: cropping first and scaling then is
    # the same as scaling to cover and cropping, with one filter pass.
    scale = min(given_height / height, given_width / width)
    # Rounding must not push the box over the border by the last digit.
    kept_height = min(height * scale, given_height)
    kept_width = min(width * scale, given_width)
    top, left = (given_height - kept_height) / 2, (given_width - kept_width) / 2
    box = (left, top, left + kept_width, top + kept_height)
    lanczos = Image.Resampling.LANCZOS
    resized = [Image.fromarray(f).resize((width, height), lanczos, box) for f in frames]
    return np.stack([np.asarray(image) for image in resized])


def to_video(frames: Frames) -> "Tensor":
    """Frames (F, H, W, 3) as a video tokenizer takes them: float32 (1, 3, F, H, W) in [-1, 1]."""
    import torch

    check_frames(frames)
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(torch.float32)
    return (pixels / 127.5 - 1).permute(3, 0, 1, 2).unsqueeze(0)


def to_frames(video: "Tensor", rounding: Rounding = "nearest") -> Frames:
    """Frames uint8 (F, H, W, 3) of one decoded video, (3, F, H, W) or (1, 3, F, H, W), in [-1, 1].

    Values outside saturate; NaN is a ValueError. ``truncate`` is the reference's rounding.
    """
    import torch

    video = video[0] if video.ndim == 5 else video
    if bool(torch.isnan(video).any()):
        raise ValueError("pixels are NaN")
    # Multiplying before adding is what makes the truncated values match the reference's.
    scaled = (video.detach().to(torch.float32) * 127.5 + 127.5).clamp(0, 255)
    pixels = (scaled.round() if rounding == "nearest" else scaled).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(1, 2, 3, 0).cpu().numpy())


def contact_sheet(clips: Sequence[Frames], columns: int, num_shown: int = 5) -> Frames:
    """One picture (H, W, 3) of many clips: each a strip of frames, in rows of so many columns.

    They are frames (H, W, 3) or clips (F, H, W, 3), all of one height and width. ``num_shown``
    frames of each are shown at most, evenly spaced, first and last among them.
    """
    strips = []
    for clip in clips:
        frames = clip[None] if clip.ndim == 3 else clip
        check_frames(frames)
        shown = np.linspace(0, len(frames) - 1, min(num_shown, len(frames))).round().astype(int)
        strips.append(np.concatenate(list(frames[shown]), axis=1))
    if len({clip.shape[-3:] for clip in clips}) > 1:
        raise ValueError("clips of one sheet need one height and width")
    height, width = strips[0].shape[0], max(strip.shape[1] for strip in strips)
    rows = -(-len(strips) // columns)
    columns = min(columns, len(strips))
    shape = (rows * (height + _GAP_PX) + _GAP_PX, columns * (width + _GAP_PX) + _GAP_PX, 3)
    sheet: Frames = np.full(shape, 255, np.uint8)
    for k, strip in enumerate(strips):
        top = k // columns * (height + _GAP_PX) + _GAP_PX
        left = k % columns * (width + _GAP_PX) + _GAP_PX
        sheet[top : top + height, left : left + strip.shape[1]] = strip
    return sheet
