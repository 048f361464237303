"""Given frames in decoded clips: as they are, and without a jump beside them."""

import numpy as np

from ursa_core.clips.cond_frames import FADE_FRAMES, following, with_frames


def grey(*values: int) -> np.ndarray:
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), 2, 2, 3))


def levels(frames: np.ndarray) -> list[int]:
    assert (frames == frames[:, :1, :1, :1]).all()
    return [int(value) for value in frames[:, 0, 0, 0]]


def test_the_difference_at_a_join_fades_out():
    new = following(grey(100, 100, 100), grey(*[82] * 12), 5)
    assert levels(new) == [98, 96, 94, 92, 90, 88, 86]
    assert levels(following(grey(9), grey(*[0] * 12), 1))[FADE_FRAMES:] == [0, 0, 0]


def test_given_frames_are_shown_as_they_are():
    made = with_frames(grey(*[100] * 13), {0: grey(109), 8: grey(92, 90), 12: grey(103)})
    assert levels(made)[0] == 109
    assert levels(made)[8:10] == [92, 90]
    assert levels(made)[12] == 103
    assert levels(made)[1:8] == [107, 105, 103, 100, 98, 96, 94]  # both fade, from end to end
    assert levels(made)[10:12] == [94, 99]


def test_without_a_difference_nothing_changes():
    made = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(with_frames(made, {0: made[:1], 8: made[8:]}), made)
