"""What the pixels of films and images become: upright, opaque, square and in the range of SDR."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from small_films import LEVELS, write_film

from ursa_core.errors import DataError
from ursa_core.media import open_media, read_media
from ursa_core.media.sources import MAX_MOVING_PIXELS, MAX_PIXELS

COLOURS = [(220, 30, 30), (30, 180, 30), (40, 60, 200), (200, 190, 40)]


def quarters(values: list[tuple[float, ...]]) -> np.ndarray:
    """(48, 64, C) with a colour in each quarter, in reading order."""
    picture = np.zeros((48, 64, len(values[0])))
    for k, value in enumerate(values):
        picture[24 * (k // 2) :, 32 * (k % 2) :] = value
        picture[24 * (k // 2) :, : 32 * (k % 2)] = values[k - k % 2]
    return picture


def corners(picture: np.ndarray) -> np.ndarray:
    """The colours (2, 2, C) of the quarters' centres."""
    height, width = picture.shape[:2]
    rows, columns = [height // 4, 3 * height // 4], [width // 4, 3 * width // 4]
    return picture[np.ix_(rows, columns)]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mov", "png", "rgba"),
        ("a.mkv", "ffv1", "bgra"),
    ],
)
def test_films_with_alpha_lie_on_white(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    picture = np.zeros((48, 64, 4), np.uint8)
    picture[16:32, 16:48] = (220, 30, 30, 255)
    path = write_film(tmp_path / name, [picture] * 3, codec=codec, pixels=pixels)
    if name == "a.webm":
        # A browser's mark, which the encoder leaves to the one who writes the container.
        path = marked_as_alpha(path)
    for frame in read_media(path).frames:
        assert (frame[2, 2] >= 253).all()
        assert np.abs(frame[24, 32].astype(int) - (220, 30, 30)).max() <= 4
    black = read_media(path, background=(0, 0, 0)).frames
    assert (black[0, 2, 2] <= 2).all()


def marked_as_alpha(path: Path) -> Path:
    """The film with the mark of WebM that says that it has alpha."""
    out = path.with_name("marked.webm")
    with av.open(str(path)) as given, av.open(str(out), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.metadata["alpha_mode"] = "1"
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return out


MATRIX = {  # of a display matrix: a, b, c, d
    "unturned": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "top to bottom": (1, 0, 0, -1),
    "half turn": (-1, 0, 0, -1),
    "quarter turn clockwise": (0, 1, -1, 0),
    "quarter turn back": (0, -1, 1, 0),
    "diagonal": (0, 1, 1, 0),
    "other diagonal": (0, -1, -1, 0),
}
SHOWN = {  # quarters 0 1 / 2 3 as a player shows them
    "unturned": [0, 1, 2, 3],
    "mirrored": [1, 0, 3, 2],
    "top to bottom": [2, 3, 0, 1],
    "half turn": [3, 2, 1, 0],
    "quarter turn clockwise": [2, 0, 3, 1],
    "quarter turn back": [1, 3, 0, 2],
    "diagonal": [0, 2, 1, 3],
    "other diagonal": [3, 1, 2, 0],
}


@pytest.mark.parametrize("turn", MATRIX)
def test_display_matrices_turn_and_mirror(tmp_path: Path, turn: str) -> None:
    picture = quarters([tuple(map(float, colour)) for colour in COLOURS]).astype(np.uint8)
    path = write_film(tmp_path / "a.mp4", [picture] * 3)
    data = bytearray(path.read_bytes())
    one = 1 << 16

    def packed(a: int, b: int, c: int, d: int) -> bytes:
        return struct.pack(">5i", a * one, b * one, 0, c * one, d * one)

    at = data.index(packed(*MATRIX["unturned"]), data.index(b"tkhd"))
    data[at : at + 20] = packed(*MATRIX[turn])
    path.write_bytes(data)
    found = corners(read_media(path).frames[0]).reshape(4, 3)
    nearest = [
        int(np.abs(np.array(COLOURS) - colour).sum(1).argmin()) for colour in found.astype(int)
    ]
    assert nearest == SHOWN[turn]


PQ, HLG = 16, 18


def hdr_signal(colour: tuple[int, ...], transfer: int) -> np.ndarray:
    """R'G'B' in BT.2020 of an sRGB colour whose white is at 203 cd/m²."""
    v = np.array(colour) / 255
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    # ITU-R BT.2087, BT.709 to BT.2020.
    to_2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    nits = 203 * (np.array(to_2020) @ light)
    if transfer == PQ:
        y = (nits / 10000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    # ITU-R BT.2100, for a display of standard range: white is a signal of three quarters.
    scene = nits / 203 * (np.exp((0.75 - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(
        scene <= 1 / 12,
        np.sqrt(3 * scene),
        0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
    )


def planes_of(signals: list[np.ndarray]) -> list[np.ndarray]:
    """Ten-bit Y'CbCr, 4:2:0, of a picture whose quarters have these R'G'B' signals."""
    r, g, b = np.moveaxis(quarters([tuple(signal) for signal in signals]), -1, 0)
    luma = 0.2627 * r + 0.6780 * g + 0.0593 * b
    planes = [64 + 876 * luma, 512 + 896 * (b - luma) / 1.8814, 512 + 896 * (r - luma) / 1.4746]
    return [planes[0], planes[1][::2, ::2], planes[2][::2, ::2]]


def write_hdr(path: Path, pictures: list[list[np.ndarray]], transfer: int) -> Path:
    """A film of pictures whose quarters have these R'G'B' signals."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        codec = stream.codec_context
        codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range = (
            9,
            9,
            transfer,
            1,
        )
        for k, signals in enumerate(pictures):
            frame = av.VideoFrame(64, 48, "yuv420p10le")
            for plane, values in zip(frame.planes, planes_of(signals), strict=True):
                rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                rows[:, : plane.width] = values.round()
                plane.update(rows)
            frame.pts, frame.time_base = k, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("transfer", [PQ, HLG], ids=["PQ", "HLG"])
def test_hdr_is_mapped_to_sdr(tmp_path: Path, transfer: int) -> None:
    colours = [hdr_signal(colour, transfer) for colour in COLOURS]
    greys = [hdr_signal((level,) * 3, transfer) for level in (100, 180, 255)]
    bright = greys[2] * 1.2  # beyond the white of SDR
    path = write_hdr(tmp_path / "a.mkv", [colours, [*greys, bright]], transfer)
    first, second = (corners(frame).reshape(4, 3) for frame in read_media(path).frames)
    assert np.abs(first.astype(int) - COLOURS).max() <= 10
    levels = second.mean(1)
    assert np.abs(levels[:2] - (100, 180)).max() <= 4
    assert 235 < levels[2] < levels[3] <= 255  # what is brighter is rolled off, not cut


def test_the_film_marked_as_default_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        small = container.add_stream("mjpeg", rate=1)
        small.width = small.height = 32
        small.pix_fmt = "yuvj420p"
        film = container.add_stream("ffv1", rate=24)
        film.width, film.height, film.pix_fmt = 64, 48, "bgr0"
        small.disposition, film.disposition = 0, av.stream.Disposition.default
        red = np.full((32, 32, 3), (220, 0, 0), np.uint8)
        thumbnail = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuvj420p")
        container.mux(small.encode(thumbnail))
        container.mux(small.encode())
        for k in range(12):
            grey = np.full((48, 64, 3), LEVELS[k], np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = k, Fraction(1, 24)
            container.mux(film.encode(frame))
        container.mux(film.encode())
    assert read_media(path).frames[:, 0, 0, 0].tolist() == LEVELS[:12]


def test_a_hidden_default_image_is_not_shown(tmp_path: Path) -> None:
    hidden = Image.new("RGB", (16, 16), (255, 0, 255))
    greys = [Image.new("RGB", (16, 16), (level,) * 3) for level in LEVELS[:5]]
    path = tmp_path / "a.png"
    hidden.save(path, save_all=True, append_images=greys, duration=125, default_image=True)
    clip = read_media(path)
    assert clip.frames[:, 0, 0].tolist() == [[level] * 3 for level in LEVELS[:5]]
    assert clip.fps == 8
    hidden.save(path, save_all=True, append_images=greys, duration=125)
    assert len(read_media(path).frames) == 6


def test_tiffs_of_any_depth_are_read_or_refused(tmp_path: Path) -> None:
    ramp = np.arange(256).reshape(16, 16)
    path = tmp_path / "a.tif"
    for samples in (
        ramp.astype(np.uint8),
        (ramp * 257).astype(np.uint16),
        (ramp / 255).astype(np.float32),
    ):
        Image.fromarray(samples).save(path)
        found = read_media(path).frames[0]
        np.testing.assert_array_equal(found, np.repeat(ramp[..., None], 3, 2))
    for samples in (ramp.astype(np.int32), ramp.astype(np.float32), -ramp.astype(np.float32)):
        Image.fromarray(samples).save(path)
        with pytest.raises(DataError, match="32-bit samples"):
            read_media(path)


def png_of(width: int, height: int) -> bytes:
    """The beginning of a black PNG."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(13_000, 13_000), (60_000, 60_000), (2**26 + 1, 1)])
def test_pictures_that_would_fill_the_memory_are_refused(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    width, height = size
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(width, height))
    assert width * height > MAX_PIXELS
    with pytest.raises(DataError, match="pixels"):
        read_media(path)


def animation(path: Path, width: int, height: int, count: int = 3) -> Path:
    """An animation of 16x16 pixels whose header claims a canvas of another size."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    first, *others = (Image.fromarray(frame) for frame in noise)
    first.save(path, save_all=True, append_images=others, duration=100)
    data = bytearray(path.read_bytes())
    if path.suffix == ".webp":  # the chunk VP8X, three bytes each, less one
        data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif path.suffix == ".gif":
        data[6:10] = struct.pack("<HH", width, height)
    else:
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_animations_that_claim_a_huge_canvas_are_refused_before_decoding(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = animation(tmp_path / f"a.{suffix}", 65_000, MAX_MOVING_PIXELS // 65_000 + 1)
    monkeypatch.setattr("ursa_core.media.images.pixels_of", None)  # decodes
    with pytest.raises(DataError, match="pixels, more than 17 million"):
        read_media(path)


def test_a_frame_that_makes_the_canvas_huge_is_refused(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif", 16, 16, 2)
    data = bytearray(path.read_bytes())
    second = data.rindex(b"\x2c" + bytes(4) + struct.pack("<HH", 16, 16))
    data[second + 5 : second + 9] = struct.pack("<HH", 9000, 9000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="9000x9000 pixels"):
        read_media(path)


def test_no_more_of_an_animation_is_drawn_than_a_file_of_its_size_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = animation(tmp_path / "a.webp", 16, 16, 12)
    monkeypatch.setattr("ursa_core.media.sources.MAX_PIXELS", 5 * 16 * 16)
    assert len(read_media(path).frames) == 12
    monkeypatch.setattr("ursa_core.media.sources.MOVING_PIXELS_PER_BYTE", 0)
    with pytest.raises(DataError, match="over 5 frames of 16x16 pixels, too many for its"):
        read_media(path)
    with pytest.raises(DataError, match="too many for its"):
        list(open_media(path).frames)


def test_no_more_frames_are_held_than_a_file_of_its_size_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ursa_core.media.sources.MAX_PIXELS", 5 * 48 * 64)
    monkeypatch.setattr("ursa_core.media.sources.PIXELS_PER_BYTE", 0)
    film = write_film(tmp_path / "a.mkv", LEVELS[:8])
    folder = tmp_path / "frames"
    folder.mkdir()
    for k in range(8):
        Image.new("RGB", (64, 48)).save(folder / f"{k}.png")
    for path in (film, animation(tmp_path / "a.webp", 64, 48, 8), folder):
        assert len(read_media(path, max_frames=5).frames) == 5
        with pytest.raises(DataError, match="more than 5 frames of 48x64 pixels in"):
            read_media(path)
        with pytest.raises(DataError, match="more than 5 frames"):
            read_media(path, fps=1000)  # frames repeated fill the memory as well
        assert sum(1 for _ in open_media(path).frames) == 8  # holds few
    monkeypatch.setattr("ursa_core.media.sources.PIXELS_PER_BYTE", 64)
    assert len(read_media(film).frames) == 8


def test_a_film_that_grows_is_refused_before_its_frame_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Transport streams may be joined, and the second part may have another size.
    small = write_film(tmp_path / "small.ts")
    size = {"width": 128, "height": 96}
    large = write_film(tmp_path / "large.ts", [np.zeros((96, 128, 3), np.uint8)] * 9, marks=size)
    path = tmp_path / "a.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(DataError, match="changes size after 48 frames"):
        read_media(path)
    monkeypatch.setattr("ursa_core.media.sources.MAX_PIXELS", 48 * 64)
    with pytest.raises(DataError, match="96x128 pixels, more than"):
        read_media(path)
    monkeypatch.setattr("ursa_core.media.films.MAX_PIXELS", 48 * 64)  # the decoder's own
    with pytest.raises(DataError, match="is damaged"):
        read_media(path)


def test_a_damaged_tiff_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (4, 4)).save(path)
    data = path.read_bytes()
    entry = struct.pack("<HHI", 277, 3, 1)  # samples per pixel
    at = data.index(entry) + len(entry)
    path.write_bytes(data[:at] + struct.pack("<H", 999) + data[at + 2 :])
    with pytest.raises(DataError):
        read_media(path)
    assert not caplog.records


def test_pixels_become_square_and_count_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_film(tmp_path / "a.mkv", LEVELS[:2], marks={"sample_aspect_ratio": Fraction(2)})
    assert read_media(path).frames.shape == (2, 48, 128, 3)
    monkeypatch.setattr("ursa_core.media.sources.MAX_PIXELS", 64 * 48)
    with pytest.raises(DataError, match="pixels"):
        read_media(path)


def test_deep_json_in_metadata_is_kept_as_text(tmp_path: Path) -> None:
    text = PngInfo()
    comment = "[" * 100_000
    text.add_text("Comment", comment)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=text)
    assert read_media(tmp_path / "a.png").metadata == {"Comment": comment}


def test_of_several_pages_the_first_is_read(tmp_path: Path) -> None:
    pages = [Image.new("L", (16, 16), level) for level in LEVELS[:3]]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert read_media(tmp_path / "a.tif").frames[:, 0, 0, 0].tolist() == LEVELS[:1]
