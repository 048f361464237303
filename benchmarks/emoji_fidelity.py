"""Frame fidelity and steadiness of clips of emoji: whether faces are whole, and hold still.

The matcher goes by colour and outline and does not see a broken face. Here each frame's figure is
brought to one size, its inside is compared with that of every frame of the reference loop, and the
change from frame to frame is compared with the loop's own. A frozen clip has the best fidelity, so
steadiness and motion are always reported with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from ursa_core.media import Frames
from ursa_core.media.ssim import ssim_map

SIDE = 96
"""Pixels to which the figure's bounding box is scaled, in height and width."""
INSIDE = (slice(20, 84), slice(14, 82))
"""Rows and columns of the scaled figure that are compared: the face, without the outline."""
DISTANCE = 33.0
"""RGB distance from the ground from which a pixel is foreground, halfway between the matcher's."""


@dataclass(frozen=True)
class Fidelity:
    """How whole and how steady the figure of a clip is.

    Attributes:
        mean: SSIM with the best frame of the reference, mean over frames.
        worst: Same of the worst frame.
        steadiness: Change between neighbouring frames as a ratio to the reference's.
    """

    mean: float
    worst: float
    steadiness: float


def figure_box(frame: NDArray[np.uint8], ground: NDArray[np.float32]) -> tuple[int, ...]:
    """Left, top, right and bottom of a frame's foreground; of all the frame without any."""
    is_figure = np.linalg.norm(frame.astype(np.float32) - ground, axis=-1) > DISTANCE
    rows, columns = (np.flatnonzero(is_figure.any(axis)) for axis in (1, 0))
    if not len(rows):
        return (0, 0, frame.shape[1], frame.shape[0])
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def ground_of(frames: Frames) -> NDArray[np.float32]:
    """Median RGB of a clip's border."""
    border = [frames[:, :2], frames[:, -2:], frames[:, :, :2], frames[:, :, -2:]]
    return np.median(np.concatenate([part.reshape(-1, 3) for part in border]), 0).astype(np.float32)


def insides(frames: Frames) -> Tensor:
    """The insides of a clip's figures at one size, float32 (F, 3, 64, 68) in [-1, 1]."""
    ground = ground_of(frames)
    figures = [
        Image.fromarray(frame).resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR, figure_box(frame, ground)
        )
        for frame in frames
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(figure)[INSIDE] for figure in figures]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def fidelity(frames: Frames, loop: Frames) -> Fidelity:
    """Frame fidelity and steadiness of a clip.

    The clip may begin anywhere in the loop, so the reference's change is that from the phase on
    at which both agree best.

    Args:
        frames: Clip, uint8 (F, H, W, 3), of two frames or more.
        loop: Every frame of the reference loop once, over the same background.
    """
    ours, theirs = insides(frames), insides(loop)
    likeness = torch.stack([ssim_map(one, theirs).mean((1, 2, 3)) for one in ours])
    best = likeness.amax(1)
    times = torch.arange(len(ours))
    phases = (torch.arange(len(theirs))[:, None] + times) % len(theirs)
    phase = phases[likeness[times, phases].mean(1).argmax()]
    change, wanted = (clip.diff(dim=0).abs().mean() for clip in (ours, theirs[phase]))
    return Fidelity(float(best.mean()), float(best.min()), float(change / wanted.clamp(min=1e-6)))


def _in_part(
    frames: Frames, part: tuple[float, ...], change: Callable[[int, Image.Image], Image.Image]
) -> Frames:
    """A clip with part of each figure changed; ``part`` as shares of the figure's box."""
    changed, ground = [], ground_of(frames)
    for number, frame in enumerate(frames):
        left, top, right, bottom = figure_box(frame, ground)
        width, height = right - left, bottom - top
        x_0, y_0, x_1, y_1 = part
        box = (
            round(left + x_0 * width),
            round(top + y_0 * height),
            round(left + x_1 * width),
            round(top + y_1 * height),
        )
        image = Image.fromarray(frame)
        image.paste(change(number, image.crop(box)), box[:2])
        changed.append(np.asarray(image))
    return np.stack(changed)


EYES = (0.18, 0.3, 0.82, 0.58)
FACE = (0.15, 0.2, 0.85, 0.88)


def blurred_eyes(frames: Frames) -> Frames:
    """Eyes without any detail."""
    return _in_part(frames, EYES, lambda _, eyes: eyes.filter(ImageFilter.GaussianBlur(3)))


def mirrored_face(frames: Frames) -> Frames:
    """Left and right of the face exchanged, within an outline that stays."""
    mirror = Image.Transpose.FLIP_LEFT_RIGHT
    return _in_part(frames, FACE, lambda _, face: face.transpose(mirror))


def swapped_eyes(frames: Frames) -> Frames:
    """Every second frame with the eyes of the frame half a clip away."""
    eyes: list[Image.Image] = []
    _in_part(frames, EYES, lambda _, own: eyes.append(own) or own)

    def swap(number: int, own: Image.Image) -> Image.Image:
        other = eyes[(number + len(eyes) // 2) % len(eyes)]
        return other.resize(own.size) if number % 2 else own

    return _in_part(frames, EYES, swap)


def frozen(frames: Frames) -> Frames:
    """The first frame all the time."""
    return np.repeat(frames[:1], len(frames), 0)


FAULTS: dict[str, Callable[[Frames], Frames]] = {
    "eyes blurred": blurred_eyes,
    "face mirrored": mirrored_face,
    "eyes swapped": swapped_eyes,
    "frozen": frozen,
}
"""Faults that the figures have to see, by name."""
