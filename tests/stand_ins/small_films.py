"""Small films that tests of reading make, in any container, with any times."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

LEVELS = [20 + 4 * k for k in range(48)]


def write_film(
    path: Path,
    levels: Sequence[int | np.ndarray] = LEVELS,
    times: Sequence[float] | None = None,
    last: float | None = None,
    sound: float = 0.0,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    fps: int = 24,
    options: dict[str, str] | None = None,
    marks: dict[str, Any] | None = None,
    shift_decoding_times: bool = False,
) -> Path:
    """Frames, plain grey or RGB(A) arrays, at their times; the last shown so long, with sound.

    Args:
        path: of the film; its extension chooses the container.
        levels: greys, or arrays (H, W, 3 or 4).
        times: seconds of each frame; evenly at ``fps`` by default.
        last: seconds that the last frame is shown.
        sound: seconds of silence.
        codec: of the pictures.
        pixels: their format.
        fps: stated rate.
        options: of the codec.
        marks: attributes of the codec's context, as ``color_trc``.
        shift_decoding_times: state the times of decoding as those of presentation.
    """
    tick = Fraction(1, 600) if times else Fraction(1, fps)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        stream.codec_context.time_base = tick
        stream.bit_rate = 4_000_000
        for name, value in (marks or {}).items():
            setattr(stream.codec_context, name, value)
        packets = []
        for k, level in enumerate(levels):
            array = np.full((48, 64, 3), level, np.uint8) if isinstance(level, int) else level
            rgb = "rgba" if array.shape[-1] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(array, format=rgb).reformat(format=pixels)
            frame.pts = round((times[k] if times else k / fps) / tick)
            frame.time_base = tick
            packets += stream.encode(frame)
        packets += stream.encode()
        if shift_decoding_times:
            for packet in packets:
                packet.pts = packet.dts
        if last is not None:
            final = max(packets, key=lambda packet: packet.pts)
            final.duration = round(last / final.time_base)
        if sound:
            packets += _silence(container, sound)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def _silence(container: av.container.OutputContainer, seconds: float) -> list[av.Packet]:
    stream = container.add_stream("mp2" if container.format.name == "avi" else "aac", rate=48000)
    packets = []
    for start in range(0, round(48000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        packets += stream.encode(frame)
    return packets + stream.encode()
