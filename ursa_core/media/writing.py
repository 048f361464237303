"""Clips into files: mp4, gif, webp, png, lossless mkv or a folder of PNG frames."""

import itertools
import json
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from ursa_core.errors import ShapeError, UsageError
from ursa_core.files import check_folder_of, whole
from ursa_core.grids import PixelShape
from ursa_core.media.frames import Frames, check_frames

if TYPE_CHECKING:
    import av

FORMATS = (".mp4", ".mkv", ".gif", ".webp", ".png")
"""Extensions that can be written; a name without one is a folder of PNG frames."""
MIN_FPS = 0.1
"""Slower films have frame times that the formats can't state."""
_FOLDER = "folder"
_BT709 = 1


def check_output(
    path: str | Path, force: bool = False, shape: PixelShape | None = None, fps: float | None = None
) -> None:
    """Refuse an output that couldn't be written, before any work is done for it.

    Shape and rate of the clip are checked as far as they are known. With ``force`` an existing
    file, or folder of PNG frames, may be replaced; otherwise it is a UsageError. Others are those
    of `check_format`, and a DataError where the folder is missing or can't be written.
    """
    check_format(path, shape, fps)
    check_folder_of(path)  # first, as it puts back what a dead process has set aside
    _check_replaceable(Path(path), _kind(path), force)


def check_format(
    path: str | Path, shape: PixelShape | None = None, fps: float | None = None
) -> None:
    """Refuse a format that can't hold a clip, wherever it is written.

    An unknown extension, or a rate it can't show, is a UsageError; several frames for a png, or an
    odd size for an mp4, a ShapeError.
    """
    kind = _kind(path)
    if shape is not None and kind == ".png" and shape.frames != 1:
        hint = "use .mp4, .webp or .gif, or a name without extension for a folder of PNG frames"
        raise ShapeError(f"{path} can hold one frame, not {shape.frames}", hint)
    if shape is not None and kind == ".mp4" and (shape.height % 2 or shape.width % 2):
        hint = "use an even size, or .mkv, .webp or .gif"
        raise ShapeError(f"an mp4 can't have an odd size, {shape.height}x{shape.width}", hint)
    # Viewers show a gif's frames of less than 20 ms much slower.
    fastest = 50 if kind == ".gif" else 1000
    if fps is not None and not MIN_FPS <= fps <= fastest:
        fault = f"{fps:g} frames per second can't be written"
        raise UsageError(fault, f"give {MIN_FPS:g} to {fastest}")


def write_media(
    path: str | Path,
    frames: Frames,
    fps: float,
    metadata: Mapping[str, Any] | None = None,
    crf: int = 18,
) -> None:
    """Write a clip, whole or not at all, in the format that the extension names.

    A gif stores times in hundredths of a second and a webp in thousandths; identical neighbours
    become one longer frame there, which ``read_media`` takes apart again. An existing output is
    replaced: refuse it beforehand with ``check_output``.

    Args:
        path: .mp4, .mkv, .gif, .webp, .png, or no extension for a folder of PNG frames.
        frames: Frames, uint8 (F, H, W, 3).
        fps: Frames per second, 0.1 or more.
        metadata: Values kept in the file as a JSON object; ``prompt`` becomes the title of a film.
        crf: Quality of an mp4, 0 (lossless) to 51 (worst).

    Raises:
        UsageError: The crf is out of range, or as of `check_format`.
        DataError: The disk is full or the folder can't be written; nothing is left behind.
    """
    check_frames(frames)
    check_format(path, PixelShape(*frames.shape[:3]), fps)
    kind, target = _kind(path), Path(path)
    if not 0 <= crf <= 51:
        raise UsageError(f"a CRF of {crf} doesn't exist", "give 0 (lossless) to 51 (worst)")
    _check_replaceable(target, kind, force=True)
    rate = Fraction(fps).limit_denominator(1001)
    comment = json.dumps(dict(metadata or {}))
    title = str((metadata or {}).get("prompt", ""))
    tags = {"comment": comment, "title": title} if title else {"comment": comment}
    writers: dict[str, Callable[[Path], None]] = {
        ".mp4": lambda p: _write_h264(p, frames, rate, tags, crf),
        ".mkv": lambda p: _write_ffv1(p, frames, rate, tags),
        ".gif": lambda p: _write_gif(p, frames, _durations(len(frames), rate, 10), comment),
        ".webp": lambda p: _write_webp(p, frames, _durations(len(frames), rate, 1), comment),
        ".png": lambda p: _write_png(p, frames[0], comment, None),
        _FOLDER: lambda p: _write_folder(p, frames, fps, comment),
    }
    with whole(target) as part:
        writers[kind](part)
        # Somebody may have put something else there meanwhile.
        _check_replaceable(target, kind, force=True)


def _kind(path: str | Path) -> str:
    if str(path).endswith(("/", os.sep)) or not Path(path).suffix:
        return _FOLDER
    extension = Path(path).suffix.lower()
    if extension not in FORMATS:
        hint = f"use {', '.join(FORMATS)}, or none for a folder of PNG frames"
        raise UsageError(f"{path} has the unknown extension {extension}", hint)
    return extension


def _check_replaceable(target: Path, kind: str, force: bool) -> None:
    if not target.exists():
        return
    if target.is_dir() != (kind == _FOLDER):
        is_what, wanted = ("folder", "file") if target.is_dir() else ("file", "folder")
        hint = "choose another name"
        raise UsageError(f"{target} is a {is_what}, and a {wanted} would be written", hint)
    if kind == _FOLDER:
        if os.path.ismount(os.path.realpath(target)):
            hint = "name a folder in it"
            raise UsageError(f"{target} is a disk of its own and can't be replaced", hint)
        found = list(target.iterdir())
        frames = [p for p in found if p.suffix == ".png" and p.stem.isdecimal()]
        if frames != found or not all(p.is_file() and not p.is_symlink() for p in found):
            # Even --force replaces nothing but what an earlier run wrote.
            hint = "choose another folder"
            raise UsageError(f"the folder {target} holds more than PNG frames", hint)
        if not found:
            return
    if not force:
        raise UsageError(f"{target} exists already", "add --force to replace it")


def _write_h264(path: Path, frames: Frames, rate: Fraction, tags: dict[str, str], crf: int) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

    full = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
    to_yuv = partial(
        VideoReformatter().reformat,
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=full,
    )
    with av.open(str(path), "w", "mp4", options={"movflags": "+faststart"}) as container:
        # x264's macroblock tree reads memory that it never wrote: other bytes in every process.
        options = {"crf": str(crf), "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = int(ColorRange.MPEG)
        _encode(container, stream, frames, to_yuv, tags)


def _write_ffv1(path: Path, frames: Frames, rate: Fraction, tags: dict[str, str]) -> None:
    import av

    # Without bitexact the file gets a random number, and is different each time.
    with av.open(str(path), "w", "matroska", options={"fflags": "+bitexact"}) as container:
        # Version 3 carries a checksum in every slice.
        stream = container.add_stream("ffv1", rate=rate, options={"level": "3", "slicecrc": "1"})
        stream.pix_fmt = "bgr0"
        _encode(container, stream, frames, lambda f: f.reformat(format="bgr0"), tags)


def _encode(
    container: "av.container.OutputContainer",
    stream: "av.VideoStream",
    frames: Frames,
    convert: Callable[["av.VideoFrame"], "av.VideoFrame"],
    tags: dict[str, str],
) -> None:
    import av

    stream.height, stream.width = frames.shape[1:3]
    # More threads would make the bytes depend on the machine.
    stream.codec_context.thread_count = 1
    container.metadata.update(tags)
    rate = stream.codec_context.framerate
    for k, array in enumerate(frames):
        frame = convert(av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24"))
        frame.pts, frame.time_base = k, 1 / rate
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _durations(num_frames: int, rate: Fraction, unit_ms: int) -> list[int]:
    """Milliseconds of each frame in whole units; rounding errors don't add up."""
    ends = [round(1000 * k / rate / unit_ms) * unit_ms for k in range(num_frames + 1)]
    return [end - start for start, end in itertools.pairwise(ends)]


def _write_gif(path: Path, frames: Frames, durations: list[int], comment: str) -> None:
    # One palette for the clip, drawn from frames all over it, keeps still areas from flickering.
    shown = frames[np.linspace(0, len(frames) - 1, min(len(frames), 16)).round().astype(int)]
    mosaic = Image.fromarray(shown.reshape(-1, *shown.shape[2:]))
    palette = mosaic.quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)
    no_dither = Image.Dither.NONE
    images = [Image.fromarray(f).quantize(palette=palette, dither=no_dither) for f in frames]
    about = {"duration": durations, "loop": 0, "comment": comment.encode()}
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], **about)


def _write_webp(path: Path, frames: Frames, durations: list[int], comment: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = comment
    images = [Image.fromarray(frame) for frame in frames]
    about = {"duration": durations, "loop": 0, "quality": 90, "method": 4, "exif": exif}
    images[0].save(path, "WEBP", save_all=len(images) > 1, append_images=images[1:], **about)


def _write_png(path: Path, frame: Frames, comment: str, fps: float | None) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", comment)
    if fps is not None:
        text.add_text("fps", repr(float(fps)))
    Image.fromarray(frame).save(path, "PNG", pnginfo=text)


def _write_folder(path: Path, frames: Frames, fps: float, comment: str) -> None:
    path.mkdir()
    for k, frame in enumerate(frames):
        _write_png(path / f"{k:05d}.png", frame, comment, fps)
