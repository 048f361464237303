"""Frames out of films, animations, images and folders of PNG frames, one at a time."""

import json
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image, ImageOps, UnidentifiedImageError

from ursa_core.errors import DataError, UsageError
from ursa_core.media.frames import Clip, Frames

WHITE = (255, 255, 255)
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
# Pillow recognises MPEG streams without decoding them, and runs Ghostscript for EPS.
_NOT_BY_PILLOW = ("MPEG", "EPS")
# Demuxers that make pictures out of any text.
_NOT_MEDIA = ("tty",)
_EXIF_DESCRIPTION = 0x010E
_ACCURATE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_EXPECTED = "give a film, an animation, an image or a folder of PNG frames"

# What PyAV and Pillow raise for damaged files.
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    struct.error,
    av.error.FFmpegError,
    Image.DecompressionBombError,
)

_Timed = Iterator[tuple[float, Callable[[], Frames]]]


@dataclass(frozen=True)
class _Source:
    """An opened file: frames come as (seconds, function that makes the (H, W, 3) array)."""

    fps: float | None
    metadata: dict[str, Any]
    timed: _Timed
    seconds: float | None = None


@dataclass(frozen=True)
class OpenMedia:
    """A file whose frames are yet to be read.

    Args:
        frames: one by one, each (H, W, 3).
        fps: frames a second of the file; None for a single image.
        seconds: its length, as it states it itself; None where it doesn't, and of a single image.
    """

    frames: Iterator[Frames]
    fps: float | None
    seconds: float | None


def read_media(
    path: str | Path,
    fps: float | None = None,
    max_frames: int | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Clip:
    """The clip in a film, animation, image or folder of PNG frames.

    What decides is the content, not the file's extension. Rotation marks and non-square pixels
    are honoured, and an animation whose frames are held for different times is read at a
    constant rate, longer frames repeated.

    Args:
        path: a file that PyAV or Pillow reads, or a folder of PNG frames, taken in name order.
        fps: the rate to sample at; each frame is the nearest in time. None takes every frame.
        max_frames: stop after so many frames; None reads to the end.
        background: RGB put behind transparent pixels.

    Raises:
        DataError: the file is missing, empty, damaged, truncated or no picture.
        UsageError: fps or max_frames isn't positive.
    """
    source = _open(Path(path), background)
    frames = list(_checked(Path(path), source, fps, max_frames))
    rate = source.fps if fps is None or source.fps is None else fps
    return Clip(np.stack(frames), rate, source.metadata)


def iter_frames(
    path: str | Path,
    fps: float | None = None,
    max_frames: int | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Iterator[Frames]:
    """The frames of ``read_media`` one by one, each (H, W, 3), holding no more than a few."""
    source = _open(Path(path), background)
    return _checked(Path(path), source, fps, max_frames)


def open_media(path: str | Path, fps: float | None = None) -> OpenMedia:
    """A file, to be read frame by frame as by ``read_media``."""
    source = _open(Path(path), WHITE)
    return OpenMedia(_checked(Path(path), source, fps, None), source.fps, source.seconds)


def count_frames(path: str | Path, fps: float) -> int:
    """How many frames ``read_media`` gives at a rate, found without making any.

    Raises:
        DataError: the file is missing, empty, damaged, truncated or no picture.
    """
    source = _open(Path(path), WHITE)
    if source.fps is None:
        return 1
    try:
        return sum(1 for _ in _nearest(source.timed, fps, source.fps))
    except _FAULTS as error:
        raise _unreadable(Path(path), error) from error


def _open(path: Path, background: tuple[int, int, int]) -> _Source:
    if not path.exists():
        raise DataError(f"{path} doesn't exist", "check the path")
    try:
        if path.is_dir():
            return _open_folder(path, background)
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty", "write or fetch the file again")
        Image.init()
        formats = [name for name in Image.OPEN if name not in _NOT_BY_PILLOW]
        try:
            image = Image.open(path, formats=formats)
        except UnidentifiedImageError:
            return _open_video(path)
        if image.format in _ANIMATED and getattr(image, "is_animated", False):
            return _open_animation(image, background)
        with image:
            pixels = _pixels(image, background)
            return _Source(None, _image_metadata(image), iter([(0.0, lambda: pixels)]))
    except _FAULTS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> DataError:
    if isinstance(error, PermissionError):
        return DataError(f"{path} can't be opened: permission denied", "make the file readable")
    cause = str(getattr(error, "strerror", "") or error or type(error).__name__)
    return DataError(f"{path} can't be read: {cause.rstrip('.').lower()}", _EXPECTED)


def _checked(
    path: Path, source: _Source, fps: float | None, max_frames: int | None
) -> Iterator[Frames]:
    """The sampled frames, with every fault of the file named as a DataError."""
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"a rate of {fps:g} frames a second can't be sampled", "give one above 0")
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"{max_frames} frames can't be read", "give one or more")
    return islice(_faults_named(path, source, fps), max_frames)


def _faults_named(path: Path, source: _Source, fps: float | None) -> Iterator[Frames]:
    shape: tuple[int, ...] | None = None
    count = 0
    timed = source.timed
    picked = timed if fps is None or source.fps is None else _nearest(timed, fps, source.fps)
    try:
        for _, load in picked:
            frame = load()
            shape = shape or frame.shape
            if shape != frame.shape:
                break
            count += 1
            yield frame
    except _FAULTS as error:
        if not count:
            raise _unreadable(path, error) from error
        raise DataError(
            f"{path} is damaged or cut off after {count} frame{'s' * (count != 1)}",
            "write or fetch the file again, or ask for fewer frames",
        ) from error
    finally:
        if hasattr(timed, "close"):
            timed.close()
    if shape is None:
        raise DataError(f"{path} holds no frames", _EXPECTED)
    if shape != frame.shape:
        raise DataError(
            f"{path} changes size after {count} frame{'s' * (count != 1)}",
            "cut it into films of one size",
        )


def _nearest(timed: _Timed, fps: float, source_fps: float) -> _Timed:
    """Of the given frames the nearest to each k/fps, up to the end of the last one."""
    k = 0
    start = shown_at = 0.0
    load: Callable[[], Frames] | None = None
    for time, next_load in timed:
        if load is None:
            start = time
        while load is not None and 2 * k / fps <= shown_at + time - start:
            yield k / fps, load
            k += 1
        shown_at, load = time - start, next_load
    while load is not None and k / fps < shown_at + 1 / source_fps - 1e-6:
        yield k / fps, load
        k += 1


def _open_video(path: Path) -> _Source:
    # Playlists and the like may not reach beyond the machine's own files.
    try:
        container = av.open(
            f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except av.error.FFmpegError as error:
        if isinstance(error, PermissionError):
            raise
        raise DataError(f"{path} is no film or image, or is damaged", _EXPECTED) from error
    covers = Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams or container.format.name in _NOT_MEDIA:
        container.close()
        raise DataError(f"{path} holds no pictures", _EXPECTED)
    stream = streams[0]
    stream.thread_type = "AUTO"
    fps = float(stream.average_rate or stream.guessed_rate or Fraction(25))
    tags = {**container.metadata, **stream.metadata}
    comment = next((value for key, value in tags.items() if key.lower() == "comment"), "")
    seconds: float | None = None
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None and len(container.streams) == 1:
        seconds = container.duration / av.time_base
    frames = _video_frames(container, stream, fps, seconds)
    return _Source(fps, _parsed(comment, tags), frames, seconds)


def _video_frames(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    fps: float,
    seconds: float | None,
) -> _Timed:
    pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
    start = end = 0.0
    count = 0
    with container:
        for frame in container.decode(stream):
            time = count / fps if frame.time is None else frame.time
            start = time if count == 0 else start
            end = time + 1 / fps - start
            count += 1
            yield time, partial(_rgb, frame, pixel_aspect)
    # Some demuxers take a missing tail for the end; files may state a length off by a few frames.
    if count and seconds is not None and seconds - end > max(0.02 * seconds, 3.5 / fps):
        raise EOFError(f"{end:.2f} of {seconds:.2f} seconds")


def _rgb(frame: av.VideoFrame, pixel_aspect: Fraction) -> Frames:
    known = frame.colorspace in {int(space) for space in Colorspace}
    # Films without a mark follow their size: BT.709 from 720 lines on, else BT.601.
    guess = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    is_yuv = frame.format.name.startswith(("yuv", "nv", "p0", "uyvy"))
    array = frame.reformat(
        width=max(round(frame.width * pixel_aspect), 1),
        format="rgb24",
        src_colorspace=Colorspace(frame.colorspace) if known else guess if is_yuv else None,
        dst_color_range=ColorRange.JPEG,
        interpolation=_ACCURATE,
    ).to_ndarray()
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90) % 4))


def _open_animation(image: Image.Image, background: tuple[int, int, int]) -> _Source:
    durations = []
    try:
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            image.load()
            durations.append(float(image.info.get("duration", 0)) or 100.0)  # as browsers do
    except BaseException:
        image.close()
        raise
    shortest = max(min(durations), 20.0)
    ticks = [max(round(duration / shortest), 1) for duration in durations]
    fps = 1000 * sum(ticks) / sum(durations)

    def timed() -> _Timed:
        count = 0
        with closing(image):
            for k, repeats in enumerate(ticks):
                image.seek(k)
                pixels = _pixels(image, background)
                for _ in range(repeats):
                    yield count / fps, lambda pixels=pixels: pixels  # type: ignore[misc]
                    count += 1

    image.seek(0)
    return _Source(fps, _image_metadata(image), timed(), sum(durations) / 1000)


def _open_folder(path: Path, background: tuple[int, int, int]) -> _Source:
    files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".png")
    if not files:
        raise DataError(f"the folder {path} holds no PNG frames", _EXPECTED)
    with Image.open(files[0]) as first:
        metadata = _image_metadata(first)
        fps = float(first.info.get("fps", 25))

    def load(file: Path) -> Frames:
        with Image.open(file) as image:
            return _pixels(image, background)

    timed = ((k / fps, partial(load, file)) for k, file in enumerate(files))
    return _Source(fps, metadata, timed, len(files) / fps)


def _pixels(image: Image.Image, background: tuple[int, int, int]) -> Frames:
    """RGB of the image's present frame, upright and opaque."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would saturate
        grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        upright = Image.fromarray(grey)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        opaque = Image.new("RGBA", upright.size, (*background, 255))
        upright = Image.alpha_composite(opaque, upright)
    return np.array(upright.convert("RGB"))


def _image_metadata(image: Image.Image) -> dict[str, Any]:
    tags = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    comment = image.info.get("comment", image.info.get("Comment", ""))
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace")
        tags["comment"] = comment
    description = image.getexif().get(_EXIF_DESCRIPTION, "")
    return _parsed(str(comment or description), tags)


def _parsed(comment: str, tags: dict[str, str]) -> dict[str, Any]:
    """The JSON object that ``write_media`` puts into the comment, else the tags as they are."""
    try:
        parsed = json.loads(comment)
    except ValueError:
        return dict(tags)
    return parsed if isinstance(parsed, dict) else dict(tags)
