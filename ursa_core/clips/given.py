"""Images and clips that a task is given: read, checked, and turned into latent frames."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.clips.joins import with_frames
from ursa_core.errors import DataError, ShapeError
from ursa_core.files import digest_of
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.media import Clip, Frames, read_media, resize_and_crop
from ursa_core.media.quality import psnr
from ursa_core.sampling.conditioning import Cond, Conditioning
from ursa_core.sampling.generate import encode
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames
from ursa_core.tokens.token_files import load_tokens_of

Tokenizer = Callable[[], tuple[VisualTokenizer, str]]
"""Gives a model's tokenizer and its identity."""


@dataclass(frozen=True)
class GivenMedia:
    """Frames out of a file.

    Attributes:
        file: as the user named it.
        sha256: of its bytes.
        frames: uint8 (F, H, W, 3), of the clip's size.
        fps: frames a second; None of an image.
        metadata: what the file says about itself.
        codes: int64 (F, H, W), where the file holds codes.
        notes: what was taken for granted where the file says nothing, for the user to know.
        source_fps: its own rate, as the user stated it.
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


def read_image(file: str, shape: PixelShape, fit: bool) -> GivenMedia:
    """One image of the height and width of ``shape``.

    Args:
        file: an image.
        shape: of the clip that it is for.
        fit: scale it to cover that size and crop it, where it has another.

    Raises:
        DataError: it can't be read, or holds several frames.
        ShapeError: another size, unless ``fit``.
    """
    clip = read_media(file, max_frames=2)
    if len(clip.frames) > 1:
        raise DataError(f"{file} is a film, and an image is needed", "save one frame of it as PNG")
    return _given(file, clip, shape, fit)


def read_clip(
    file: str,
    shape: PixelShape,
    fit: bool,
    fps: float | None = None,
    whole: bool = False,
    source_fps: float | None = None,
) -> GivenMedia:
    """The first ``shape.frames`` frames of a film, or all of them.

    Args:
        file: a film, an animation, an image or a folder of PNG frames.
        shape: frames, height and width that are needed.
        fit: scale to cover the size and crop, where it has another.
        fps: rate to sample at; None is the film's own.
        whole: take all frames, at least ``shape.frames``.
        source_fps: the film's own rate, whatever it says.

    Raises:
        DataError: it can't be read or is shorter.
        ShapeError: another size, unless ``fit``.
    """
    max_frames = None if whole else shape.frames
    clip = read_media(file, fps, max_frames, source_fps=source_fps)
    if len(clip.frames) < shape.frames:
        count = f"{len(clip.frames)} frame{'s' * (len(clip.frames) != 1)}"
        rate = f" at {fps:g} a second" if fps else ""
        raise DataError(
            f"{file} has {count}{rate}, {shape.frames} are needed", "give a longer clip"
        )
    return replace(_given(file, clip, shape, fit), source_fps=source_fps)


def read_tokens(file: str, shape: PixelShape, tokenizer: Tokenizer) -> GivenMedia:
    """The clip that a token file holds, decoded.

    Args:
        file: written by ``ursa tokenize`` or ``ursa sample --save-tokens``.
        shape: height and width that are needed.
        tokenizer: gives that of the model, in its place, and its identity.

    Raises:
        DataError: it can't be read, or was made with another tokenizer.
        ShapeError: another size.
    """
    own, identity = tokenizer()
    tokens = load_tokens_of(file, identity)
    frames = decode_frames(own, tokens.codes)
    if frames.shape[1:3] != (shape.height, shape.width):
        size = f"{frames.shape[1]}x{frames.shape[2]}"
        raise ShapeError(
            f"{file} is {size} pixels, the clip {shape.height}x{shape.width}", f"add --size {size}"
        )
    digest = digest_of(Path(file))
    return GivenMedia(file, digest, frames, tokens.fps, tokens.metadata, tokens.codes)


def _given(file: str, clip: Clip, shape: PixelShape, fit: bool) -> GivenMedia:
    frames, metadata = clip.frames, clip.metadata
    size, wanted = frames.shape[1:3], (shape.height, shape.width)
    if size != wanted and not fit:
        maker = f", made by the model {metadata['model']}," if "model" in metadata else ""
        raise ShapeError(
            f"{file}{maker} is {size[0]}x{size[1]} pixels, the clip {shape.height}x{shape.width}",
            "add --fit to scale and crop it, or make a clip of another size with --size",
        )
    fitted = resize_and_crop(frames, *wanted) if size != wanted else frames
    digest = digest_of(Path(file))
    return GivenMedia(file, digest, fitted, clip.fps, metadata, notes=clip.notes)


def latent_frame_of(frame: int, temporal_stride: int) -> int:
    """The latent frame that stands for a frame (from 0) of a clip."""
    return -(-frame // temporal_stride)


@dataclass(frozen=True)
class Given:
    """Media that a clip is made from, and how they are taken.

    Attributes:
        media: by the frame of the clip (from 0) that they start at; images, but a clip at 0 too.
        cond: ``soft`` or ``lock``.
        cond_noise: in [0, 1].
    """

    media: Mapping[int, GivenMedia]
    cond: Cond
    cond_noise: float

    @property
    def notes(self) -> list[str]:
        """What was taken for granted of the media, for the user to know."""
        return [note for each in self.media.values() for note in each.notes]

    @property
    def pack_key(self) -> Hashable:
        """Equal where the same frames of a clip are given, and taken alike."""
        places = tuple((frame, len(each.frames)) for frame, each in self.media.items())
        return places, self.cond, self.cond_noise

    def check(self, grid: LatentGrid, temporal_stride: int) -> None:
        """Refuse, before anything is encoded, media that leave nothing to make.

        Raises:
            UsageError: they fill a clip of this grid.
        """
        mask = torch.zeros(grid.frames, dtype=torch.bool)
        for frame, given in self.media.items():
            first = latent_frame_of(frame, temporal_stride)
            mask[first : first + 1 + (len(given.frames) - 1) // temporal_stride] = True
        codes = torch.zeros(grid.frames, grid.rows, grid.columns, dtype=torch.int64)
        Conditioning(codes, mask, self.cond, self.cond_noise).check(grid)

    def conditioning(self, bundle: Bundle, grid: LatentGrid) -> Conditioning:
        """The latent frames that the media fill, encoded; ShapeError if they don't fit."""
        stride = bundle.video_tokenizer.strides.temporal
        pieces = {}
        for frame, given in self.media.items():
            # Any latent frame but the first stands for a stride of frames after some frame; an
            # image there follows on itself.
            repeats = 1 if frame == 0 else 1 + stride
            pieces[latent_frame_of(frame, stride)] = np.repeat(given.frames, repeats, axis=0)
        return condition(bundle, grid, pieces, self.cond, self.cond_noise)

    def shown(self, made: Frames) -> Frames:
        """A decoded clip (F, H, W, 3) with the frames given as they are, where they are locked."""
        if self.cond == "soft":
            return made
        return with_frames(made, {at: each.frames for at, each in self.media.items()})

    def kept(self, made: Frames) -> list[dict[str, Any]]:
        """How near a clip (F, H, W, 3) is to what was given: file, frame, frames, PSNR in dB."""
        rows = []
        for frame, given in self.media.items():
            if frame < len(made):  # a loop's end isn't there
                part = made[frame : frame + len(given.frames)]
                row = {"file": given.file, "frame": frame, "frames": len(part)}
                rows.append({**row, "psnr": psnr(part, given.frames)})
        return rows

    @property
    def provenance(self) -> dict[str, Any]:
        """What an output's metadata record of the given files."""
        files = [{**given.provenance, "frame": frame} for frame, given in self.media.items()]
        return {"files": files, "cond": self.cond, "cond_noise": self.cond_noise}


def condition(
    bundle: Bundle, grid: LatentGrid, pieces: Mapping[int, Frames], cond: Cond, cond_noise: float
) -> Conditioning:
    """Given frames as codes of a clip's grid.

    Args:
        bundle: whose tokenizer encodes.
        grid: of the clip.
        pieces: by the first latent frame that they fill, clips uint8 (1 + stride·k, H, W, 3). A
            piece that doesn't fill the first latent frame lends its own first frame as what went
            before, and fills k.
        cond: ``soft`` or ``lock``.
        cond_noise: in [0, 1].
    """
    codes = torch.zeros(grid.frames, grid.rows, grid.columns, dtype=torch.int64)
    mask = torch.zeros(grid.frames, dtype=torch.bool)
    for first, frames in pieces.items():
        latents = encode(bundle, frames).cpu()[min(first, 1) :]
        codes[first : first + len(latents)] = latents
        mask[first : first + len(latents)] = True
    return Conditioning(codes, mask, cond, cond_noise)
