"""The procedural world: what the issue of a clip promises, measured on pixels and specs."""

import numpy as np
import pytest

from ursa_core.errors import UsageError
from ursa_core.worlds.shapes import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    MOVES,
    REACH,
    SHAPES,
    caption,
    combinations,
    is_held_out,
    render,
    sample_spec,
    training_clip,
)

EVERY = [(shape, motion) for _, shape, motion in combinations() if _ == "red"]


def specs(shape, motion, count=20):
    rng = np.random.default_rng(0)
    return [sample_spec(rng, "red", shape, motion, "black") for _ in range(count)]


@pytest.mark.parametrize(("shape", "motion"), EVERY)
def test_every_clip_keeps_to_its_words(shape, motion):
    for spec in specs(shape, motion):
        (x0, y0), (x1, y1) = spec.centre
        growth = spec.radius[1] / spec.radius[0]
        turn = abs(spec.angle[1] - spec.angle[0])
        if motion in MOVES:
            dx, dy = MOVES[motion]
            assert (x1 - x0) * dx + (y1 - y0) * dy >= 0.25
            assert abs((x1 - x0) * dy) + abs((y1 - y0) * dx) == 0
        else:
            assert (x0, y0) == (x1, y1)
        if motion in ("grows", "shrinks"):
            assert (growth if motion == "grows" else 1 / growth) >= 2
        else:
            assert growth == 1
        assert turn >= np.pi / 2 if motion == "spins" else turn == 0
        margin = REACH[shape] * max(spec.radius)
        assert min(x0, y0, x1, y1) - margin >= 0
        assert max(x0, y0, x1, y1) + margin <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_no_pixel_lies_beyond_the_reach(shape):
    for spec in specs(shape, "grows", 5):
        clip = render(spec, 96, 96, np.array([1.0]))
        rows, columns = np.nonzero((clip[0] != np.array(BACKGROUNDS["black"])).any(-1))
        (_, (x, y)), radius = spec.centre, spec.radius[1]
        distance = np.hypot((columns + 0.5) / 96 - x, (rows + 0.5) / 96 - y)
        assert distance.max() <= REACH[shape] * radius + 1.5 / 96
        assert distance.max() >= 0.9 * radius


def test_colours_are_exact_inside_and_outside():
    spec = specs("circle", "stays still", 1)[0]
    frame = render(spec, 64, 64, np.array([0.0]))[0]
    x, y = (int(v * 64) for v in spec.centre[0])
    assert tuple(frame[y, x]) == COLOURS["red"]
    corners = frame[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == BACKGROUNDS["black"]).all(1).sum() >= 3
    between = (frame != COLOURS["red"]).any(-1) & (frame != BACKGROUNDS["black"]).any(-1)
    assert between.any(), "edges are anti-aliased"


def test_a_ring_has_a_hole():
    spec = specs("ring", "stays still", 1)[0]
    x, y = (int(v * 64) for v in spec.centre[0])
    assert tuple(render(spec, 64, 64, np.array([0.0]))[0, y, x]) == BACKGROUNDS["black"]


def test_splits_share_no_combination():
    train, heldout = set(combinations("train")), set(combinations("heldout"))
    assert not train & heldout
    assert train | heldout == set(combinations())
    assert all(is_held_out(*combination) for combination in heldout)
    assert is_held_out("red", "circle", "moves right")
    assert not is_held_out("green", "circle", "moves right")
    assert len(COLOURS) == 8
    assert len(MOTIONS) == 8
    for colour in COLOURS:  # every word is seen in training
        assert any(colour == c for c, _, _ in train)


def test_circles_and_rings_never_spin():
    assert not any(m == "spins" and s in ("circle", "ring") for _, s, m in combinations())


def test_a_clip_depends_on_its_place_alone():
    frames, text = training_clip(3, 7, "train", 9, 32, 48)
    again, same = training_clip(3, 7, "train", 9, 32, 48)
    other, _ = training_clip(3, 8, "train", 9, 32, 48)
    assert frames.shape == (9, 32, 48, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, again)
    assert text == same
    assert not np.array_equal(frames, other)


def test_captions_follow_the_template():
    words = caption("orange", "star", "stays still", "gray")
    assert words == "a orange star stays still on a gray background"


def test_windows_are_cut_from_the_whole_motion():
    starts = set()
    for index in range(12):
        whole, _ = training_clip(0, index, "train", 17, 32, 32)
        window, _ = training_clip(0, index, "train", 5, 32, 32, full_frames=17)
        found = [k for k in range(13) if np.array_equal(whole[k : k + 5], window)]
        assert found
        starts.add(found[0])
    assert len(starts) > 1


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match="no split 'test'"):
        training_clip(0, 0, "test", 5, 32, 32)
