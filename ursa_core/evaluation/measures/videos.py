"""Metrics of any videos that need neither weights nor references: flicker, motion, drift."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ursa_core import __version__
from ursa_core.encoding.sources import MediaFile
from ursa_core.errors import DataError, UrsaError
from ursa_core.evaluation.reports.intervals import Array, wilson
from ursa_core.evaluation.reports.report import Options, Report, Sample, Score
from ursa_core.files import digest_of
from ursa_core.media import Frames, read_media, resize_and_crop
from ursa_core.media.quality import flicker, psnr

BLOCK_PX = 8
_REACH = 7  # largest displacement of a block, in pixels of a frame scaled to _SIDE_PX
_SIDE_PX, _FLOW_FPS, _TOP_SHARE = 128, 8.0, 0.05
_MIN_TEXTURE = 3.0  # standard deviation in levels, below which a block is too plain to follow
_DYNAMIC = 6 / 256  # displacement per frame that VBench counts as motion, in shorter sides

_UNITS = {
    "flicker": "levels", "motion": "% of a side", "dynamic": "share", "colour drift": "levels",
    "kept frames": "dB",
}  # fmt: skip
_NOTES = (
    "flicker: mean change of a pixel from frame to frame, 0 to 255.",
    "motion: of the fastest 5 % of blocks, in an eighth of a second, by block matching.",
    "dynamic: VBench's rule of dynamic degree on that motion, which it takes from RAFT.",
    "colour drift: from the first eighth of the frames to the last.",
)


def report(
    sources: Sequence[MediaFile],
    settings: Options,
    warn: Callable[[str], None],
    on_video: Callable[[], object],
) -> Report:
    """Metrics of some videos, which ``settings`` describe; raises `DataError` where none has any.

    ``warn`` is called with why a file is left out, ``on_video`` after each file.
    """
    samples = []
    for source in sources:
        try:
            samples.append(measure(source))
        except UrsaError as error:
            warn(f"left out: {error.message}")
        finally:
            on_video()
    if not samples:
        raise DataError("no video could be measured", "the warnings say why")
    dynamic = sum(bool(sample.values["dynamic"]) for sample in samples)
    share = Score.of("dynamic", wilson(dynamic, len(samples)), "share", len(samples))
    scores = [
        share if name == "dynamic" else Score.mean_of(name, samples, unit)
        for name, unit in _UNITS.items()
        if any(name in sample.values for sample in samples)
    ]
    num = len(sources) - len(samples)
    notes = (*_NOTES, f"{num} files could not be measured.") if num else _NOTES
    settings = {**settings, "ursa": __version__}
    return Report("videos", settings, not num, scores, samples=samples, notes=notes)


def measure(source: MediaFile) -> Sample:
    """Metrics of a video file, animation or folder of frames; raises `DataError` of a still image.

    ``flicker`` is in levels, 0 to 255; VBench's temporal flickering is (255 − it) / 255. ``motion``
    is the mean displacement of the 5 % fastest blocks in an eighth of a second, in per cent of the
    shorter side; ``colour drift`` is in RGB levels, 0 to 442. ``kept frames`` is the PSNR in dB of
    the frames that the video was given, where its metadata names them and they are unchanged.
    """
    clip = read_media(source.path)
    frames = clip.frames
    if len(frames) < 2:
        raise DataError(f"{source.path} is a still image", "give videos")
    speeds = speeds_of(frames, clip.fps or _FLOW_FPS)
    drift, kept, change = colour_drift(frames), kept_psnr(frames, clip.metadata), flicker(frames)
    values = {"flicker": change, "motion": motion(speeds), "dynamic": is_dynamic(speeds)}
    values |= {"colour drift": drift} | ({} if kept is None else {"kept frames": kept})
    num, height, width = frames.shape[:3]
    shown = f"{num} frames of {height}x{width}; motion {values['motion']:.2f} %, drift {drift:.1f}"
    return Sample(str(source.path.absolute()), f"{source.name}: {shown}", values, -change)


def colour_drift(frames: Frames) -> float:
    """Distance of the mean colour of the last eighth of the frames from that of the first."""
    part = max(1, len(frames) // 8)
    first, last = frames[:part].mean((0, 1, 2)), frames[-part:].mean((0, 1, 2))
    return float(np.linalg.norm(last - first))


def speeds_of(frames: Frames, fps: float) -> Array:
    """Displacement (n,) of the fastest 5 % of blocks in an eighth of a second, in shorter sides."""
    interval = max(1, round(fps / _FLOW_FPS))
    chosen = frames[::interval]
    height, width = chosen.shape[1:3]
    scale = min(1.0, _SIDE_PX / min(height, width))
    size = (max(BLOCK_PX, round(height * scale)), max(BLOCK_PX, round(width * scale)))
    chosen = resize_and_crop(chosen, *size)
    # BT.709 luma, as the films are tagged.
    luma = chosen @ np.array([0.2126, 0.7152, 0.0722])
    pairs = itertools.pairwise(luma)
    lengths = [np.sort(np.hypot(*displacements(*pair)).ravel()) for pair in pairs]
    top = [each[-max(1, round(_TOP_SHARE * each.size)) :].mean() for each in lengths]
    return np.array(top) / min(size)


def motion(speeds: Array) -> float:
    """Mean of speeds, in per cent of the shorter side; 0 of none."""
    return 100 * float(speeds.mean()) if len(speeds) else 0.0


def is_dynamic(speeds: Array) -> bool:
    """VBench's rule: a quarter of the frames move by more than 6 pixels of 256."""
    needed = round(4 * ((len(speeds) + 1) / 16))
    return bool(len(speeds) and (speeds > _DYNAMIC).sum() >= max(needed, 1))


def displacements(before: Array, after: Array) -> tuple[Array, Array]:
    """Pixels (H // 8, W // 8) that each block of luma (H, W) goes down and to the right.

    By full search over whole pixels: of equally good places the nearest is taken, and plain blocks
    stay, so that noise on a flat ground doesn't count as motion.
    """
    rows, columns = before.shape[0] // BLOCK_PX, before.shape[1] // BLOCK_PX
    inner = (slice(rows * BLOCK_PX), slice(columns * BLOCK_PX))
    tiles = (rows, BLOCK_PX, columns, BLOCK_PX)
    blocks = before[inner]
    padded = np.pad(after, _REACH, mode="edge")
    reach = range(-_REACH, _REACH + 1)
    steps = sorted(itertools.product(reach, reach), key=lambda step: step[0] ** 2 + step[1] ** 2)
    best = np.full((rows, columns), np.inf)
    found = np.zeros((2, rows, columns))
    for down, right in steps:
        moved = padded[_REACH + down :, _REACH + right :][: before.shape[0], : before.shape[1]]
        error = np.abs(moved[inner] - blocks).reshape(tiles).mean((1, 3))
        better = error < best - 1e-9
        best = np.where(better, error, best)
        found[:, better] = np.array([[down], [right]])
    found[:, blocks.reshape(tiles).std((1, 3)) < _MIN_TEXTURE] = 0
    return found[0], found[1]


def kept_psnr(frames: Frames, metadata: Mapping[str, Any]) -> float | None:
    """PSNR of the frames that a video was given, in dB, None where its metadata don't name them."""
    found = []
    for path, sha256, at in _given(metadata):
        try:
            if not path.is_file() or digest_of(path) != sha256:
                continue
            own = read_media(path).frames
        except (UrsaError, OSError):
            continue
        part = frames[at : at + len(own)]
        if len(part):
            fitted = resize_and_crop(own[: len(part)], *part.shape[1:3])
            found.append((len(part), psnr(part, fitted)))
    total = sum(num for num, _ in found)
    return sum(num * value for num, value in found) / total if total else None


def _given(metadata: Mapping[str, Any]) -> list[tuple[Path, str, int]]:
    """File, digest and first frame of what a video was given."""
    rows: list[tuple[Mapping[Any, Any], object]] = []
    match metadata.get("given"):
        case {"files": [*files]}:
            rows = [(row, row.get("frame")) for row in files if isinstance(row, dict)]
        case {"files": _}:
            pass
        case {**given}:  # a clip that was made longer
            longer = _count(metadata.get("frames")) - _count(metadata.get("own_frames"))
            rows = [(given, longer if metadata.get("before") else 0)]
    return [(Path(str(r.get("file"))), str(r.get("sha256")), max(_count(at), 0)) for r, at in rows]


def _count(value: object) -> int:
    """A whole number of metadata, which may hold anything; 0 for anything else."""
    return value if type(value) is int else 0
