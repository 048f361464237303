"""Frames out of films, animations, images and folders of PNG frames; see docs/reading.md."""

import math
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from ursa_core.errors import DataError, UrsaError, UsageError, unreadable
from ursa_core.media import sources
from ursa_core.media.frames import Clip, Frames
from ursa_core.media.images import Colour, open_folder, open_image
from ursa_core.media.sources import Load, Shown, Source
from ursa_core.places import located, regular_file

WHITE = (255, 255, 255)
_EXPECTED = "give a film, an animation, an image or a folder of PNG frames"


@dataclass(frozen=True)
class OpenMedia:
    """An opened file: frames (H, W, 3) that haven't been read yet, and what it states."""

    frames: Iterator[Frames]
    is_still: bool
    seconds: float | None  # None for an image
    notes: tuple[str, ...]


def read_media(
    path: str | Path,
    fps: float | None = None,
    max_frames: int | None = None,
    background: Colour = WHITE,
    source_fps: float | None = None,
) -> Clip:
    """The clip in a film, animation, image or folder of PNG frames.

    The content decides what it is, not the file's extension.

    Args:
        path: File that PyAV or Pillow reads, or folder of PNG frames in natural order.
        fps: Frames sampled per second, each the nearest in time. None reads at the file's own
            rate: every frame once if they come evenly, otherwise longer ones repeated.
        max_frames: Most frames to read; None reads to the end.
        background: RGB colour behind transparent pixels.
        source_fps: Frames per second of the file, whatever it states.

    Raises:
        DataError: The file is missing, empty, damaged, truncated, too large or no picture.
        UsageError: fps, max_frames or source_fps isn't positive.
    """
    _check(fps, max_frames, source_fps)
    source = _open(path := located(path), background, source_fps)
    timed, notes = _held(path, _frames(path, source, fps), max_frames), source.notes
    if source.is_still:
        return Clip(timed[0][1][None], None, source.metadata, notes)
    if fps is None:
        fps, is_even = sources.own_rate([seconds for seconds, _ in timed], source.rates)
        if not is_even:
            shown = ((seconds, lambda frame=frame: frame) for seconds, frame in timed)
            sampled = ((seconds, load()) for seconds, load in sources.at_rate(shown, fps))
            timed = _held(path, sampled, max_frames)
            notes += (f"{path} varies its frame rate and is taken at {fps:.4g} a second",)
    return Clip(np.stack([frame for _, frame in timed]), fps, source.metadata, notes)


def _held(
    path: str | Path, timed: Iterator[tuple[float, Frames]], max_frames: int | None
) -> list[tuple[float, Frames]]:
    """The first frames and their seconds, unless they have unlikely many pixels for the file."""
    files = Path(path).iterdir() if Path(path).is_dir() else [Path(path)]
    size = sum(file.stat().st_size for file in files if file.is_file())
    left = sources.MAX_PIXELS + sources.PIXELS_PER_BYTE * size
    held: list[tuple[float, Frames]] = []
    for seconds, frame in islice(timed, max_frames):
        height, width = frame.shape[:2]
        left -= height * width
        if left < 0:
            raise DataError(
                f"{path} has more than {len(held)} frames of {height}x{width} pixels in {size} "
                "bytes, and so many aren't held in memory",
                "scale it down, or cut a shorter part out of it",
            )
        held.append((seconds, frame))
    return held


def open_media(
    path: str | Path, fps: float | None = None, source_fps: float | None = None
) -> OpenMedia:
    """A file whose frames are read one by one, holding no more than a few.

    As ``read_media`` gives them, but without a rate each frame once, however long it is shown.
    """
    _check(fps, None, source_fps)
    source = _open(path := located(path), WHITE, source_fps)
    frames = (frame for _, frame in _frames(path, source, fps))
    return OpenMedia(frames, source.is_still, source.seconds, source.notes)


def measure_length(
    path: str | Path, fps: float, source_fps: float | None = None
) -> tuple[int, float]:
    """Number of frames that ``read_media`` gives at a rate, and seconds, without making any."""
    source = _open(path := located(path), WHITE, source_fps)
    if source.is_still:
        return 1, 0.0
    lengths: list[float] = []

    def noted() -> Shown:
        for seconds, load in source.shown:
            lengths.append(seconds)
            yield seconds, load

    try:
        count = sum(1 for _ in sources.at_rate(noted(), fps))
    except file_faults() as error:
        raise _unreadable(path, error) from error
    return count, sum(lengths)


def _check(fps: float | None, max_frames: int | None, source_fps: float | None) -> None:
    for rate in (fps, source_fps):
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            hint = "give one above 0"
            raise UsageError(f"a rate of {rate:g} frames per second can't be sampled", hint)
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"{max_frames} frames can't be read", "give one or more")


def _open(path: Path, background: Colour, source_fps: float | None) -> Source:
    try:
        if path.is_dir():
            source = open_folder(path, background)
        elif regular_file(path).stat().st_size == 0:
            raise DataError(f"{path} is empty", "write or fetch the file again")
        elif (image := open_image(path, background)) is not None:
            source = image
        else:
            from ursa_core.media.films import open_film  # PyAV: not every machine has it

            source = open_film(path, background)
    except ImportError as error:
        raise DataError(f"{path} can't be read without PyAV: {error}", "pip install av") from error
    except file_faults() as error:
        raise _unreadable(path, error) from error
    if source_fps is None or source.is_still:
        return replace(source, shown=sources.bounded(path, source.shown))
    evenly = ((1 / source_fps, load) for _, load in source.shown)
    return Source(evenly, rates=(source_fps,), metadata=source.metadata)


def _unreadable(path: str | Path, error: BaseException) -> UrsaError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} doesn't exist", "check the path")
    if isinstance(error, OSError) and error.errno:
        return unreadable(Path(path), error, _EXPECTED)
    cause = str(getattr(error, "strerror", "") or error or type(error).__name__)
    return DataError(f"{path} can't be read: {cause.rstrip('.').lower()}", _EXPECTED)


def _frames(path: str | Path, source: Source, fps: float | None) -> Iterator[tuple[float, Frames]]:
    """Frames, sampled where there is a rate, and their seconds; each fault becomes a DataError."""
    frame: Frames | None = None
    made: Load | None = None
    count = 0
    picked = source.shown if fps is None or source.is_still else sources.at_rate(source.shown, fps)
    try:
        for seconds, load in picked:
            if load is not made:
                shape = None if frame is None else frame.shape
                frame, made = load(), load
                if frame.shape != (shape or frame.shape):
                    fault = f"{path} changes size after {count} frame{'s' * (count != 1)}"
                    raise DataError(fault, "cut it into films of one size")
            count += 1
            yield seconds, frame  # type: ignore[misc]
    except file_faults() as error:
        if not count:
            raise _unreadable(path, error) from error
        fault = f"{path} is damaged or cut off after {count} frame{'s' * (count != 1)}"
        raise DataError(fault, "write or fetch the file again, or ask for fewer frames") from error
    finally:
        source.shown.close()
    if not count:
        raise DataError(f"{path} holds no frames", _EXPECTED)


def file_faults() -> tuple[type[Exception], ...]:
    """Exceptions that Pillow, and PyAV where it is imported, raise for damaged files."""
    films = sys.modules.get("av.error")
    of_python = (OSError, SyntaxError, ValueError, ArithmeticError, EOFError, LookupError)
    of_pillow = (RuntimeError, struct.error, Image.DecompressionBombError)
    return (*of_python, *of_pillow, *([films.FFmpegError] if films else []))
