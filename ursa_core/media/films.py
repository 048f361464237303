"""Films, by PyAV."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import av
import av.error
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ursa_core.errors import DataError
from ursa_core.media.frames import Frames
from ursa_core.media.images import Colour, on_background, parsed
from ursa_core.media.sources import MAX_PIXELS, Load, Shown, Source, check_size

# Demuxers that make pictures out of any text.
_NOT_MEDIA = ("tty",)
_ACCURATE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# FFmpeg's own decoders of these leave alpha out.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_REORDERED = 8
"""Frames by which stated times may be out of order, where they follow decoding."""
_BACK_SECONDS = 0.5
_JUMP_SECONDS = 10.0
"""Steps of time that B-frames don't make, and that a stream doesn't make if it is one recording."""
_PQ, _HLG = 16, 18  # transfers by their numbers in ITU-T H.273
# White of standard range (ITU-R BT.2408): its light in PQ, cd/m², and its signal in HLG.
_PQ_WHITE, _HLG_WHITE = 203.0, 0.75
_Signal = NDArray[np.float64]
_KNEE = 0.75
_POINTS = 65
# BT.2020 to BT.709, the inverse of ITU-R BT.2087.
_TO_709 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]


def open_film(path: Path, background: Colour) -> Source:
    """The film in a file, over a colour: the video stream marked as default, else the largest.

    What is no film, or too large, is a DataError, and a damaged one an ``av.error.FFmpegError``.
    """
    # Playlists and the like may not reach beyond the machine's own files.
    try:
        container = av.open(
            f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except av.error.FFmpegError as error:
        if isinstance(error, PermissionError):
            raise
        hint = "give a film, an animation or an image"
        raise DataError(f"{path} is no film or image, or is damaged", hint) from error
    try:
        stream = _main_stream(path, container)
    except DataError:
        container.close()
        raise
    stated = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    rates = tuple(float(rate) for rate in stated if rate) or (25.0,)
    tags = {**container.metadata, **stream.metadata}
    comment = next((value for key, value in tags.items() if key.lower() == "comment"), "")
    start, end = _seconds(stream, stream.start_time) or 0.0, _stated_ends(container, stream)[0]
    lasts = None if end is None or end <= start else end - start
    aspect = stream.sample_aspect_ratio or Fraction(1)  # width of a pixel by its height
    rgb = partial(_rgb, path, aspect=aspect, background=background)
    shown = _shown(container, stream, min(rates), rgb)
    return Source(shown, False, rates, lasts, parsed(comment, tags))


def _main_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    covers = Disposition.attached_pic
    found = [s for s in container.streams.video if not s.disposition & covers]
    streams = [s for s in found if s.codec_context is not None]  # which FFmpeg can decode
    if not streams or container.format.name in _NOT_MEDIA:
        raise DataError(f"{path} holds no pictures", "give a film, an animation or an image")
    default = Disposition.default
    stream = max(streams, key=lambda s: (bool(s.disposition & default), s.width * s.height))
    check_size(path, stream.height, stream.width * max(float(stream.sample_aspect_ratio or 1), 1.0))
    return stream


def _seconds(stream: av.stream.Stream, count: int | None) -> float | None:
    return None if count is None or not stream.time_base else float(count * stream.time_base)


def _stated_ends(
    container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[float | None, float | None]:
    """Stated ends of the film and of all streams, on the container's clock."""
    if _is_joined(container):  # FFmpeg guesses there
        return None, None
    is_matroska = "matroska" in container.format.name
    whole = None
    if container.duration is not None:
        start = 0 if is_matroska else container.start_time or 0
        whole = (container.duration + start) / av.time_base
    ticks = stream.duration
    if ticks is not None and container.format.name == "avi":
        ticks = max(ticks, stream.frames)  # that of a file cut off is corrected, this isn't
    film = _seconds(stream, ticks)
    if film is not None:
        film += _seconds(stream, stream.start_time) or 0.0
    elif is_matroska:
        film = _clock(stream.metadata.get("DURATION", ""))
    return (whole if film is None and len(container.streams) == 1 else film), whole


def _is_joined(container: av.container.InputContainer) -> bool:
    """Whether time may begin again within a file of this format, as in transport streams."""
    flag = av.format.Flags.ts_discont.value
    return bool(container.format.flags & flag)  # type: ignore[operator]


def _clock(text: str) -> float | None:
    try:
        hours, minutes, seconds = (float(part) for part in text.split(":"))
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


class _Decoding:
    """The frames of a stream in the order of presentation; ``reached`` is other streams' end."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self._container, self._stream = container, stream
        self._codec = stream.codec_context
        self.reached = 0.0
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        name = _WITH_ALPHA.get(self._codec.name)
        if tags.get("alpha_mode") == "1" and name in av.codecs_available:
            own = av.CodecContext.create(name, "r")
            own.extradata = self._codec.extradata
            self._codec = own  # type: ignore[assignment]
        self._codec.thread_type = "AUTO"
        # Twice, as decoders pad frames; ``_rgb`` checks the size without padding.
        self._codec.options = {"max_pixels": str(2 * MAX_PIXELS)}

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux():
            if packet.stream.index == self._stream.index:
                # Within a film an empty packet shows the frame before on; at its end it flushes.
                if packet.size or packet.dts is None:
                    yield from self._codec.decode(packet)
            elif packet.pts is not None:
                end = _seconds(packet.stream, packet.pts + (packet.duration or 0)) or 0.0
                self.reached = max(self.reached, end)


def _shown(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    fps: float,
    rgb: Callable[[av.VideoFrame], Frames],
) -> Shown:
    """Each frame and how long it is shown: until the next one, the last as the file states."""
    decoding = _Decoding(container, stream)
    elapsed, num_shown, end = 0.0, 0, 0.0
    with container:
        before: tuple[float, float, Load] | None = None
        for time, stated, frame in _in_order(decoding, container, fps):
            if before is not None:
                lasts = max(time - before[0], 0.0)
                elapsed += lasts
                num_shown += 1
                yield lasts, before[2]
            before = time, stated, partial(rgb, frame)
            if frame.time is not None:
                end = max(end, frame.time)
        if before is None:
            return
        lasts = before[1] or (elapsed / num_shown if elapsed else 1 / fps)
        yield lasts, before[2]
        # Some demuxers take a missing tail for the end; files may be off by a few frames.
        film, whole = _stated_ends(container, stream)
        slack = max(0.02 * (film or whole or 0.0), 3.5 / fps)
        reached = max(end + lasts, decoding.reached)
        if film is not None and (whole is None or abs(film - whole) > slack):
            whole, reached = film, end + lasts  # else it may be the length of the longest stream
        if whole is not None and whole - reached > slack:
            raise EOFError(f"{reached:.2f} of {whole:.2f} seconds")


def _in_order(
    frames: _Decoding, container: av.container.InputContainer, fps: float
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Seconds, stated duration (0 if none) and frame, the times ascending.

    Some containers state times in the order of decoding, which B-frames change: the first frame
    shown has the least of them. A step back that is too long for that is another recording behind
    the first, and goes on where that ended; so is a long step ahead, in formats that are joined so.
    """
    is_joined = _is_joined(container)
    waiting: deque[av.VideoFrame] = deque()
    times: list[tuple[float, float]] = []
    shift, latest = 0.0, None
    for frame in frames:
        time = frame.time
        if time is None:
            time = 0.0 if latest is None else latest - shift + 1 / fps
        if latest is not None:
            step = time + shift - latest
            if step < -max(_REORDERED / fps, _BACK_SECONDS) or (is_joined and step > _JUMP_SECONDS):
                shift -= step - 1 / fps
        latest = time + shift if latest is None else max(latest, time + shift)
        # Some containers state a tick of their clock for every frame, which says nothing.
        is_stated = frame.time_base is not None and frame.duration > 1
        stated = float(frame.duration * frame.time_base) if is_stated else 0.0  # type: ignore[operator]
        waiting.append(frame)
        heapq.heappush(times, (time + shift, stated))
        if len(waiting) > _REORDERED:
            yield (*heapq.heappop(times), waiting.popleft())
    while waiting:
        yield (*heapq.heappop(times), waiting.popleft())


def _rgb(path: Path, frame: av.VideoFrame, aspect: Fraction, background: Colour) -> Frames:
    """RGB of a frame, as players show it: square pixels, upright, opaque, in the range of SDR."""
    # A film may change its size after what its header states.
    check_size(path, frame.height, frame.width * max(float(aspect), 1.0))
    known = frame.colorspace in {int(space) for space in Colorspace}
    # Films without a mark follow their size: BT.709 from 720 lines on, else BT.601.
    is_hdr = frame.color_trc in (_PQ, _HLG)
    usual = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    guess = Colorspace.BT2020 if is_hdr else usual
    is_yuv = frame.format.name.startswith(("yuv", "nv", "p0", "uyvy"))
    has_alpha = any(component.is_alpha for component in frame.format.components)
    array: Frames = frame.reformat(
        width=max(round(frame.width * aspect), 1),
        format="rgba" if has_alpha else "rgb24",
        src_colorspace=Colorspace(frame.colorspace) if known else guess if is_yuv else None,
        dst_color_range=ColorRange.JPEG,
        interpolation=_ACCURATE,
    ).to_ndarray()  # type: ignore[assignment]
    if has_alpha:
        array = np.asarray(on_background(Image.fromarray(array), background).convert("RGB"))
    if is_hdr:
        array = np.asarray(Image.fromarray(array).filter(_sdr_table(frame.color_trc)))
    return np.ascontiguousarray(_turned(array, frame))


def _turned(array: Frames, frame: av.VideoFrame) -> Frames:
    """Frame (H, W, 3) turned and mirrored by the quarter that its display matrix is nearest to."""
    try:
        matrix = frame.side_data[SideData.DISPLAYMATRIX]  # type: ignore[typeddict-item]
    except KeyError:
        return array
    # [a b u; c d v; x y w]: x' = a·x + c·y, y' = b·x + d·y.
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        array, a, d = array.transpose(1, 0, 2), c, b
    return array[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


@cache
def _sdr_table(transfer: int) -> ImageFilter.Color3DLUT:
    """What turns BT.2020 primaries in a transfer of HDR into sRGB.

    Light up to three quarters of white stays as it is; what is brighter nears white by an
    exponential, so that it isn't cut off.
    """
    axis = np.linspace(0, 1, _POINTS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    signal = np.stack([red, green, blue], -1)
    light = _pq_light(signal) if transfer == _PQ else _hlg_light(signal)
    light = (light @ np.transpose(_TO_709)).clip(0)
    above = _KNEE - (1 - _KNEE) * np.expm1(-(light - _KNEE).clip(0) / (1 - _KNEE))
    light = np.where(light <= _KNEE, light, above)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return ImageFilter.Color3DLUT(_POINTS, srgb.ravel().tolist())


def _pq_light(signal: _Signal) -> _Signal:
    """Light, as a share of white, of a signal of SMPTE ST 2084."""
    power = signal ** (32 / 2523)
    light = (power - 3424 / 4096).clip(0) / (2413 / 128 - 2392 / 128 * power)
    return np.asarray(10000 / _PQ_WHITE * light ** (16384 / 2610))


def _hlg_light(signal: _Signal) -> _Signal:
    """Light, as a share of white, of a signal of HLG (ITU-R BT.2100), with a system gamma of 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(scene / ((np.exp((_HLG_WHITE - c) / a) + b) / 12))
