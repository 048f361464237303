"""Reading and writing clips: colours, rates, metadata, damage, and no half-written files."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ursa_core.errors import DataError, ShapeError, UrsaError, UsageError
from ursa_core.grids import PixelShape
from ursa_core.media import (
    Clip,
    Frames,
    check_output,
    contact_sheet,
    open_media,
    read_media,
    resize_and_crop,
    to_frames,
    to_video,
    write_media,
)
from ursa_core.media.quality import psnr
from ursa_core.media.ssim import ssim

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "published_tokenizer" / "expected.safetensors"
METADATA = {"prompt": 'a "café"; = #\n\\', "seed": 2**63, "guidance": 7.5, "words": ["x", None]}


def moving_disc(num_frames: int = 17, height: int = 64, width: int = 64) -> Frames:
    y, x = np.mgrid[:height, :width]
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = (20, 25, 70)
    for k, frame in enumerate(frames):
        frame[(y - height // 2) ** 2 + (x - 10 - 2 * k) ** 2 < 100] = (220, 40, 40)
    return frames


def noise(num_frames: int, height: int = 16, width: int = 18) -> Frames:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num_frames, height, width, 3), np.uint8)


@pytest.mark.parametrize("name", ["a.mkv", "folder", "a.b/"])
def test_lossless_formats_return_every_bit(tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/{name}"
    frames = noise(5, 15, 17)
    write_media(path, frames, 12.5, METADATA)
    clip = read_media(path)
    np.testing.assert_array_equal(clip.frames, frames)
    assert clip.fps == 12.5
    assert clip.metadata == METADATA


@pytest.mark.parametrize(("name", "least_psnr"), [("a.mp4", 30), ("a.gif", 45), ("a.webp", 30)])
def test_lossy_formats_keep_picture_count_rate_and_metadata(
    tmp_path: Path, name: str, least_psnr: float
) -> None:
    frames = moving_disc()
    write_media(tmp_path / name, frames, 8, METADATA)
    clip = read_media(tmp_path / name)
    assert clip.frames.shape == frames.shape
    assert clip.fps == pytest.approx(8, rel=0.005)
    assert psnr(clip.frames, frames) > least_psnr
    assert clip.metadata == METADATA


@pytest.mark.parametrize("name", ["a.mp4", "a.webp", "a.gif"])
def test_flat_colours_come_back_within_three_levels(tmp_path: Path, name: str) -> None:
    for colour in [(220, 40, 40), (40, 180, 70), (50, 90, 220), (255, 255, 255), (0, 0, 0)]:
        frames = np.full((2, 32, 32, 3), colour, np.uint8)
        write_media(tmp_path / name, frames, 8)
        difference = read_media(tmp_path / name).frames[0].astype(int) - frames[0]
        assert np.abs(difference).max() <= 3


def test_mp4_is_tagged_and_starts_with_its_index(tmp_path: Path) -> None:
    write_media(tmp_path / "a.mp4", moving_disc(), 8, METADATA)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        assert container.metadata["title"] == METADATA["prompt"]
        assert container.streams.video[0].codec_context.name == "h264"
    tags = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
    assert tags == (1, 1, 1, 1)
    assert frame.format.name == "yuv420p"


def test_mp4_bytes_are_a_function_of_the_clip(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_media(tmp_path / name, moving_disc(), 8, METADATA)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_crf_trades_size_for_quality(tmp_path: Path) -> None:
    sizes, values = [], []
    for crf in (0, 18, 40):
        write_media(tmp_path / "a.mp4", noise(4, 32, 32), 8, crf=crf)
        sizes.append((tmp_path / "a.mp4").stat().st_size)
        values.append(psnr(read_media(tmp_path / "a.mp4").frames, noise(4, 32, 32)))
    assert sizes == sorted(sizes, reverse=True)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a.mkv", "a.gif", "a.webp", "folder"])
def test_one_frame_makes_an_image_or_a_film_of_one(tmp_path: Path, name: str) -> None:
    write_media(tmp_path / name, moving_disc(1), 8, METADATA)
    clip = read_media(tmp_path / name)
    assert len(clip.frames) == 1
    assert psnr(clip.frames, moving_disc(1)) > 29
    assert clip.metadata == METADATA


@pytest.mark.parametrize("fps", [8, 12, 24000 / 1001, 30])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "a.webp"])
def test_rates_come_back(tmp_path: Path, name: str, fps: float) -> None:
    write_media(tmp_path / name, moving_disc(12), fps)
    clip = read_media(tmp_path / name)
    assert len(clip.frames) == 12
    assert clip.fps == pytest.approx(fps, rel=0.02 if name.endswith("gif") else 0.003)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_still_stretches_of_an_animation_keep_their_length(tmp_path: Path, name: str) -> None:
    frames = moving_disc(6)[[0, 0, 0, 1, 2, 2, 3, 4, 5]]
    write_media(tmp_path / name, frames, 8)
    clip = read_media(tmp_path / name)
    assert clip.frames.shape == frames.shape
    assert psnr(clip.frames, frames) > 30


def test_sampling_takes_the_nearest_frames(tmp_path: Path) -> None:
    frames = noise(17)
    write_media(tmp_path / "a.mkv", frames, 16)
    half = read_media(tmp_path / "a.mkv", fps=8)
    np.testing.assert_array_equal(half.frames, frames[::2])
    assert half.fps == 8
    double = read_media(tmp_path / "a.mkv", fps=32)
    assert len(double.frames) == 34
    np.testing.assert_array_equal(double.frames[::2], frames)
    # 24 in place of 25: times k/10 s against frames at k/16 s.
    tenth = read_media(tmp_path / "a.mkv", fps=10, max_frames=6)
    np.testing.assert_array_equal(tenth.frames, frames[[0, 2, 3, 5, 6, 8]])


def test_iterating_stops_early_and_agrees_with_reading(tmp_path: Path) -> None:
    write_media(tmp_path / "a.mkv", noise(9), 8)
    some = list(islice(open_media(tmp_path / "a.mkv").frames, 4))
    np.testing.assert_array_equal(np.stack(some), noise(9)[:4])


@pytest.mark.parametrize(("fps", "max_frames"), [(0, 1), (-1, 1), (float("nan"), 1), (8, 0)])
def test_impossible_sampling_is_refused(tmp_path: Path, fps: float, max_frames: int) -> None:
    write_media(tmp_path / "a.mkv", noise(3), 8)
    with pytest.raises(UsageError):
        read_media(tmp_path / "a.mkv", fps, max_frames)


def test_rotation_of_a_film_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    frames = np.zeros((3, 32, 64, 3), np.uint8)
    frames[:, :, :32] = (250, 20, 20)  # left half red
    write_media(path, frames, 8)
    data = bytearray(path.read_bytes())
    # The track's matrix [a b u; c d v; x y w]: a quarter turn clockwise, left becomes top.
    unturned = b"".join(n.to_bytes(4, "big") for n in (1 << 16, 0, 0, 0, 1 << 16))
    turned = (0, 1 << 16, 0, 2**32 - (1 << 16), 0)
    at = data.index(unturned, data.index(b"tkhd"))
    data[at : at + 20] = b"".join(n.to_bytes(4, "big") for n in turned)
    path.write_bytes(data)
    clip = read_media(path)
    assert clip.frames.shape == (3, 64, 32, 3)
    assert clip.frames[0, 8, 16, 0] > 200
    assert clip.frames[0, 56, 16, 0] < 50


def test_rotation_of_an_image_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert read_media(tmp_path / "a.jpg").frames.shape == (1, 20, 10, 3)


def test_transparency_shows_the_background(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_media(tmp_path / "a.png").frames == 255).all()
    clip = read_media(tmp_path / "a.png", background=(1, 2, 3))
    assert (clip.frames == (1, 2, 3)).all()


def test_sixteen_bit_images_keep_their_range(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(ramp).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_media(tmp_path / "a.png").frames[0, :, :, 0], ramp // 257)


def test_foreign_tags_are_kept_as_they_are(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif", comment=b"made by hand")
    clip = read_media(tmp_path / "a.gif")
    assert clip == Clip(clip.frames, None, clip.metadata)
    assert clip.metadata["comment"] == "made by hand"


def broken_files(folder: Path) -> dict[str, Path]:
    write_media(folder / "whole.mp4", moving_disc(), 8)
    write_media(folder / "whole.mkv", noise(17), 8)
    write_media(folder / "whole.gif", noise(3), 8)
    write_media(folder / "whole.png", noise(1), 8)
    contents = {
        "empty.mp4": b"",
        "random.mp4": np.random.default_rng(1).bytes(5000),
        "text.txt": b"not a film\n" * 50,
        "no_frames.mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2\0\0\0\x08mdat",
        "cut.mp4": (folder / "whole.mp4").read_bytes()[:-500],
        "cut.mkv": (folder / "whole.mkv").read_bytes()[:-4000],
        "cut.gif": (folder / "whole.gif").read_bytes()[:-700],
        "cut.png": (folder / "whole.png").read_bytes()[:-300],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "bare").mkdir()
    names = [*contents, "bare", "missing.mp4"]
    return {name: folder / name for name in names}


def test_broken_files_are_named(tmp_path: Path) -> None:
    for name, path in broken_files(tmp_path).items():
        with pytest.raises(DataError) as caught:
            read_media(path)
        assert name in caught.value.message, name
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_film_without_pictures_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(DataError, match="no pictures"):
        read_media(tmp_path / "a.wav")


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"x")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "00000.png").write_bytes(b"x")
    check_output(tmp_path / "new.mp4")
    check_output(tmp_path / "old.mp4", force=True)
    check_output(tmp_path / "frames", force=True)
    shape = PixelShape(2, 5, 4)
    refused: list[tuple[type[UrsaError], str, str, dict[str, object]]] = [
        (UsageError, "old.mp4", "--force", {}),
        (UsageError, "frames", "--force", {}),
        (UsageError, "photos", "another", {"force": True}),
        (UsageError, "photos", "another", {}),
        (UsageError, "new.avi", ".mp4, .mkv, .gif, .webp, .png", {}),
        (UsageError, "old.mp4/", "another", {"force": True}),
        (DataError, "nowhere/new.mp4", "create", {}),
        (UsageError, "old.mp4/x.mp4", "another name", {}),
        (UsageError, "old.mp4/x/y.mp4", "another name", {}),
        (UsageError, "new.mp4", "0.1 to 1000", {"fps": 1e-300}),
        (ShapeError, "new.png", "folder", {"shape": shape}),
        (ShapeError, "new.mp4", "even", {"shape": shape}),
        (UsageError, "new.gif", "50", {"fps": 60.0}),
    ]
    for kind, name, hint, options in refused:
        with pytest.raises(kind) as caught:
            check_output(f"{tmp_path}/{name}", **options)  # type: ignore[arg-type]
        assert hint in caught.value.hint, name
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(DataError, match="can't be written"):
        check_output(tmp_path / "a.mp4")


def test_writing_refuses_impossible_values(tmp_path: Path) -> None:
    for fps, crf in [(0.0, 18), (float("inf"), 18), (8.0, 52), (8.0, -1)]:
        with pytest.raises(UsageError):
            write_media(tmp_path / "a.mp4", moving_disc(2), fps, crf=crf)
    with pytest.raises(ShapeError):
        write_media(tmp_path / "a.png", moving_disc(2), 8)
    assert not list(tmp_path.iterdir())


def test_folder_of_frames_is_replaced_whole(tmp_path: Path) -> None:
    write_media(tmp_path / "a", noise(5), 8)
    write_media(tmp_path / "a", noise(2), 8)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["00000.png", "00001.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "a.webp", "a.png", "folder"])
def test_full_disk_leaves_nothing(tmp_path: Path, name: str) -> None:
    # A limit on file size fails a write just where a full disk would.
    program = f"""
import resource, sys
import numpy as np
from ursa_core.errors import DataError
from ursa_core.media import write_media
frames = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_media({str(tmp_path / name)!r}, frames, 8)
except DataError as error:
    sys.exit(f"refused: {{error}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert "refused: " in done.stderr, done.stderr
    assert "free some space" not in done.stderr  # it isn't what is wrong here
    assert str(tmp_path) in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_film_is_the_same_to_the_byte_in_every_process(tmp_path: Path) -> None:
    program = """
import sys
import numpy as np
from ursa_core.media import write_media
y, x = np.mgrid[:64, :64]
rng = np.random.default_rng(0)
inside = [((x - 16 - 2 * k) ** 2 + (y - 32) ** 2 < 150)[..., None] for k in range(17)]
frames = np.stack([np.where(mask, [220, 30, 40], [10, 20, 90]) for mask in inside])
frames = frames + 4 * np.sin(x / 7 + y / 5)[None, ..., None] + rng.normal(0, 3, frames.shape)
write_media(sys.argv[1], np.clip(frames, 0, 255).astype(np.uint8), 8, crf=12)
"""
    contents = set()
    for fill in ("0", "85", "170"):  # what fresh memory holds, where the C library heeds it
        out = tmp_path / f"{fill}.mp4"
        subprocess.run(
            [sys.executable, "-c", program, str(out)],
            cwd=REPOSITORY, env={**os.environ, "MALLOC_PERTURB_": fill}, check=True,
        )  # fmt: skip
        contents.add(out.read_bytes())
    assert len(contents) == 1


def test_interruption_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_media(tmp_path / "a.mp4", moving_disc(2), 8)
    old = (tmp_path / "a.mp4").read_bytes()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_media(tmp_path / "a.mp4", moving_disc(3), 8)
    assert (tmp_path / "a.mp4").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 1


def test_pixels_and_floats_are_inverse() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    video = to_video(pixels)
    assert (float(video.min()), float(video.max())) == (-1, 1)
    assert video.shape == (1, 3, 1, 16, 16)
    assert torch.equal(video[0].permute(1, 2, 3, 0), torch.from_numpy(pixels) / 127.5 - 1)
    np.testing.assert_array_equal(to_frames(video), pixels)
    outside, near_one = torch.tensor([-2.0, 2.0]), torch.tensor([0.9 / 127.5 - 1])
    assert to_frames(outside.expand(3, 1, 1, 2))[0, 0, :, 0].tolist() == [0, 255]
    assert to_frames(near_one.expand(3, 1, 1, 1), "truncate")[0, 0, 0, 0] == 0
    assert to_frames(near_one.expand(3, 1, 1, 1), "nearest")[0, 0, 0, 0] == 1
    with pytest.raises(ValueError, match="NaN"):
        to_frames(torch.full((3, 1, 1, 1), float("nan")))


def test_truncated_pixels_equal_the_reference() -> None:
    expected = load_file(GOLDEN)
    pixels = to_frames(expected["decoded_float"], "truncate")
    np.testing.assert_array_equal(pixels, expected["decoded_uint8"][0].numpy())


def test_resizing_covers_and_crops_the_centre() -> None:
    wide = np.zeros((2, 32, 96, 3), np.uint8)
    wide[:, :, 32:64] = 200
    centre = resize_and_crop(wide, 16, 16)
    assert centre.shape == (2, 16, 16, 3)
    assert (centre[:, :, 3:-3] == 200).all()
    tall = resize_and_crop(wide.transpose(0, 2, 1, 3), 16, 16)
    np.testing.assert_array_equal(tall, centre.transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(resize_and_crop(wide, 32, 96), wide)
    # The box of these sizes begins 1e-14 before the border, unless it is held back.
    assert resize_and_crop(np.zeros((1, 129, 150, 3), np.uint8), 128, 149).shape[1:3] == (128, 149)
    with pytest.raises(ShapeError):
        resize_and_crop(wide, 0, 8)


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((1, 128, 128, 3), np.uint8)
    stripes[:, :, ::2] = 255
    small = resize_and_crop(stripes, 20, 20)
    assert np.abs(small.astype(int) - 127).max() < 12


def test_contact_sheet_shows_every_clip() -> None:
    clips = [np.full((9, 8, 8, 3), 10 * k, np.uint8) for k in range(5)]
    sheet = contact_sheet(clips, columns=2, num_shown=3)
    assert sheet.shape == (3 * 12 + 4, 2 * 28 + 4, 3)
    assert sheet[4, 4, 0] == 0
    assert sheet[4, 32, 0] == 10
    assert sheet[16, 4, 0] == 20
    assert (sheet[28:, 32:] == 255).all()
    assert contact_sheet([clips[0][0]], 1).shape == (16, 16, 3)
    with pytest.raises(ValueError, match="one height"):
        contact_sheet([clips[0], clips[0][:, :4]], 2)


def test_psnr_follows_its_definition() -> None:
    black = np.zeros((2, 16, 16, 3), np.uint8)
    assert psnr(black, black) == 100
    assert psnr(black, black + 255) == pytest.approx(0)
    assert psnr(black, black + 5) == pytest.approx(20 * np.log10(255 / 5))
    half = black.copy()
    half[0] = 5
    assert psnr(black, half) == pytest.approx((100 + 20 * np.log10(51)) / 2)
    with pytest.raises(ShapeError):
        psnr(black, black[:1])


def test_ssim_has_its_known_properties() -> None:
    frames = moving_disc(2)
    rng = np.random.default_rng(0)
    noisy = (frames + rng.normal(0, 10, frames.shape)).clip(0, 255).astype(np.uint8)
    noisier = (frames + rng.normal(0, 40, frames.shape)).clip(0, 255).astype(np.uint8)
    assert ssim(frames, frames) == pytest.approx(1)
    assert 1 > ssim(frames, noisy) > ssim(frames, noisier) > 0
    assert ssim(frames, noisy) == pytest.approx(ssim(noisy, frames))
    # On flat frames only the luminance term is left.
    dark, light = np.full((1, 12, 12, 3), 100, np.uint8), np.full((1, 12, 12, 3), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(dark, light) == pytest.approx(expected)
    with pytest.raises(ShapeError, match="too small"):
        ssim(dark[:, :8], light[:, :8])
