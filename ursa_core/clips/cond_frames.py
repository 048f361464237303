"""Images and clips that a task is given: read, checked, and turned into latent frames."""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.errors import DataError, ShapeError, UsageError
from ursa_core.files import digest_of
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.media import Clip as MediaClip
from ursa_core.media import Frames, read_media, resize_and_crop
from ursa_core.media.frames import check_frames
from ursa_core.media.images import pixels_of
from ursa_core.media.quality import psnr
from ursa_core.media.reading import WHITE
from ursa_core.media.sources import at_rate
from ursa_core.places import addressed, is_address, mirror_of
from ursa_core.sampling.conditioning import Cond, Conditioning
from ursa_core.sampling.generate import encode
from ursa_core.tokens.token_files import load_tokens_of

if TYPE_CHECKING:
    from ursa_core.clips.requests import Source

FADE_FRAMES = 8
"""Frames over which the difference of given and decoded frames fades out, so that no jump shows."""


@dataclass(frozen=True)
class CondMedia:
    """Frames uint8 (F, H, W, 3) of a clip's size, out of a file or handed over in Python.

    The digest is that of the file's bytes, or of the pixels; codes are int64 (F, H, W), where the
    file holds them; notes are assumptions made where it says nothing, for the user to know.
    """

    file: str
    sha256: str
    frames: Frames
    fps: float | None
    metadata: dict[str, Any]
    codes: Tensor | None = None
    notes: tuple[str, ...] = ()
    source_fps: float | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """What an output's metadata record of the file."""
        stated = {} if self.source_fps is None else {"source_fps": self.source_fps}
        return {"file": self.file, "sha256": self.sha256, **stated}


def label(source: "Source") -> str:
    """Name of what a user gives: the file's as it was given, otherwise the kind of object."""
    if is_address(source):
        return addressed(str(mirror_of(str(source))))
    return str(source) if isinstance(source, str | Path) else f"<{type(source).__name__}>"


def read_image(source: "Source", shape: PixelShape, fit: bool) -> CondMedia:
    """One image of the height and width of ``shape``, to which ``fit`` scales and crops it.

    DataError if it can't be read or holds several frames; ShapeError for another size.
    """
    is_file = isinstance(source, str | Path)
    clip = read_media(str(source), max_frames=2) if is_file else _in_memory(source)
    if len(clip.frames) > 1:
        hint = "save one frame of it as PNG"
        raise DataError(f"{label(source)} is a film, and an image is needed", hint)
    return _given(source, clip, shape, fit)


def read_clip(
    source: "Source",
    shape: PixelShape,
    fit: bool,
    fps: float | None = None,
    whole: bool = False,
    source_fps: float | None = None,
) -> CondMedia:
    """The first ``shape.frames`` frames of a film, or with ``whole`` all of them.

    They are sampled at ``fps``, or at the film's own rate, which is ``source_fps`` whatever it
    states. A clip made here or an array without a rate is taken frame by frame. DataError if it
    can't be read or is shorter; ShapeError for another size, without ``fit``.
    """
    max_frames = None if whole else shape.frames
    if isinstance(source, str | Path):
        clip = read_media(str(source), fps, max_frames, source_fps=source_fps)
    else:
        clip = _in_memory(source)
        own, frames = source_fps or clip.fps, clip.frames
        if fps and own and fps != own:
            shown = ((1 / own, partial(clip.frames.__getitem__, k)) for k in range(len(frames)))
            frames = np.stack([load() for _, load in at_rate(shown, fps)])
        clip = replace(clip, frames=frames[:max_frames], fps=fps or own)
    if len(clip.frames) < shape.frames:
        count = f"{len(clip.frames)} frame{'s' * (len(clip.frames) != 1)}"
        rate = f" at {fps:g} a second" if fps else ""
        hint = "give a longer clip"
        raise DataError(f"{label(source)} has {count}{rate}, {shape.frames} are needed", hint)
    return replace(_given(source, clip, shape, fit), source_fps=source_fps)


def _in_memory(source: "Source") -> MediaClip:
    """A clip from an array, a PIL image or a clip made here."""
    if isinstance(source, Image.Image):
        try:
            source.load()
            return MediaClip(pixels_of(source, WHITE, label(source))[None])
        except (OSError, ValueError) as error:
            raise DataError(f"the image can't be read: {error}", "give a whole one") from error
    frames = np.asarray(getattr(source, "frames", source))
    frames = frames[None] if frames.ndim == 3 else frames
    check_frames(frames)
    return MediaClip(frames, getattr(source, "fps", None), getattr(source, "metadata", {}))


def read_tokens(
    file: str, shape: PixelShape, tokenizer: str, decoded: Callable[[Tensor], Frames]
) -> CondMedia:
    """The clip of the height and width of ``shape`` that a token file of a tokenizer holds.

    DataError if it can't be read, or is of another tokenizer; ShapeError for another size.
    """
    tokens = load_tokens_of(file, tokenizer)
    frames = decoded(tokens.codes)
    _, height, width, _ = frames.shape
    if (height, width) != (shape.height, shape.width):
        fault = f"{file} is {height}x{width} pixels, the clip {shape.height}x{shape.width}"
        raise ShapeError(fault, f"add `size={height}x{width}`")
    digest = digest_of(Path(file))
    return CondMedia(file, digest, frames, tokens.fps, tokens.metadata, tokens.codes)


def _given(source: "Source", clip: MediaClip, shape: PixelShape, fit: bool) -> CondMedia:
    frames, metadata, name = clip.frames, clip.metadata, label(source)
    (_, height, width, _), wanted = frames.shape, (shape.height, shape.width)
    if (height, width) != wanted and not fit:
        maker = f", made by the model {metadata['model']}," if "model" in metadata else ""
        raise ShapeError(
            f"{name}{maker} is {height}x{width} pixels, the clip {shape.height}x{shape.width}",
            "add `fit=True` to scale and crop it, or make a clip of another size with `size`",
        )
    fitted = frames if (height, width) == wanted else resize_and_crop(frames, *wanted)
    if isinstance(source, str | Path):
        digest = digest_of(mirror_of(source))
    else:
        digest = hashlib.sha256(frames.tobytes()).hexdigest()
    return CondMedia(name, digest, fitted, clip.fps, metadata, notes=clip.notes)


def latent_frame_of(frame: int, temporal_stride: int) -> int:
    """The latent frame that stands for a frame (from 0) of a clip."""
    return -(-frame // temporal_stride)


@dataclass(frozen=True)
class CondFrames:
    """Images, or one clip at 0, by the frame (from 0) where they start, and how they are taken."""

    media: Mapping[int, CondMedia]
    cond: Cond
    cond_noise: float

    @property
    def notes(self) -> list[str]:
        """Assumptions made about the media, for the user to know."""
        return [note for each in self.media.values() for note in each.notes]

    @property
    def pack_key(self) -> Hashable:
        """Equal where the same frames of a clip are given, and taken the same way."""
        places = tuple((frame, len(each.frames)) for frame, each in self.media.items())
        return places, self.cond, self.cond_noise

    def check(self, grid: LatentGrid, temporal_stride: int) -> None:
        """Refuse, before anything is encoded, media that leave nothing of a grid to make."""
        mask = torch.zeros(grid.frames, dtype=torch.bool)
        for frame, media in self.media.items():
            first = latent_frame_of(frame, temporal_stride)
            mask[first : first + 1 + (len(media.frames) - 1) // temporal_stride] = True
        codes = torch.zeros(grid.frames, grid.rows, grid.columns, dtype=torch.int64)
        Conditioning(codes, mask, self.cond, self.cond_noise).check(grid)

    def conditioning(self, bundle: Bundle, grid: LatentGrid) -> Conditioning:
        """The latent frames that the media fill, encoded; ShapeError if they don't fit."""
        stride = bundle.video_tokenizer.strides.temporal
        pieces = {}
        for frame, media in self.media.items():
            # Any latent frame but the first stands for a stride of frames after some frame; an
            # image there follows on itself.
            repeats = 1 if frame == 0 else 1 + stride
            pieces[latent_frame_of(frame, stride)] = np.repeat(media.frames, repeats, axis=0)
        return condition(bundle, grid, pieces, self.cond, self.cond_noise)

    def shown(self, made: Frames) -> Frames:
        """A decoded clip (F, H, W, 3) with the frames given as they are, where they are locked."""
        if self.cond == "soft":
            return made
        return with_frames(made, {at: each.frames for at, each in self.media.items()})

    def kept(self, made: Frames) -> list[dict[str, Any]]:
        """Likeness of a clip (F, H, W, 3) to what was given: file, frame, frames, PSNR in dB."""
        return [
            {"file": media.file, "frame": frame, "frames": len(media.frames),
             "psnr": psnr(made[frame : frame + len(media.frames)], media.frames)}
            for frame, media in self.media.items()
            if frame < len(made)  # a loop's end isn't there
        ]  # fmt: skip

    @property
    def provenance(self) -> dict[str, Any]:
        """What an output's metadata record of the given files."""
        files = [{**media.provenance, "frame": frame} for frame, media in self.media.items()]
        return {"files": files, "cond": self.cond, "cond_noise": self.cond_noise}


def condition(
    bundle: Bundle, grid: LatentGrid, pieces: Mapping[int, Frames], cond: Cond, cond_noise: float
) -> Conditioning:
    """Given frames as codes of a clip's grid.

    ``pieces`` are clips uint8 (1 + stride·k, H, W, 3) by the first latent frame that they fill. A
    piece that doesn't fill the first latent frame lends its own first frame as what went before,
    and fills k.
    """
    codes = torch.zeros(grid.frames, grid.rows, grid.columns, dtype=torch.int64)
    mask = torch.zeros(grid.frames, dtype=torch.bool)
    for first, frames in pieces.items():
        latents = encode(bundle, frames).cpu()[min(first, 1) :]
        codes[first : first + len(latents)] = latents
        mask[first : first + len(latents)] = True
    return Conditioning(codes, mask, cond, cond_noise)


def place_keyframes(
    first: "Source | None",
    last: "Source | None",
    between: "Sequence[tuple[Source, int]]",
    num_frames: int,
    temporal_stride: int,
    loop: bool = False,
) -> "Mapping[int, Source]":
    """Images by the frame (from 0) of the clip that shows them, in order.

    ``last`` is the image of the last frame; in a loop of the frame behind it, which follows when
    the clip is played again. An image fills the ``temporal_stride`` frames of its latent frame.
    UsageError for a frame past the end, out of order, given twice, or in the same latent frame.
    """
    for image, frame in between:
        if not 0 <= frame < num_frames:
            fault = f"the keyframe {label(image)}@{frame} isn't in a clip of {num_frames} frames"
            raise UsageError(fault, f"give a frame from 0 to {num_frames - 1}, or more `frames`")
    ends = [(first, 0)] if first is not None else []
    ends += [*between]
    ends += [(last, num_frames - (not loop))] if last is not None else []
    for (_, early), (image, late) in pairwise(ends):
        if late < early:
            fault = f"the keyframe {label(image)}@{late} stands behind that of frame {early}"
            raise UsageError(fault, "give the keyframes in rising order")
        if late == early:
            fault = f"frame {late} is given twice, the second time as {label(image)}"
            raise UsageError(fault, "give one")
        if latent_frame_of(early, temporal_stride) == latent_frame_of(late, temporal_stride):
            hint = f"keep {temporal_stride} frames or more between keyframes"
            raise UsageError(f"frames {early} and {late} are too near to hold an image each", hint)
    return {frame: image for image, frame in ends}


def following(frames: Frames, window: Frames, overlap: int) -> Frames:
    """The window's frames behind the overlap, joined to the last of ``frames`` without a seam.

    Both are uint8 (F, H, W, 3); the window's frame ``overlap − 1`` shows the last of ``frames``.
    """
    return with_frames(window[overlap - 1 :], {0: frames[-1:]})[1:]


def with_frames(made: Frames, given: Mapping[int, Frames]) -> Frames:
    """A decoded clip uint8 (F, H, W, 3) that shows given frames as they are, and leads up to them.

    Those are uint8 (n, H, W, 3) by the frame (from 0) that they start at, apart from one another.
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
    for at, last in ends:
        result[at : last + 1] = given[at]
    return np.asarray(result.round().clip(0, 255), np.uint8)
