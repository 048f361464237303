"""A scorer for `kind: command` of a reward recipe: does a clip show the emoji of its prompt?

    command: [python, recipes/score_emoji.py, data/emoji_packs/pixels]

Reads a JSON object per line, {"id": 0, "prompt": "…", "frames": "FOLDER"}, and answers {"id": 0,
"score": …}: half for the subject, half for the background, or {"id": 0, "error": "…"}. The matcher
of benchmarks/emoji_matcher.py reads both from the pixels, with reference loops of the folder
(recipes/pixel_packs.py). For a scorer of yours, replace `score` and `main`, keep `answer_lines`.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.emoji_matcher import EmojiMatcher
from ursa_core.bundle.subjects import named_subjects
from ursa_core.worlds.sprites import load_sprites


def score(matcher: EmojiMatcher, subjects: tuple, prompt: str, frames: np.ndarray) -> float:
    """The score of a clip uint8 (F, H, W, 3), 0 to 1; a ValueError where it has none."""
    names = named_subjects(prompt, subjects)
    background = re.search(r"(\w+) background", prompt)
    if not names or background is None:
        raise ValueError("the prompt names no subject and background")
    seen = matcher.match(frames)
    return ((seen.subject == names[0]) + (seen.background == background[1])) / 2


def answer_lines(score: Callable[[str, np.ndarray], float]) -> None:
    """Answer each line of standard input, by a score of its prompt and frames, until it ends."""
    for line in sys.stdin:
        clip = json.loads(line)
        files = sorted(Path(clip["frames"]).glob("*.png"))
        frames = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        answer = {"id": clip["id"]}
        try:
            answer["score"] = score(clip["prompt"], frames)
        except ValueError as error:
            answer["error"] = str(error)
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Score clips by the reference loops of a folder."""
    sprites = load_sprites(Path(sys.argv[1]))
    loops = [sprites.loop(number) for number in range(len(sprites.subjects))]
    matcher = EmojiMatcher([subject.name for subject in sprites.subjects], loops)
    answer_lines(partial(score, matcher, sprites.subjects))


if __name__ == "__main__":
    main()
