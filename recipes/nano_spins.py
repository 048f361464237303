"""Draw the clips that teach `nano` to spin: its world's, but for what spins easy ones alone.

Purpose: shapes that turn clockwise, by little more than a quarter, from upright. The world turns
         them either way, by up to a half, from any angle, which `nano` was too small to learn.
Hardware: one CPU core, 150 MB of disk.
Time: nine minutes for 11,000 clips, next to other work on both cores.
Command: python recipes/nano_spins.py data/spins --prompts data/spin_prompts.txt
         python recipes/nano_spins.py data/stars --prompts data/star_prompts.txt --stars --num 4000
Result: data/spins, films and captions next to them, of combinations of the training split, four in
        ten of which spin, for recipes/nano_spins.yaml; and a list of all captions of that split,
        four times what spins and twice other stars, for recipes/nano_reward.yaml. The second
        command draws stars alone, three in four of which spin, by 92 to 95 degrees, and lists
        spinning stars eight times: a second round, which the shipped model had (docs/rewards.md).
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from ursa_core.media import write_media
from ursa_core.worlds.shapes import (
    BACKGROUNDS,
    FPS,
    REACH,
    ClipSpec,
    caption,
    combinations,
    render,
    sample_spec,
)


def easy_spin(rng: np.random.Generator, spec: ClipSpec, easier: bool) -> ClipSpec:
    """A clip that spins as said above; stars are large, since the tokenizer breaks small ones."""
    smallest = 0.17 if easier else 0.155 if spec.shape == "star" else 0.13
    lean, turn = (0.03, 1.66) if easier else (0.2, 1.9)
    radius = rng.uniform(smallest, 0.18)
    margin = REACH[spec.shape] * radius + 0.02
    x, y = rng.uniform(margin, 1 - margin, 2).tolist()
    tilt = rng.uniform(-lean, lean)
    angles = (tilt, tilt + rng.uniform(1.6 if easier else math.pi / 2, turn))
    return replace(spec, centre=((x, y), (x, y)), radius=(radius, radius), angle=angles)


def draw(rng: np.random.Generator, stars: bool) -> ClipSpec:
    """A clip of the mixture, or of its stars."""
    spins = bool(rng.random() < (0.75 if stars else 0.4))
    drawn = [
        each
        for each in combinations("train")
        if (each[2] == "spins") == spins and (each[1] == "star" or not stars)
    ]
    chosen = drawn[rng.integers(len(drawn))]
    spec = sample_spec(rng, *chosen, list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))])
    return easy_spin(rng, spec, stars) if spins else spec


def prompts(stars: bool) -> list[tuple[str, str, str, str]]:
    """What captions say, the hard ones more often; with ``stars`` those of what spins, too."""
    return [
        (*each, background)
        for each in combinations("train")
        for background in BACKGROUNDS
        for spins, star in [(each[2] == "spins", each[1] == "star")]
        for _ in range(8 if spins and star and stars else 4 if spins else 2 if star else 1)
    ]


def main() -> None:
    """Write the clips."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num", type=int, default=11_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--stars", action="store_true", help="stars alone, three in four spin")
    parser.add_argument("--prompts", type=Path, help="list of captions to write, too")
    args = parser.parse_args()
    if args.prompts:
        args.prompts.write_text("".join(f"{caption(*each)}\n" for each in prompts(args.stars)))
    args.folder.mkdir(parents=True, exist_ok=True)
    for k in range(args.num):
        spec = draw(np.random.default_rng([args.seed, k]), args.stars)
        write_media(args.folder / f"{k:05}.mkv", render(spec, 64, 64, np.linspace(0, 1, 17)), FPS)
        words = caption(spec.colour, spec.shape, spec.motion, spec.background)
        (args.folder / f"{k:05}.txt").write_text(f"{words}\n")


if __name__ == "__main__":
    main()
