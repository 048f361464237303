"""A tuned model next to its start on held-out captions of the procedural world, paired by seed.

Both sample in the same way, without guidance. The judge of `ursa eval shapes` reads all four
attributes, and benchmarks/second_reading.py the shape, with no code in common:

    .venv/bin/python benchmarks/reward_quality.py nano runs/nano_reward --limit 124

Prints shares, the pairs that one of the two alone has right, and McNemar's exact p.
"""

import argparse
import math
from dataclasses import replace

from benchmarks.second_reading import read_shape
from ursa_core.bundle.bundle import load_bundle
from ursa_core.bundle.options import SamplingOptions
from ursa_core.evaluation.suites.shapes import ALL, ATTRIBUTES, Wanted, right, wanted
from ursa_core.evaluation.suites.shapes_judge import judge
from ursa_core.rewards.scorers import shapes_score
from ursa_core.sampling.generate import Request, Sampler, decode

PACK = 16
COLUMNS = (ALL, *ATTRIBUTES, "second reading of shape", "score")


def rows(
    model: str, clips: list[Wanted], seeds: list[int], options: SamplingOptions
) -> list[dict[str, float]]:
    """What each clip of a model shows, by seed and caption."""
    bundle, found = load_bundle(model), []
    for seed in seeds:
        for start in range(0, len(clips), PACK):
            pack = clips[start : start + PACK]
            requests = [Request(each.prompt, seed, 0, options) for each in pack]
            for each, codes in zip(pack, Sampler(bundle, requests).sample(), strict=True):
                frames = decode(bundle, codes)
                score = shapes_score(frames, each.prompt)
                second = float(read_shape(frames) == each.shape)
                own = {"second reading of shape": second, "score": float(score)}
                found.append({**right(each, judge(frames)), **own})
    return found


def mcnemar(first: int, second: int) -> float:
    """Exact two-sided p of pairs that only the first, or only the second, has right."""
    total, least = first + second, min(first, second)
    return min(1.0, 2 * sum(math.comb(total, k) for k in range(least + 1)) / 2**total)


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
    args = parser.parse_args()
    clips = [e for e in wanted("heldout") if args.motion in (None, e.motion)][: args.limit]
    own = load_bundle(args.start).settings.defaults
    options = replace(
        own, frames=args.frames or own.frames, steps=args.steps, guidance=1.0,
        temperature=args.temperature, correct=args.correct,
    )  # fmt: skip
    found = [rows(model, clips, args.seeds, options) for model in (args.start, args.tuned)]
    print(f"{'mean over ' + str(len(found[0])) + ' clips':26}{'start':>9}{'tuned':>9}")
    for name in COLUMNS:
        means = [sum(row[name] for row in each) / len(each) for each in found]
        print(f"{name:26}{means[0]:9.3f}{means[1]:9.3f}")
    pairs = [(start[ALL], tuned[ALL]) for start, tuned in zip(*found, strict=True)]
    alone = pairs.count((True, False)), pairs.count((False, True))
    print(f"{ALL}: only the start {alone[0]}, only the tuned {alone[1]}, p {mcnemar(*alone):.2g}")


if __name__ == "__main__":
    main()
