"""What the tasks of given frames reach with a model, judged from written mp4s.

    .venv/bin/python benchmarks/nano_tasks.py image          # image to video, 100 held-out cases
    .venv/bin/python benchmarks/nano_tasks.py extend         # 60 seconds from 2, 30 cases
    .venv/bin/python benchmarks/nano_tasks.py interpolate    # between two frames, 50 moving cases

Given frames are drawn by the procedural world from held-out prompts. ``--cond``, ``--cond-noise``,
``--chain`` and ``--schedule`` compare the ways to condition. Prints a table, then one JSON object;
the clips and a line a case (cases.jsonl) stay in the folder of --out.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nano_quality import hardware
from numpy.typing import NDArray

import ursa_core
from ursa_core.bundle.bundle import Bundle, load_bundle
from ursa_core.clips.cond_frames import CondFrames, CondMedia
from ursa_core.clips.extend import Extension, default_overlap, extend
from ursa_core.clips.round_store import RoundStore
from ursa_core.errors import UrsaError
from ursa_core.evaluation.suites.shapes import Wanted, rendered, wanted
from ursa_core.evaluation.suites.shapes_judge import judge
from ursa_core.media import Frames, read_media, write_media
from ursa_core.media.quality import psnr
from ursa_core.sampling.generate import Request, decode, generate
from ursa_core.worlds import shapes

CASES = {"image": 100, "extend": 30, "interpolate": 50}
BACK = {
    "moves right": "moves left",
    "moves left": "moves right",
    "moves up": "moves down",
    "moves down": "moves up",
}
SECONDS = 60
LAST_SECONDS = 2
LARGEST_JUMP = 1.5
JITTER_PX = 1.0
"""How far a centre may seem to fall back and still count as going on."""
AWAY_PX = 3.0
"""How far the first and the last centre may be from those of the given images."""

Case = dict[str, Any]


def chosen(motions: tuple[str, ...], limit: int) -> list[Wanted]:
    """Held-out prompts with one of these motions: a fixed random part of them."""
    fitting = [want for want in wanted("heldout") if want.motion in motions]
    order = np.random.default_rng(0).permutation(len(fitting))[:limit]
    return [fitting[i] for i in order]


def conditioned(bundle: Bundle, want: Wanted, places: dict[int, Frames], args: Any) -> Frames:
    """A clip from given images, as ``ursa sample --image`` and ``ursa interpolate`` make it."""
    media = {at: CondMedia("drawn", "", frame, None, {}) for at, frame in places.items()}
    given = CondFrames(media, args.cond, args.cond_noise)
    conditioning = given.conditioning(bundle, bundle.grid(bundle.settings.shape))
    codes = generate(bundle, Request(want.prompt, args.seed), conditioning=conditioning)
    return given.shown(decode(bundle, codes))


def written(frames: Frames, bundle: Bundle, folder: Path, want: Wanted) -> Frames:
    """The frames as they are after writing and reading an mp4."""
    file = folder / f"{want.prompt.replace(' ', '_')}.mp4"
    write_media(file, frames, bundle.settings.fps, {"prompt": want.prompt})
    return read_media(file).frames


def image_cases(bundle: Bundle, args: Any, folder: Path) -> Iterator[Case]:
    """Image to video: the first frame's PSNR, and whether the prompt's motion is seen."""
    for want in chosen(shapes.MOTIONS, args.limit):
        first = rendered(want, bundle.settings.shape, args.seed)[:1]
        made = written(conditioned(bundle, want, {0: first}, args), bundle, folder, want)
        seen = judge(made).motion
        yield {
            "prompt": want.prompt,
            "first_psnr_db": psnr(made[:1], first),
            "motion": seen,
            "right": seen == want.motion,
        }


def extend_cases(bundle: Bundle, args: Any, folder: Path) -> Iterator[Case]:
    """Sixty seconds from one clip; a mover turns round from round to round."""
    settings = bundle.settings
    stride = bundle.video_tokenizer.strides.temporal
    frames, last = round(SECONDS * settings.fps), round(LAST_SECONDS * settings.fps)
    for want in chosen((*BACK, "stays still", "spins"), args.limit):
        clip = rendered(want, bundle.settings.shape, args.seed)
        overlap = default_overlap(settings.frames, stride)
        plan = Extension(
            len(clip), frames, settings.frames, overlap, (), False,
            args.chain or settings.chain, args.schedule, stride, args.cond, args.cond_noise,
        )  # fmt: skip
        turned = BACK.get(want.motion, want.motion)
        turns = [
            shapes.caption(want.colour, want.shape, motion, want.background)
            for motion in (turned, want.motion)
        ]
        plan = replace(plan, prompts=tuple(turns[i % 2] for i in range(plan.num_rounds)))
        store = RoundStore(str(folder / "case"))
        store.open({"tokenizer": "", "fps": settings.fps}, fresh=True)
        rounds, made = extend(bundle, clip, plan, Request("", args.seed), store)
        store.remove()
        shown = written(made, bundle, folder, want)
        seen = judge(shown[-last:])
        parts = ("colour", "shape", "background")
        jumps = [each["join_change"] / max(each["median_change"], 1e-6) for each in rounds]
        yield {
            "prompt": want.prompt,
            "own_frames_same": bool((made[: len(clip)] == clip).all()),
            "own_psnr_db": psnr(shown[: len(clip)], clip),
            "own_from_mp4_psnr_db": again_psnr(shown[: len(clip)], settings.fps, folder),
            **{f"{name}_right": getattr(seen, name) == getattr(want, name) for name in parts},
            "right": all(getattr(seen, name) == getattr(want, name) for name in parts),
            "largest_jump": max(jumps),
            "no_jump": max(jumps) <= LARGEST_JUMP,
            "joins_without_jump": float(np.mean(np.array(jumps) <= LARGEST_JUMP)),
            "largest_within": largest_within(shown, plan),
            "colour_drift": rounds[-1]["colour_drift"],
            "sharpness": rounds[-1]["sharpness"],
        }


def again_psnr(frames: Frames, fps: float, folder: Path) -> float:
    """How near frames that were read from an mp4 come out of another."""
    file = folder / "again.mp4"
    write_media(file, frames, fps)
    written_again = read_media(file).frames
    file.unlink()
    return psnr(written_again, frames)


def largest_within(frames: Frames, plan: Extension) -> float:
    """Largest change between latent frames of one round, where nothing joins, in its medians."""
    steps = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    each, largest = plan.frames_per_round, 0.0
    for start in range(plan.own_frames, len(frames) - each + 1, each):
        own = steps[start : start + each - 1]
        between = own[plan.stride - 1 :: plan.stride]
        largest = max(largest, *(between / np.median(own)).tolist(), 0.0)
    return largest


def interpolate_cases(bundle: Bundle, args: Any, folder: Path) -> Iterator[Case]:
    """Between the first and last frame of a mover: their PSNR, and whether it never turns back."""
    for want in chosen(tuple(BACK), args.limit):
        clip = rendered(want, bundle.settings.shape, args.seed)
        end = len(clip) - 1
        places = {0: clip[:1], end: clip[end:]}
        made = written(conditioned(bundle, want, places, args), bundle, folder, want)
        way = centres(made)
        start, goal = centres(clip[[0, end]])
        length = np.linalg.norm(goal - start)
        along = (way - start) @ (goal - start) / length
        goes_on = bool((np.maximum.accumulate(along) - along <= JITTER_PX).all())
        arrives = bool(np.linalg.norm(way[[0, end]] - [start, goal], axis=1).max() <= AWAY_PX)
        yield {
            "prompt": want.prompt,
            "first_psnr_db": psnr(made[:1], clip[:1]),
            "last_psnr_db": psnr(made[end:], clip[end:]),
            "goes_on": goes_on,
            "arrives": arrives,
            "right": goes_on and arrives,
        }


def centres(frames: Frames) -> NDArray[np.float64]:
    """Centre (x, y) in pixels of what stands out of the background, in each frame: (F, 2)."""
    pixels = frames.astype(np.float64)
    ground = np.median(pixels[:, [0, -1]].reshape(-1, 3), axis=0)
    distance = np.linalg.norm(pixels - ground, axis=-1)
    inside = distance > 0.5 * np.quantile(distance, 0.99, axis=(1, 2), keepdims=True)
    y, x = np.indices(frames.shape[1:3])
    area = inside.sum((1, 2))
    return np.stack([(inside * x).sum((1, 2)) / area, (inside * y).sum((1, 2)) / area], axis=1)


def summary(cases: list[Case]) -> dict[str, float]:
    """Means over the cases of what is a number or a truth, and the worst of dB and jumps."""
    result = {}
    for name, value in cases[0].items():
        if isinstance(value, bool | float):
            values = [float(case[name]) for case in cases]
            result[name] = float(np.mean(values))
            if name.endswith("_db"):
                result[f"{name}_lowest"] = min(values)
            if name.startswith("largest_"):
                result[f"{name}_of_all"] = max(values)
    return result


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=CASES)
    parser.add_argument("--model", default="nano", help="shipped name or folder of a bundle")
    parser.add_argument("--limit", type=int, help="measure so many cases instead of all")
    parser.add_argument("--seed", type=int, default=0, help="of every clip")
    parser.add_argument("--cond", choices=["soft", "lock"], default="lock")
    parser.add_argument("--chain", choices=["tokens", "pixels"], help="default: the model's own")
    parser.add_argument("--schedule", choices=["together", "diagonal"], default="together")
    parser.add_argument("--cond-noise", type=float, default=0.0)
    parser.add_argument("--out", type=Path, default=Path("out_nano_tasks"), help="for the clips")
    args = parser.parse_args()
    args.limit = CASES[args.task] if args.limit is None else args.limit
    if args.limit < 1:
        parser.error(f"--limit {args.limit} leaves no cases; give 1 or more")
    makers = {"image": image_cases, "extend": extend_cases, "interpolate": interpolate_cases}
    folder: Path = args.out / args.task
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    cases: list[Case] = []
    try:
        with (folder / "cases.jsonl").open("w", encoding="utf-8") as file:
            for case in makers[args.task](load_bundle(args.model), args, folder):
                cases.append(case)
                file.write(json.dumps(case) + "\n")
                file.flush()
                print(f"{len(cases)}/{args.limit} {case}", file=sys.stderr, flush=True)
    except UrsaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    result = summary(cases)
    for name, value in result.items():
        print(f"{name:24}{value:10.3f}")
    provenance = {
        "command": shlex.join(["python", *sys.argv]),
        "model": args.model,
        "seed": args.seed,
        "cases": len(cases),
        "version": f"ursa {ursa_core.__version__}",
        "hardware": hardware(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps({**provenance, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
