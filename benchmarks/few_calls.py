"""Quality against network passes: ways to sample one model, paired by prompt and seed.

A way is the options that differ from the model's own, as users write them. Settings are chosen on
prompts seen in training, and run once on those held out:

    python benchmarks/few_calls.py --way "steps=8 correct=0" --way "steps=8 correct=1" --limit 124
    python benchmarks/few_calls.py --split heldout --seeds 0 1 2 --plot docs/few_calls.png

Without ``--way`` the table WAYS runs. Of ``nano`` the judge of ``ursa eval shapes`` sees written
mp4s; of ``emoji`` (with ``--data``, as recipes/emoji_data.py prepares it) the matcher and the
frame fidelity of emoji_quality.py. The first way is what the others are compared with. Each clip is
a line of ``records.jsonl`` in --out, and a run goes on where it was stopped.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano_quality import hardware
from numpy.typing import NDArray

import ursa_core
from ursa_core.bundle.bundle import Bundle, load_bundle, resolve_model
from ursa_core.bundle.folder import model_identity
from ursa_core.bundle.options import SamplingOptions, checked, option_types
from ursa_core.devices import pick_device, pick_dtype
from ursa_core.errors import UrsaError, UsageError
from ursa_core.evaluation.reports.intervals import mcnemar, mean, paired_share, wilson
from ursa_core.evaluation.suites.shapes import judge_file, right, wanted
from ursa_core.media import Frames, read_media, write_media
from ursa_core.sampling.generate import Request, Sampler, decode
from ursa_core.seeding import stream_seed

WAYS = {
    "nano": [
        "steps=25 correct=0 guidance=2",
        "steps=8 correct=0 guidance=2",
        "steps=8 correct=0 guidance=1",
        "steps=4 correct=0 guidance=1",
        "steps=4 correct=1 guidance=1",
        "steps=8 correct=1 guidance=1",
        "steps=8 correct=1 guidance=2",
        "steps=16 correct=0.5 guidance=2",
        "steps=8 correct=0.25 guidance=3 temperature=1",
    ],
    "emoji": [
        "steps=25 correct=0 guidance=2",
        "steps=8 correct=0 guidance=2",
        "steps=8 correct=0.5 guidance=1.5",
        "steps=8 correct=0.5 guidance=1",
        "steps=4 correct=0.5 guidance=1.5",
        "steps=4 correct=0 guidance=1",
    ],
}
PACK = 8
"""Clips in one pass of the network."""
DIVERSITY = (31, 8)
"""Prompts, and seeds of each, whose clips are compared with one another."""

Judge = Callable[[Path], dict[str, bool | float]]
Record = dict[str, Any]


def nano_prompts(split: str, limit: int | None) -> dict[str, Judge]:
    """Prompts of the shapes suite, each with the judge of a written clip."""
    clips = wanted(split)
    order = np.random.default_rng(5).permutation(len(clips))[:limit]
    return {
        each.prompt: lambda path, each=each: right(each, judge_file(path))
        for each in (clips[place] for place in sorted(order))
    }


def emoji_prompts(data: Path, split: str, limit: int | None, bundle: Bundle) -> dict[str, Judge]:
    """Captions of pairs, each with the matcher and the fidelity of a written clip."""
    from emoji_fidelity import fidelity
    from emoji_quality import matcher_of, moves_alike, pairs_of, whole_loop

    from ursa_core.worlds import emoji
    from ursa_core.worlds.sprites import load_sprites

    sprites, shape = load_sprites(data), bundle.settings.shape
    matcher = matcher_of(sprites)

    def judge(pair: tuple[str, str], path: Path) -> dict[str, bool | float]:
        frames = read_media(path).frames
        match, face = matcher.match(frames), fidelity(frames, whole_loop(sprites, shape, pair))
        return {
            "subject": match.subject == pair[0],
            "background": match.background == pair[1],
            "motion": bool(moves_alike(match.motion, matcher.motion_of(*pair))),
            "fidelity": face.mean,
            "worst frame": face.worst,
            "steadiness": face.steadiness,
        }

    return {
        emoji.caption(*pair): lambda path, pair=pair: judge(pair, path)
        for pair in pairs_of(sprites, limit or 149, split)
    }


def clips_of(
    bundle: Bundle, requests: Sequence[Request]
) -> Iterator[tuple[torch.Tensor, float, int]]:
    """Codes (F, H, W) of each request, the seconds of its sampling loop and its passes."""
    for start in range(0, len(requests), PACK):
        pack = requests[start : start + PACK]
        sampler = Sampler(bundle, pack)
        began = time.perf_counter()
        codes = sampler.sample()
        seconds = (time.perf_counter() - began) / len(pack)
        passes = len(sampler.times) - 1 + int(sampler.guidance.active(sampler.times[:-1]).sum())
        yield from ((each, seconds, passes) for each in codes)


def options_of(way: str, bundle: Bundle) -> SamplingOptions:
    """The model's own options with those of a way, ``KEY=VALUE KEY=VALUE``."""
    types = option_types()
    pairs = [part.partition("=") for part in way.split()]
    if any(key == "seed" for key, *_ in pairs):
        raise UsageError(f"{way!r} has a seed", "give --seeds")
    try:
        given = {key: types.get(key, str)(value) for key, _, value in pairs}
    except ValueError as error:
        raise UsageError(f"{way!r} is no way: {error}", "give KEY=VALUE KEY=VALUE") from None
    return replace(bundle.settings.defaults, **checked(given))


def run(args: argparse.Namespace, bundle: Bundle, prompts: dict[str, Judge], way: str) -> None:
    """Sample, write and judge what the records lack of a way; a line for each clip."""
    options, file = options_of(way, bundle), args.out / "records.jsonl"
    done = {(r["prompt"], r["seed"]) for r in records(file) if belongs(r, args, way)}
    todo = [(p, s) for s in args.seeds for p in prompts if (p, s) not in done]
    requests = [Request(prompt, stream_seed(seed, prompt), 0, options) for prompt, seed in todo]
    sampled = zip(todo, clips_of(bundle, requests), strict=True)
    with file.open("a", encoding="utf-8") as lines, tempfile.TemporaryDirectory() as folder:
        for (prompt, seed), (codes, seconds, passes) in sampled:
            path = Path(folder) / "clip.mp4"
            frames: Frames = decode(bundle, codes)
            write_media(path, frames, options.fps)
            record = {
                "model": args.model,
                "made_by": args.made_by,
                "split": args.split,
                "way": way,
                "passes": passes,
                "correct": options.correct,
                "prompt": prompt,
                "seed": seed,
                "seconds": seconds,
                "seen": prompts[prompt](path),
            }
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            lines.flush()


def diversity(bundle: Bundle, prompts: Sequence[str], way: str) -> float:
    """Mean distance between the codes of clips of one prompt and other seeds."""
    options, (num_prompts, num_seeds) = options_of(way, bundle), DIVERSITY
    requests = [
        Request(prompt, 1000 + seed, 0, options)
        for prompt in prompts[:num_prompts]
        for seed in range(num_seeds)
    ]
    codes = torch.stack([codes.flatten() for codes, *_ in clips_of(bundle, requests)])
    vectors = torch.nn.functional.normalize(bundle.video_tokenizer.codebook, dim=-1)[codes]
    groups = vectors.view(-1, num_seeds, *vectors.shape[1:])
    first, second = torch.triu_indices(num_seeds, num_seeds, 1)
    return float((groups[:, first] - groups[:, second]).square().sum(-1).mean())


def records(file: Path) -> list[Record]:
    """Lines of a file of records, none if it isn't there; one that a kill cut is taken away."""
    if not file.exists():
        return []
    whole, _, _ = file.read_text().rpartition("\n")
    file.write_text(f"{whole}\n" if whole else "")
    return [json.loads(line) for line in whole.splitlines()]


def belongs(record: Record, args: argparse.Namespace, way: str) -> bool:
    """Whether a record is of the model as it is now, split and way."""
    return (record["made_by"], record["split"], record["way"]) == (args.made_by, args.split, way)


def report(args: argparse.Namespace, prompts: dict[str, Judge], diverse: dict[str, float]) -> str:
    """Table of the ways: passes, shares with intervals, and the difference to the first way."""
    found: dict[str, dict[tuple[str, int], Record]] = {}
    for way in args.ways:
        own = [r for r in records(args.out / "records.jsonl") if belongs(r, args, way)]
        found[way] = {
            (r["prompt"], r["seed"]): r
            for r in own
            if r["prompt"] in prompts and r["seed"] in args.seeds
        }
    keys = sorted(set.intersection(*(set(clips) for clips in found.values())))
    names = list(found[args.ways[0]][keys[0]]["seen"])
    main = "all four" if "all four" in names else "subject"
    head = ["way", "passes", "s", *names, f"{main}, against the first", "diversity"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    points: list[tuple[int, Any, float]] = []
    for way, clips in found.items():
        values = {name: np.array([clips[key]["seen"][name] for key in keys]) for name in names}
        first = np.array([found[args.ways[0]][key]["seen"][main] for key in keys])
        cells = [interval_text(value) for value in values.values()]
        own = values[main]
        change = paired_share(first, own)
        p = mcnemar(int((first & ~own).sum()), int((own & ~first).sum()))
        bounds = f"{100 * change.low:.1f} to {100 * change.high:.1f}"
        difference = f"{100 * change.value:+.1f} ({bounds}), p {p:.2g}"
        seconds = float(np.mean([clip["seconds"] for clip in clips.values()]))
        passes = next(iter(clips.values()))["passes"]
        spread = f"{diverse[way]:.3f}" if way in diverse else ""
        lines.append(" | ".join([way, str(passes), f"{seconds:.2f}", *cells, difference, spread]))
        points.append((passes, wilson(int(own.sum()), len(own)), clips[keys[0]]["correct"]))
    if args.plot:
        draw(args.plot, points, main)
    return "\n".join(f"| {line} |" for line in lines)


def interval_text(values: NDArray[Any]) -> str:
    """Share in percent, or mean, with its 95 % interval."""
    if values.dtype == bool:
        found = wilson(int(values.sum()), len(values))
        return f"{100 * found.value:.1f} ({100 * found.low:.1f}–{100 * found.high:.1f})"
    found = mean(values)
    return f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"


def draw(path: Path, points: Sequence[tuple[int, Any, float]], name: str) -> None:
    """Shares over passes as a picture: passes, share and corrector of each way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, marker, is_own in (("corrected", "o", True), ("plain chain", "s", False)):
        own = sorted(
            ((passes, share) for passes, share, correct in points if bool(correct) == is_own),
            key=lambda point: point[0],
        )
        at = [passes for passes, _ in own]
        middle = np.array([100 * share.value for _, share in own])
        low, high = (np.array([100 * getattr(s, end) for _, s in own]) for end in ("low", "high"))
        axes.errorbar(at, middle, [middle - low, high - middle], marker=marker, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks([4, 8, 16, 31, 48], ["4", "8", "16", "31", "48"])
    axes.set_xlabel("network passes")
    axes.set_ylabel(f"{name} right, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano", help="or emoji, or a folder")
    parser.add_argument("--data", type=Path, help="prepared emoji, for models of it")
    parser.add_argument("--split", default="train", choices=("train", "heldout"))
    parser.add_argument("--way", dest="ways", action="append", help="options, as KEY=VALUE ...")
    parser.add_argument("--limit", type=int, help="so many prompts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--diversity", action="store_true", help="measure it, too")
    parser.add_argument("--plot", type=Path, help="picture of the shares over the passes")
    parser.add_argument("--out", type=Path, default=Path("out_few_calls"))
    args = parser.parse_args()
    if args.model == "emoji" and args.data is None:
        parser.error("--model emoji needs --data")
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit {args.limit} leaves no prompts; give 1 or more")
    if args.plot and args.plot.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--plot {args.plot} is no picture; give a .png, .svg or .pdf")
    args.seeds = list(dict.fromkeys(args.seeds))
    args.ways = args.ways or WAYS["emoji" if args.data else "nano"]
    return args


def main() -> int:
    """Measure, print, and return the exit code."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        device = pick_device("auto")
        dtype = pick_dtype("auto", device)
        bundle = load_bundle(args.model, device, dtype)
        args.made_by = f"{model_identity(resolve_model(args.model))} {dtype}"
        prompts = (
            emoji_prompts(args.data, args.split, args.limit, bundle)
            if args.data
            else nano_prompts(args.split, args.limit)
        )
        diverse: dict[str, float] = {}
        for way in args.ways:
            run(args, bundle, prompts, way)
            if args.diversity:
                diverse[way] = diversity(bundle, list(prompts), way)
            print(f"done: {way}", file=sys.stderr, flush=True)
    except UrsaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(report(args, prompts, diverse))
    print(f"\n{len(prompts)} prompts, seeds {args.seeds}: {shlex.join(['python', *sys.argv])}")
    print(f"{dtype}, {hardware()}, ursa {ursa_core.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
