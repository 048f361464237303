"""The example scorer, as a process: emoji and background of a prompt, read from the frames."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pixel_packs import prepare_sprites
from tiny_packs import write_packs

from ursa_core.rewards.command import CommandScorer
from ursa_core.worlds import emoji
from ursa_core.worlds.sprites import load_sprites

SCRIPT = Path(__file__).parents[2] / "recipes" / "score_emoji.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    packs = write_packs(tmp_path_factory.mktemp("packs"))
    prepare_sprites(packs / "emoji", packs / "pixels", 48)
    return packs / "pixels"


def test_the_example_scores_emoji(folder):
    sprites = load_sprites(folder)
    loop, name = sprites.loop(0), sprites.subjects[0].name
    clip = emoji.render(loop, "navy", 64, 64, np.arange(5))
    other = sprites.subjects[1].name
    prompts = [emoji.caption(*each) for each in ((name, "navy"), (name, "red"), (other, "red"))]
    with CommandScorer([sys.executable, str(SCRIPT), str(folder)], 60.0) as scorer:
        found = scorer([clip] * 4, [*prompts, "a dog"])
    assert found == [1.0, 0.5, 0.0, "the prompt names no subject and background"]
