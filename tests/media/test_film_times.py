"""When the frames of films, animations and folders are shown, and what is refused as cut off."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_films import LEVELS, write_film

from ursa_core.encoding.cuts import ClipCut, Dropped, LoadedClip
from ursa_core.encoding.items import find_clip
from ursa_core.encoding.options import Filters
from ursa_core.errors import DataError, UrsaError, UsageError
from ursa_core.grids import PixelShape
from ursa_core.media import measure_length, open_media, read_media
from ursa_core.media.images import natural_key
from ursa_core.media.sources import own_rate

BFRAMES = {"bf": "3", "x264-params": "bframes=3:b-adapt=0:qp=1"}


def levels_of(path: Path, fps: float | None = None, **options: float) -> list[int]:
    """The greys of a clip, to the next of ``LEVELS``."""
    found = read_media(path, fps, **options).frames[:, 24, 32, 0]
    return [LEVELS[round((int(level) - 20) / 4)] for level in found]


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv", "a.ts", "a.mov"])
def test_b_frames_come_in_order_at_even_times(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, options=BFRAMES)
    assert levels_of(path) == LEVELS
    assert read_media(path).fps == 24
    assert levels_of(path, 12) == LEVELS[::2]


def test_times_of_decoding_are_put_in_order(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", options=BFRAMES, shift_decoding_times=True)
    found = levels_of(path)
    # The container hides two frames, whose stated time is before the start.
    assert len(found) == 46
    assert found == sorted(set(found))
    assert levels_of(path, 12) == found[::2]


def test_recordings_joined_by_bytes_give_both_halves(tmp_path: Path) -> None:
    one = write_film(tmp_path / "one.ts", options=BFRAMES)
    two = write_film(tmp_path / "two.ts", LEVELS[::-1], options=BFRAMES)
    late = write_film(
        tmp_path / "late.ts", LEVELS[::-1], [4000 + k / 24 for k in range(48)], options=BFRAMES
    )
    for other in (two, late):  # whose time begins again, or an hour later
        joined = tmp_path / "joined.ts"
        joined.write_bytes(one.read_bytes() + other.read_bytes())
        assert levels_of(joined) == LEVELS + LEVELS[::-1]
        assert levels_of(joined, 12) == LEVELS[::2] + LEVELS[::-1][::2]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm"])
def test_time_begins_with_the_first_frame(tmp_path: Path, name: str) -> None:
    codec = "libvpx" if name.endswith("webm") else "libx264"
    times = [3 + k / 24 for k in range(48)]
    path = write_film(tmp_path / name, times=times, codec=codec)
    assert levels_of(path, 12) == LEVELS[::2]
    assert open_media(path, 12).seconds == pytest.approx(2, abs=0.1)
    cut = ClipCut(12.0, PixelShape(5, 48, 64), filters=Filters(max_seconds=4))
    assert isinstance(next(find_clip(str(path), 0, 12.0).clips(cut, 4)), LoadedClip)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_the_last_frame_lasts_as_the_container_says(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, last=8.0)
    found = levels_of(path, 12)
    assert found[:24] == LEVELS[::2]
    # From 47/24 s on for 8 s.
    assert (len(found), set(found[24:])) == (pytest.approx(120, abs=1), {LEVELS[-1]})


def test_a_capture_that_begins_within_a_group_is_read(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.ts", options={"g": "12", **BFRAMES})
    data = path.read_bytes()
    path.write_bytes(data[188 * (len(data) // 188 // 3) :])
    found = levels_of(path)
    assert len(found) > 12
    assert found == LEVELS[-len(found) :]


def test_five_slides_are_shown_as_long_as_they_say(tmp_path: Path) -> None:
    times = [0, 1, 3, 6, 7]
    film = write_film(tmp_path / "a.mp4", LEVELS[:5], times, last=3, options={"bf": "0"})
    images = [Image.new("RGB", (64, 48), (level,) * 3) for level in LEVELS[:5]]
    gif = tmp_path / "a.gif"
    durations = [1000, 2000, 3000, 1000, 3000]
    images[0].save(gif, save_all=True, append_images=images[1:], duration=durations)
    expected = [LEVELS[k] for k in (0, 1, 1, 2, 2, 2, 3, 4, 4, 4)]
    assert levels_of(film, 1) == levels_of(gif, 1) == expected
    assert levels_of(film) == levels_of(gif) == expected  # their own rate is 1 a second


def test_a_pause_is_held_until_it_ends(tmp_path: Path) -> None:
    times = [k / 24 + (3 if k >= 24 else 0) for k in range(48)]
    path = write_film(tmp_path / "a.mkv", times=times)
    # The frame of second 1 stays for 3 s, and the second half begins at 4 s.
    expected = LEVELS[:24] + [LEVELS[23]] * 72 + LEVELS[24:]
    clip = read_media(path)
    assert clip.fps == 24
    assert "varies its frame rate and is taken at 24 a second" in clip.notes[0]
    assert levels_of(path) == expected
    assert levels_of(path, 12) == expected[::2]


def test_a_browser_recording_keeps_its_length(tmp_path: Path) -> None:
    # Frames as a screen gave them, at a stated rate of 1000, that of the container's clock.
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.choice([0.033, 0.034, 0.067, 0.1], 48, p=[0.4, 0.4, 0.1, 0.1]))
    path = write_film(tmp_path / "a.webm", times=list(times), codec="libvpx", fps=1000)
    clip = read_media(path)
    assert clip.fps == pytest.approx(30, rel=0.05)
    assert len(clip.frames) / clip.fps == pytest.approx(times[-1] - times[0], abs=0.1)
    relative = times - times[0]
    for k, level in enumerate(levels_of(path, 5)):
        nearest = np.abs(relative - k / 5).argmin()
        assert level == LEVELS[nearest]


def test_frames_are_the_nearest_in_time_whatever_the_container(tmp_path: Path) -> None:
    durations = [100] * 20 + [140] * 20
    starts = np.cumsum([0, *durations[:-1]]) / 1000
    images = [Image.new("RGB", (64, 48), (level,) * 3) for level in LEVELS[:40]]
    paths = [write_film(tmp_path / "a.mp4", LEVELS[:40], list(starts), last=0.14)]
    for name in ("a.gif", "a.webp", "a.png"):
        paths.append(tmp_path / name)
        images[0].save(
            paths[-1], save_all=True, append_images=images[1:], duration=durations, lossless=True
        )
    nearest = [LEVELS[np.abs(starts - k / 10 - 1e-6).argmin()] for k in range(48)]
    for path in paths:
        assert levels_of(path, 10) == nearest
        assert measure_length(path, 10) == (48, pytest.approx(4.8, abs=0.01))


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.flv"])
@pytest.mark.parametrize("sound", [0, 1.0, 2.0, 3.5])
def test_half_a_film_is_refused_with_or_without_sound(
    tmp_path: Path, name: str, sound: float
) -> None:
    path = write_film(tmp_path / name, sound=sound, options={"x264-params": "keyint=4:qp=1"})
    assert levels_of(path) == LEVELS  # sound may be longer or shorter
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(DataError, match=r"cut off|damaged|invalid data|no frames"):
        read_media(path)


def test_wmv_states_the_length_of_the_longest_stream(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.wmv", codec="wmv2", sound=3.5)
    assert levels_of(path) == LEVELS


@pytest.mark.parametrize("mode", ["chunk", "slide", "full", "uniform"])
@pytest.mark.parametrize("name", ["a.gif", "a.mkv"])
def test_a_claim_of_weeks_makes_no_endless_work(tmp_path: Path, name: str, mode: str) -> None:
    path = tmp_path / name
    if name == "a.gif":
        images = [Image.new("RGB", (64, 48), (level,) * 3) for level in LEVELS[:5]]
        images[0].save(path, save_all=True, append_images=images[1:], duration=655_350)
    else:
        write_film(path, LEVELS[:4], [0, 0.1, 0.2, 14 * 86400], codec="ffv1", pixels="bgr0")
    cut = ClipCut(24.0, PixelShape(5, 48, 64), mode, 1, 3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"frames? for .* seconds, and so long ones"):
        list(find_clip(str(path), 0, 24.0).clips(cut, 4))


def test_frames_of_a_folder_are_in_natural_order(tmp_path: Path) -> None:
    for k in range(12):
        Image.new("RGB", (64, 48), (LEVELS[k],) * 3).save(tmp_path / f"frame_{k + 1}.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "._frame_1.png")  # as another system leaves it
    assert levels_of(tmp_path) == LEVELS[:12]
    names = ["a10b2", "a2b10", "a2b9", "10", "9", "x"]
    assert sorted(names, key=natural_key) == ["a2b9", "a2b10", "a10b2", "x", "9", "10"]


@pytest.mark.parametrize("stated", [None, "0", "inf", "nan", "-3", "fast"])
def test_a_folder_without_a_rate_is_taken_as_25_and_says_so(
    tmp_path: Path, stated: str | None
) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    if stated is not None:
        text.add_text("fps", stated)
    for k in range(10):
        Image.new("RGB", (64, 48), (LEVELS[k],) * 3).save(tmp_path / f"{k}.png", pnginfo=text)
    clip = read_media(tmp_path)
    assert (clip.fps, len(clip.frames)) == (25, 10)
    assert "taken as 25 a second; --source-fps" in clip.notes[0]
    slow = read_media(tmp_path, source_fps=5)
    assert (slow.fps, slow.notes) == (5, ())
    assert levels_of(tmp_path, 10, source_fps=5) == [LEVELS[k // 2] for k in range(20)]


def test_a_rate_stated_by_the_user_comes_before_any_other(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mkv", LEVELS[:8])
    assert levels_of(film, 12, source_fps=6) == [LEVELS[k // 2] for k in range(16)]
    with pytest.raises(UsageError, match="can't be sampled"):
        read_media(film, source_fps=0)


def test_short_and_long_films_are_left_out_by_their_shown_length(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.ts")  # which states no length
    cut = ClipCut(12.0, PixelShape(5, 48, 64), filters=Filters(min_seconds=2.5))
    (dropped,) = find_clip(str(film), 0, 12.0).clips(cut, 4)
    assert isinstance(dropped, Dropped)
    assert dropped.found == "2 s"


def test_own_rates_follow_how_long_frames_are_shown() -> None:
    assert own_rate([0.04, 0.04, 0.04]) == (pytest.approx(25), True)
    # Hundredths of a gif at 30 a second.
    assert own_rate([0.03, 0.04, 0.03, 0.03, 0.04, 0.03]) == (pytest.approx(30), True)
    # Some held for several frames.
    assert own_rate([0.38, 0.12, 0.25, 0.13, 0.12, 0.13]) == (pytest.approx(8, rel=0.01), False)
    assert own_rate([0.0417] * 20, (23.976,)) == (23.976, True)
    assert own_rate([2.0]) == (0.5, True)


def test_an_address_is_named_as_it_was_given() -> None:
    with pytest.raises(UrsaError, match=r"http://127\.0\.0\.1:9/a\.png can't be read"):
        read_media("http://127.0.0.1:9/a.png")


def test_an_animation_without_times_has_ten_frames_a_second(tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 48), (level,) * 3) for level in LEVELS[:5]]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:])
    assert read_media(path).fps == 10
    assert levels_of(path, 10) == LEVELS[:5]


def test_a_film_that_changes_its_size_is_refused(tmp_path: Path) -> None:
    for k, size in enumerate([(64, 48), (64, 48), (64, 40)]):
        Image.new("RGB", size).save(tmp_path / f"{k}.png")
    with pytest.raises(DataError, match="changes size after 2 frames"):
        read_media(tmp_path)


def test_damaged_times_of_a_few_frames_make_no_million_of_them(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", LEVELS[:5], [0, 0.002, 50, 100, 150])
    assert len(read_media(path).frames) <= 300
    # One sampled rate per tick of 2 ms would be 75,000.
    assert own_rate([0.002, 50, 50, 50, 50])[0] < 2


@pytest.mark.parametrize("seconds", [[0, 0.04] * 9, [0.04, 0] * 9, [0, 0, 0, 1.0], [0, 0]])
def test_films_with_several_frames_at_one_time_have_a_rate(seconds: list[float]) -> None:
    assert 4 <= own_rate(seconds, (24.0,))[0] <= 50


def test_a_film_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", LEVELS[:2])
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    with pytest.raises(DataError, match="no pictures"):
        read_media(path)
