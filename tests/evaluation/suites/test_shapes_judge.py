"""The judge against rendered clips: as drawn, as mp4, blurred and noisy; and against no clip."""

import functools
import io
from collections.abc import Callable

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ursa_core.errors import ShapeError
from ursa_core.evaluation.suites import shapes_judge
from ursa_core.evaluation.suites.shapes_judge import judge
from ursa_core.worlds import shapes

Clip = NDArray[np.uint8]
PROGRESS = np.linspace(0, 1, 17)


@functools.cache
def held_out_clips(every: int) -> list[tuple[shapes.ClipSpec, Clip]]:
    """One clip of each held-out combination on each background, thinned out."""
    rng = np.random.default_rng(7)
    chosen = [
        (*combination, background)
        for combination in shapes.combinations("heldout")
        for background in shapes.BACKGROUNDS
    ][::every]
    specs = [shapes.sample_spec(rng, *attributes) for attributes in chosen]
    return [(spec, shapes.render(spec, 64, 64, PROGRESS)) for spec in specs]


def as_mp4(clip: Clip) -> Clip:
    """The clip after lossy H.264 with halved colour resolution."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "23", "threads": "1"})
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as reader:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)])


def blurred(clip: Clip) -> Clip:
    """The clip as a coarse tokenizer gives it back."""
    noise = np.random.default_rng(3).normal(0, 6, clip.shape)
    soft = gaussian_filter(clip.astype(np.float64), (0, 0.7, 0.7, 0)) + noise
    return np.clip(soft + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "change", [lambda clip: clip, as_mp4, blurred], ids=["drawn", "mp4", "blur"]
)
def test_reads_what_was_drawn(change: Callable[[Clip], Clip]) -> None:
    clips = held_out_clips(every=2)
    right = np.zeros(4)
    for spec, clip in clips:
        verdict = judge(change(clip))
        right += [
            verdict.background == spec.background,
            verdict.colour == spec.colour,
            verdict.shape == spec.shape,
            verdict.motion == spec.motion,
        ]
    assert len(clips) > 100
    assert (right / len(clips) >= 0.99).all(), right / len(clips)


def test_measures_what_was_drawn() -> None:
    spec = shapes.ClipSpec(
        colour="yellow",
        shape="triangle",
        motion="spins",
        background="brown",
        centre=((0.3, 0.5), (0.4, 0.45)),
        radius=(0.12, 0.15),
        angle=(0.3, 0.3 - np.radians(130)),
    )
    verdict = judge(shapes.render(spec, 64, 64, PROGRESS))
    assert verdict.shift == pytest.approx((0.1, -0.05), abs=0.005)
    assert verdict.area_ratio == pytest.approx((0.15 / 0.12) ** 2, rel=0.05)
    assert verdict.turn_degrees == pytest.approx(-130, abs=3)
    assert verdict.motion == "spins"
    assert verdict.colour_error < 8
    assert verdict.shape_error < 0.05


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (128, 96)])
def test_other_sizes(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    for shape, motion in [("star", "moves up"), ("square", "spins"), ("ring", "grows")]:
        spec = shapes.sample_spec(rng, "cyan", shape, motion, "gray")
        verdict = judge(shapes.render(spec, *size, PROGRESS))
        assert (verdict.shape, verdict.motion) == (shape, motion)


def test_time_reversed_is_the_opposite_motion() -> None:
    rng = np.random.default_rng(2)
    opposite = {"moves right": "moves left", "moves down": "moves up", "grows": "shrinks"}
    for motion, other in opposite.items():
        spec = shapes.sample_spec(rng, "red", "circle", motion, "navy")
        clip = shapes.render(spec, 64, 64, PROGRESS)
        assert judge(clip).motion == motion
        assert judge(clip[::-1]).motion == other


def test_half_the_smallest_motion_is_the_border() -> None:
    def moved(share: float) -> str:
        centre = ((0.3, 0.5), (0.3 + share, 0.5))
        spec = shapes.ClipSpec(
            "white", "circle", "moves right", "black", centre, (0.15, 0.15), (0, 0)
        )
        return judge(shapes.render(spec, 64, 64, PROGRESS)).motion

    assert moved(0.11) == "stays still"
    assert moved(0.14) == "moves right"


def test_an_empty_scene_shows_nothing() -> None:
    rng = np.random.default_rng(0)
    empty = np.array(shapes.BACKGROUNDS["navy"]) + rng.normal(0, 4, (17, 64, 64, 3))
    verdict = judge(np.clip(empty, 0, 255).astype(np.uint8))
    assert verdict.background == "navy"
    assert {verdict.colour, verdict.shape, verdict.motion} == {shapes_judge.NOTHING}


def test_noise_is_judged_without_failing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (17, 64, 64, 3), dtype=np.uint8)
    assert judge(noise).shape_error > 0.3


def test_one_frame_stays_still() -> None:
    spec, clip = held_out_clips(every=10)[0]
    verdict = judge(clip[:1])
    assert (verdict.colour, verdict.shape, verdict.motion) == (
        spec.colour,
        spec.shape,
        "stays still",
    )


@pytest.mark.parametrize(
    "clip",
    [
        np.zeros((17, 64, 64, 3), np.float32),
        np.zeros((17, 64, 64), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.zeros((17, 8, 64, 3), np.uint8),
    ],
)
def test_what_is_no_clip_is_refused(clip: Clip) -> None:
    with pytest.raises(ShapeError):
        judge(clip)
