"""Metrics of videos whose motion, flicker and drift are known."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ursa_core.encoding.sources import MediaFile
from ursa_core.evaluation.measures.videos import (
    colour_drift,
    displacements,
    flicker,
    is_dynamic,
    kept_psnr,
    measure,
    speeds_of,
)
from ursa_core.files import digest_of
from ursa_core.media import Frames, write_media


def texture(seed: int = 0) -> Frames:
    noise = np.random.default_rng(seed).normal(0, 1, (96, 96, 3))
    smooth = gaussian_filter(noise, (1.5, 1.5, 0))
    return np.clip(128 + 120 * smooth / np.abs(smooth).max(), 0, 255).astype(np.uint8)


def moving(down: int, right: int, num: int = 6) -> Frames:
    return np.stack([np.roll(texture(), (k * down, k * right), (0, 1)) for k in range(num)])


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -2), (-7, 7), (1, 0)])
def test_blocks_are_followed_where_they_go(down: int, right: int) -> None:
    before, after = (frame.mean(-1) for frame in moving(down, right, 2))
    found_down, found_right = displacements(before, after)
    inner = (slice(1, -1), slice(1, -1))  # what is rolled in from the other side isn't followed
    assert (found_down[inner] == down).mean() > 0.99
    assert (found_right[inner] == right).mean() > 0.99


def test_noise_on_a_plain_ground_is_no_motion() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (4, 96, 96, 3))
    frames = np.clip(128 + noise, 0, 255).astype(np.uint8)
    assert speeds_of(frames, 8.0).max() == 0
    assert not is_dynamic(speeds_of(frames, 8.0))


def test_speeds_are_shares_of_the_side_in_an_eighth_of_a_second() -> None:
    assert speeds_of(moving(0, 4), 8.0) == pytest.approx(4 / 96, rel=0.35)
    assert np.median(speeds_of(moving(0, 2), 8.0)) < np.median(speeds_of(moving(0, 4), 8.0))
    assert len(speeds_of(moving(0, 1, 9), 16.0)) == 4  # every second frame
    assert np.median(speeds_of(moving(0, 1, 9), 16.0)) >= 2 / 96
    assert is_dynamic(speeds_of(moving(0, 5), 8.0))
    assert len(speeds_of(moving(0, 5, 1), 8.0)) == 0
    assert not is_dynamic(np.zeros(0))


def test_flicker_and_drift_are_in_levels() -> None:
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    assert (flicker(frames), colour_drift(frames)) == (0, 0)
    frames[1::2] = 10
    assert flicker(frames) == 10
    frames = np.repeat(np.arange(16, dtype=np.uint8)[:, None, None, None], 16, 1)
    frames = np.broadcast_to(frames, (16, 16, 16, 3))
    assert flicker(frames) == 1
    assert colour_drift(frames) == pytest.approx(14 * np.sqrt(3))
    assert flicker(frames[:1]) == 0


def test_kept_frames_are_those_that_the_video_tells_of(tmp_path: Path) -> None:
    clip = moving(1, 1, 9)
    image = tmp_path / "first.png"
    write_media(image, clip[:1], 8.0)
    given = {"files": [{"file": str(image), "sha256": digest_of(image), "frame": 0}]}
    assert kept_psnr(clip, {"given": given}) == 100
    noisy = clip.copy()
    noisy[0] = np.clip(clip[0].astype(int) + 5, 0, 255)
    assert kept_psnr(noisy, {"given": given}) == pytest.approx(20 * np.log10(255 / 5), abs=0.3)
    assert kept_psnr(clip, {"given": {"files": [{**given["files"][0], "sha256": "other"}]}}) is None
    assert kept_psnr(clip, {}) is None

    source = tmp_path / "clip.mkv"
    write_media(source, clip[:4], 8.0)
    longer = {"given": {"file": str(source), "sha256": digest_of(source)}, "own_frames": 4}
    assert kept_psnr(clip, {**longer, "frames": 9, "before": False}) == 100
    turned = np.concatenate([clip[4:], clip[:4]])
    assert kept_psnr(turned, {**longer, "frames": 9, "before": True}) == 100

    video = tmp_path / "video.mkv"
    write_media(video, clip, 8.0, {"given": given})
    found = measure(MediaFile("video.mkv", video, ()))
    assert found.values["kept frames"] == 100
    assert found.caption.startswith("video.mkv: 9 frames of 96x96; motion ")
    assert found.values["flicker"] > 1
    assert found.rank == -found.values["flicker"]
