"""A tuned model next to its start on held-out captions of the procedural world, paired by seed.

Both sample in the same way, without guidance. The judge of `ursa eval shapes` reads all four
attributes, and benchmarks/second_reading.py the shape, with no code in common:

    .venv/bin/python benchmarks/reward_quality.py nano runs/nano_reward --limit 124

Prints shares, the pairs that one of the two alone has right, and McNemar's exact p. Frame fidelity
is that of emoji_fidelity.py, next to the shape rendered at all angles. ``--sheet`` draws
some clips of both as pictures, the start's above.
"""

import argparse
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.emoji_fidelity import fidelity
from benchmarks.few_calls import diversity
from benchmarks.second_reading import read_shape
from ursa_core.bundle.bundle import Bundle, load_bundle
from ursa_core.bundle.options import SamplingOptions
from ursa_core.evaluation.reports.intervals import mcnemar
from ursa_core.evaluation.suites.shapes import ALL, ATTRIBUTES, Wanted, right, wanted
from ursa_core.evaluation.suites.shapes_judge import judge
from ursa_core.media import Frames, write_media
from ursa_core.media.frames import contact_sheet
from ursa_core.rewards.scorers import shapes_score
from ursa_core.sampling.generate import Request, Sampler, decode
from ursa_core.worlds.shapes import ClipSpec, render

PACK = 16
COLUMNS = (
    ALL, *ATTRIBUTES, "second reading of shape", "score", "frame fidelity", "worst frame",
)  # fmt: skip
GROUPS = {
    "stars": lambda each: each.shape == "star",
    "spinning": lambda each: each.motion == "spins",
    "spinning stars": lambda each: (each.shape, each.motion) == ("star", "spins"),
    "neither": lambda each: each.shape != "star" and each.motion != "spins",
}


@cache
def turned(colour: str, shape: str, background: str) -> Frames:
    """A shape as it is rendered, turned by 5 degrees in each frame."""
    middle, size = (0.5, 0.5), (0.16, 0.16)
    full = (0.0, 2 * math.pi)
    spec = ClipSpec(colour, shape, "spins", background, (middle, middle), size, full)
    return render(spec, 64, 64, np.arange(72) / 72)


def rows(
    bundle: Bundle, clips: list[Wanted], seeds: list[int], options: SamplingOptions,
    sheet: list[Frames],
) -> list[dict[str, float]]:  # fmt: skip
    """What each clip of a model shows, by seed and caption; frames of the first seed go along."""
    found = []
    for seed in seeds:
        for start in range(0, len(clips), PACK):
            pack = clips[start : start + PACK]
            requests = [Request(each.prompt, seed, 0, options) for each in pack]
            for each, codes in zip(pack, Sampler(bundle, requests).sample(), strict=True):
                frames = decode(bundle, codes)
                score = shapes_score(frames, each.prompt)
                second = float(read_shape(frames) == each.shape)
                face = fidelity(frames, turned(each.colour, each.shape, each.background))
                own = {
                    "second reading of shape": second, "score": float(score),
                    "frame fidelity": face.mean, "worst frame": face.worst,
                }  # fmt: skip
                found.append({**right(each, judge(frames)), **own})
                if seed == seeds[0]:
                    sheet.append(frames)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("start")
    parser.add_argument("tuned")
    parser.add_argument("--limit", type=int, help="number of held-out captions")
    parser.add_argument("--motion", help="captions of one motion alone")
    parser.add_argument("--frames", type=int, help="frames of a clip; 1 is an image")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=0.85)
    parser.add_argument("--correct", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--diversity", action="store_true", help="measure it, too")
    parser.add_argument("--sheet", type=Path, help="picture of some clips of both")
    args = parser.parse_args()
    clips = [e for e in wanted("heldout") if args.motion in (None, e.motion)][: args.limit]
    own = load_bundle(args.start).settings.defaults
    options = replace(
        own, frames=args.frames or own.frames, steps=args.steps, guidance=1.0,
        temperature=args.temperature, correct=args.correct,
    )  # fmt: skip
    way = f"steps={args.steps} guidance=1 temperature={args.temperature} correct={args.correct}"
    found, sheets, diverse = [], ([], []), []
    for model, sheet in zip((args.start, args.tuned), sheets, strict=True):
        bundle = load_bundle(model)
        found.append(rows(bundle, clips, args.seeds, options, sheet))
        if args.diversity:
            diverse.append(diversity(bundle, [each.prompt for each in wanted("heldout")], way))
    print(f"{'mean over ' + str(len(found[0])) + ' clips':26}{'start':>9}{'tuned':>9}")
    for name in COLUMNS:
        means = [sum(row[name] for row in each) / len(each) for each in found]
        print(f"{name:26}{means[0]:9.3f}{means[1]:9.3f}")
    for name, belongs in GROUPS.items():
        own = [k for k, each in enumerate(clips * len(args.seeds)) if belongs(each)]
        shares = [f"{sum(each[k][ALL] for k in own)}/{len(own)}" for each in found]
        print(f"{name + ', all four':26}{shares[0]:>9}{shares[1]:>9}")
    if diverse:
        print(f"{'diversity':26}{diverse[0]:9.3f}{diverse[1]:9.3f}")
    pairs = [(start[ALL], tuned[ALL]) for start, tuned in zip(*found, strict=True)]
    alone = pairs.count((True, False)), pairs.count((False, True))
    print(f"{ALL}: only the start {alone[0]}, only the tuned {alone[1]}, p {mcnemar(*alone):.2g}")
    if args.sheet:
        chosen = np.linspace(0, len(clips) - 1, 12).astype(int)
        pairs = [np.concatenate([sheet[k] for sheet in sheets], axis=1) for k in chosen]
        write_media(args.sheet, contact_sheet(pairs, columns=3)[None], 1.0)


if __name__ == "__main__":
    main()
