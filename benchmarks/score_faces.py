"""A scorer for `kind: command` of a reward recipe: does a clip show its emoji with a whole face?

    command: [python, benchmarks/score_faces.py, data/emoji]

Lines in and out are those of recipes/score_emoji.py. The score is the mean of frame fidelity and
that of the worst frame (emoji_fidelity.py), less where the change from frame to frame isn't 0.8 to
1.25 of the reference's, so that a frozen clip has none, and 0 where the matcher sees another
subject or background.
"""

import re
import sys
from functools import cache
from pathlib import Path

import torch
from emoji_fidelity import fidelity
from emoji_matcher import EmojiMatcher
from emoji_quality import whole_loop

from ursa_core.bundle.subjects import named_subjects
from ursa_core.grids import PixelShape
from ursa_core.media import Frames
from ursa_core.worlds.sprites import load_sprites

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
from score_emoji import answer_lines

STEADY = (0.8, 1.25)
"""Ratios to the reference's change within which a clip has its whole score."""


def main() -> None:
    """Answer each line of standard input until it ends."""
    torch.set_num_threads(1)
    sprites = load_sprites(Path(sys.argv[1]))
    loops = [sprites.loop(number) for number in range(len(sprites.subjects))]
    matcher = EmojiMatcher([subject.name for subject in sprites.subjects], loops)
    loop_of = cache(lambda shape, pair: whole_loop(sprites, shape, pair))

    def score(prompt: str, frames: Frames) -> float:
        names, ground = named_subjects(prompt, sprites.subjects), re.search(r"(\w+) back", prompt)
        if not names or ground is None:
            raise ValueError("the prompt names no subject and background")
        seen = matcher.match(frames)
        if (seen.subject, seen.background) != (names[0], ground[1]):
            return 0.0
        face = fidelity(frames, loop_of(PixelShape(*frames.shape[:3]), (names[0], ground[1])))
        steady = min(1.0, face.steadiness / STEADY[0], STEADY[1] / max(face.steadiness, 1e-6))
        return steady * (face.mean + face.worst) / 2

    answer_lines(score)


if __name__ == "__main__":
    main()
