"""The matcher names figures wherever they stand, at any phase and size, over every background."""

import numpy as np
import pytest
from pixel_packs import prepare_sprites
from tiny_packs import SUBJECTS, write_packs

from benchmarks.emoji_matcher import BACKGROUNDS, NOTHING, EmojiMatcher
from ursa_core.errors import ShapeError
from ursa_core.worlds import emoji
from ursa_core.worlds.sprites import load_sprites

NUM = len(SUBJECTS)


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    packs = write_packs(tmp_path_factory.mktemp("packs"))
    prepare_sprites(packs / "emoji", packs / "pixels", 48)
    return load_sprites(packs / "pixels")


@pytest.fixture(scope="module")
def matcher(sprites):
    return EmojiMatcher([s.name for s in sprites.subjects], [sprites.loop(k) for k in range(NUM)])


def clip_of(sprites, number, background, seed=0):
    loop = sprites.loop(number)
    phase = emoji.sample_phase(np.random.default_rng(seed), loop)
    return emoji.render(loop, background, 64, 64, phase + np.arange(9))


def test_it_knows_the_colours_of_the_renderer():
    assert BACKGROUNDS == emoji.BACKGROUNDS


def test_subject_and_background_are_named(sprites, matcher):
    rng = np.random.default_rng(1)
    for number, subject in enumerate(sprites.subjects):
        for background in ("white", "purple", "navy"):
            if (subject.name, background) == ("black cat", "navy"):
                continue  # too dark to tell from another disc
            clip = clip_of(sprites, number, background, seed=number)
            noisy = np.clip(clip + rng.normal(0, 4, clip.shape), 0, 255).astype(np.uint8)
            found = matcher.match(noisy)
            assert (found.subject, found.background) == (subject.name, background)
            assert found.error < found.second_error


def test_motion_is_that_of_the_reference_and_none_of_a_still(sprites, matcher):
    clip = clip_of(sprites, 0, "purple")
    found = matcher.match(clip)
    assert found.motion == pytest.approx(found.reference_motion, rel=0.35)
    name = sprites.subjects[0].name
    assert matcher.motion_of(name, "purple") == found.reference_motion
    still = matcher.match(np.repeat(clip[:1], 9, 0))
    assert still.motion == 0
    assert matcher.match(clip[:1]).motion == 0


def test_an_empty_clip_shows_nothing(matcher):
    empty = np.full((5, 32, 32, 3), BACKGROUNDS["teal"], np.uint8)
    found = matcher.match(empty)
    assert (found.subject, found.background) == (NOTHING, "teal")
    assert found.background_error == 0


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (5, 8, 32, 3), (5, 32, 32, 4)])
def test_what_is_no_clip_is_refused(matcher, shape):
    with pytest.raises(ShapeError):
        matcher.match(np.zeros(shape, np.uint8))
    with pytest.raises(ShapeError, match="float64"):
        matcher.match(np.zeros((5, 32, 32, 3)))
