"""Where clips begin, how their frames are gathered, and which are left out."""

import itertools

import numpy as np
import pytest

from ursa_core.encoding.cuts import ClipCut, windows
from ursa_core.encoding.options import Filters
from ursa_core.grids import PixelShape

SHAPE = PixelShape(5, 240, 384)


def film(count: int) -> list[np.ndarray]:
    return [np.full((1, 1, 3), k, np.uint8) for k in range(count)]


@pytest.mark.parametrize(
    ("cut", "num_frames", "expected"),
    [
        (ClipCut(8.0, SHAPE), 17, [0]),
        (ClipCut(8.0, SHAPE, "chunk"), 17, [0, 5, 10]),
        (ClipCut(8.0, SHAPE, "chunk"), 4, []),
        (ClipCut(8.0, SHAPE, "slide", stride=3), 17, [0, 3, 6, 9, 12]),
        (ClipCut(8.0, SHAPE, "slide", stride=7), 17, [0, 7]),
        (ClipCut(8.0, SHAPE, "uniform", count=3), 17, [0, 6, 12]),
        (ClipCut(8.0, SHAPE, "uniform", count=1), 17, [6]),
        (ClipCut(8.0, SHAPE, "uniform", count=9), 7, [0, 1, 2]),
        (ClipCut(8.0, SHAPE, "uniform", count=2), 4, []),
    ],
)
def test_clips_begin_where_they_should_and_are_whole(
    cut: ClipCut, num_frames: int, expected: list[int]
) -> None:
    found = list(windows(iter(film(num_frames)), cut.starts(num_frames), SHAPE.frames))
    assert [start for start, _ in found] == expected
    for start, frames in found:
        assert frames[:, 0, 0, 0].tolist() == list(range(start, start + 5))


def test_no_more_frames_are_read_than_a_clip_needs() -> None:
    read = []

    def endless() -> itertools.count:
        for frame in itertools.count():
            read.append(frame)
            yield np.zeros((1, 1, 3), np.uint8)

    assert len(list(windows(endless(), [2], 5))) == 1
    assert len(read) == 7


def test_names_lead_back_to_their_items() -> None:
    chunks, head = ClipCut(8.0, SHAPE, "chunk"), ClipCut(8.0, SHAPE)
    assert chunks.name("clips/a@2.mp4", 10) == "clips/a@2.mp4@10"
    assert chunks.item_of("clips/a@2.mp4@10") == "clips/a@2.mp4"
    assert head.item_of(head.name("clips/a@2.mp4", 0)) == "clips/a@2.mp4"


def test_a_file_gets_the_size_nearest_in_aspect_ratio() -> None:
    cut = ClipCut(8.0, SHAPE, sizes=((384, 240), (320, 320)))
    assert cut.size_for(1080, 1920) == (240, 384)
    assert cut.size_for(1920, 1080) == (384, 240)
    assert cut.size_for(500, 600) == (320, 320)
    assert ClipCut(8.0, SHAPE).size_for(1920, 1080) == (240, 384)


def test_filters_name_the_bound_that_was_crossed() -> None:
    filters = Filters(256, 2.0, 60.0, 0.01, 0.3)
    assert filters.reason("size", 256) == ""
    assert filters.reason("size", 255) == "smaller than 256 pixels"
    assert [filters.reason("seconds", s) for s in (2, 1.9, 60, 61)] == [
        "",
        "shorter than 2 s",
        "",
        "longer than 60 s",
    ]
    assert [filters.reason("motion", m) for m in (0.01, 0.009, 0.31)] == [
        "",
        "motion below 0.01",
        "motion above 0.3",
    ]
    nothing = Filters()
    assert not any(nothing.reason(what, 0) for what in ("size", "seconds", "motion"))


def test_plain_cuts_are_recorded_as_they_always_were() -> None:
    assert ClipCut(8.0, SHAPE).to_json() == {"fps": 8.0, "frames": 5, "size": "240x384"}
    several = ClipCut(8.0, SHAPE, "slide", 3, sizes=((9, 9),), filters=Filters(min_motion=0.0))
    assert several.to_json() == {
        "fps": 8.0,
        "frames": 5,
        "size": "240x384,9x9",
        "clips": "slide",
        "stride": 3,
        "min_motion": 0.0,
    }
