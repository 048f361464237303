"""Train on one's own films: 240 films of a shape that nano has never seen, and what it forgets.

    python benchmarks/own_films.py --out out_own_films
    python benchmarks/own_films.py --out out_own_films --only prior/0 --set train.steps=100

Makes films of crosses (and of hearts, for two new words) with captions, as the procedural world
draws clips, but that what spins makes a quarter turn from upright. Tokenizes them, trains nano with
the recipe that `ursa train --new` writes, by the commands that users type, and judges clips of 96
prompts of the new shape, half of which training had no film of, and of 96 old held-out prompts.
The judge of ``ursa eval shapes``, extended by the shapes, sees written mp4s; it is judged on
rendered clips first, and on those after nano's tokenizer. Each model's verdicts are a file in
--out, and a run goes on where it stopped.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nano_quality import hardware

import ursa_core
from ursa_core.bundle.adapters import is_adapter, read_adapter
from ursa_core.bundle.bundle import load_bundle, load_tokenizer
from ursa_core.encoding.encode import encode_clips
from ursa_core.evaluation.reports.intervals import wilson
from ursa_core.evaluation.suites import shapes_judge
from ursa_core.evaluation.suites.shapes import Wanted, judge_file, rendered, right, wanted
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, write_media
from ursa_core.sampling.generate import Request, Sampler, decode
from ursa_core.seeding import stream_seed
from ursa_core.tokenizers.visual import decode_frames
from ursa_core.worlds import shapes

SHAPE, FPS = PixelShape(17, 64, 64), 8.0
PACK = 8
HEART = 0.6  # half the side of the square in a heart
MIDDLE = 0.3133 * HEART  # of a heart, by its area, from the middle of its square to the lobes
RUNS = {
    "prior": ("one", "one", []),
    "old": ("one", "one,old", []),
    "lora": ("one", "one", ["lora.rank=64", "optimizer.learning_rate=4e-3"]),
    "two": ("two", "two", []),
}
"""Films that are judged, data sets, and further keys of each kind of run."""


def _cross(x: Any, y: Any) -> Any:
    x, y = np.abs(x), np.abs(y)
    across, along = np.minimum(x, y), np.maximum(x, y)
    return np.maximum(across - 0.25, along - 1.35).astype(np.float32)


def _heart(x: Any, y: Any) -> Any:
    """A square on its tip and a circle on each of its upper edges."""
    u, v = (x + y) / np.sqrt(2) - MIDDLE, (y - x) / np.sqrt(2) - MIDDLE
    lobes = np.minimum(np.hypot(u + HEART, v), np.hypot(u, v + HEART))
    return np.minimum(np.maximum(np.abs(u), np.abs(v)), lobes).astype(np.float32) - HEART


def _judged_heart(along: Any, across: Any) -> Any:
    """The half of a heart on one side of its axis, which points to the tip."""
    tip, lobe = along - MIDDLE * np.sqrt(2), HEART / np.sqrt(2)
    square = (np.abs(tip) + np.abs(across)) / np.sqrt(2)
    return np.minimum(square, np.hypot(tip + lobe, across - lobe)) - HEART


def extend_world() -> None:
    """Let the world draw crosses and hearts, and the judge read them."""
    shapes.OUTLINES.update({"cross": _cross, "heart": _heart})
    shapes.REACH.update({"cross": 1.38, "heart": 1.15})
    shapes_judge.OUTLINES.update(
        {
            # Stouter than it is drawn: nano's tokenizer fills its inner corners.
            "cross": lambda along, across: np.maximum(across - 0.3, along - 1.2),
            "heart": _judged_heart,
        }
    )
    shapes_judge.SYMMETRY.update({"cross": 4, "heart": 1})


def prompts_of(shape: str, split: str) -> list[Wanted]:
    """Prompts of a new shape, of whose pairs of colour and motion one in five is held out."""
    return [
        Wanted(split, colour, shape, motion, background)
        for i, colour in enumerate(shapes.COLOURS)
        for j, motion in enumerate(shapes.MOTIONS)
        for background in shapes.BACKGROUNDS
        if ((i + 3 * j) % 5 == 0) == (split == "heldout")
    ]


def judged_prompts(kinds: Iterable[str], count: int) -> list[Wanted]:
    """``count`` prompts of each new shape, half of them held out of training."""
    rng = np.random.default_rng(5)
    return [
        prompts[place]
        for shape in kinds
        for split in ("heldout", "train")
        for prompts in [prompts_of(shape, split)]
        for place in rng.permutation(len(prompts))[: count // 2]
    ]


def filmed(each: Wanted, seed: int) -> Frames:
    """The clip (F, H, W, 3) of a film: as the world draws it, but spins are from upright by 90°."""
    rng = np.random.default_rng(stream_seed(seed, each.prompt))
    spec = shapes.sample_spec(rng, each.colour, each.shape, each.motion, each.background)
    if each.motion == "spins":
        spec = replace(spec, angle=(0.0, np.pi / 2))
    return shapes.render(spec, SHAPE.height, SHAPE.width, np.linspace(0, 1, SHAPE.frames))


def make_films(folder: Path, kinds: Sequence[str], count: int) -> None:
    """Films of new shapes, ``count`` in all, with a caption next to each, if they aren't there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        prompts = prompts_of(kinds[number % len(kinds)], "train")
        each = prompts[rng.integers(len(prompts))]
        file = folder / f"{number:04d}.mp4"
        if not file.exists():
            write_media(file, filmed(each, 100 + number), FPS)
            file.with_suffix(".txt").write_text(each.prompt + "\n")


def ursa(*words: object) -> float:
    """Run a command of ursa; the seconds that it took."""
    line = ["ursa", *map(str, words)]
    print("$", shlex.join(line), flush=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ursa_cli", *line[1:]], check=True, env=os.environ)
    return time.perf_counter() - began


def judge(model: Path | str, clips: Sequence[Wanted], file: Path) -> None:
    """Sample, write and judge a clip of each prompt; a line of ``file`` for each."""
    done = len(file.read_text().splitlines()) if file.exists() else 0
    is_lora = is_adapter(Path(model))
    adapters = [read_adapter(Path(model))] if is_lora else []
    bundle = load_bundle("nano" if is_lora else model, adapters=adapters)
    options = bundle.settings.defaults
    if is_lora:  # as the recipe that `--new` writes has whole models sample
        options = replace(options, steps=16, correct=0.5, guidance=3.0)
    with file.open("a") as lines, tempfile.TemporaryDirectory() as folder:
        for start in range(done, len(clips), PACK):
            pack = clips[start : start + PACK]
            requests = [Request(c.prompt, stream_seed(0, c.prompt), 0, options) for c in pack]
            for each, codes in zip(pack, Sampler(bundle, requests).sample(), strict=True):
                path = Path(folder) / "clip.mp4"
                write_media(path, decode(bundle, codes), FPS)
                verdict = judge_file(path)
                found = {k: bool(v) for k, v in right(each, verdict).items()}
                found["shape and colour"] = found["shape"] and found["colour"]
                record = {"split": each.split, "prompt": each.prompt, "asked": each.shape}
                lines.write(json.dumps({**record, "seen": verdict.shape, **found}) + "\n")
            lines.flush()


def check_judge(clips: Sequence[Wanted]) -> dict[str, list[dict[str, Any]]]:
    """Which clips the judge gets right as they are drawn, and after nano's tokenizer.

    No model that is trained on the tokenizer's codes can do better than the latter.
    """
    tokenizer, *_ = load_tokenizer("nano")
    found: dict[str, list[dict[str, Any]]] = {"rendered": [], "tokenized": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for each in clips:
            drawn = rendered(each, SHAPE, 7)
            (codes,) = encode_clips(tokenizer, [drawn])
            shown = {"rendered": drawn, "tokenized": decode_frames(tokenizer, codes)}
            for name, frames in shown.items():
                write_media(path, frames, FPS)
                seen = right(each, judge_file(path))
                found[name].append({"right": seen["shape"] and seen["colour"]})
    return found


def share(rows: Sequence[dict[str, Any]], key: str) -> str:
    """Share in percent with its 95 % interval."""
    found = wilson(sum(row[key] for row in rows), len(rows))
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def report(out: Path, names: Sequence[str], old: int) -> None:
    """A line for each model that has been judged."""
    print("\n| model | new shape and colour, % | on held-out pairs, % | old prompts, all four, % |")
    print("|---|---|---|---|")
    for name in names:
        file = out / f"{name.replace('/', '-')}.jsonl"
        if not file.exists():
            continue
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        past, new = rows[:old], rows[old:]
        cells = []
        for shape in dict.fromkeys(row["asked"] for row in new):
            own = [row for row in new if row["asked"] == shape]
            cells.append(f"{shape} {share(own, 'shape and colour')}")
        unseen = [row for row in new if row["split"] == "heldout"]
        last = share(unseen, "shape and colour") if unseen else ""
        print(f"| {name} | {', '.join(cells)} | {last} | {share(past, 'all four')} |", flush=True)


def main() -> int:
    """Make, train, judge, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out_own_films"))
    parser.add_argument("--only", nargs="+", help="runs as KIND/SEED, as prior/0")
    parser.add_argument("--prompts", type=int, default=96, help="judged of each shape, and old")
    parser.add_argument("--films", type=int, default=240, help="of each new shape")
    parser.add_argument("--crops", type=int, default=24, help="of each film, added to it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--set", nargs="+", default=[], help="further keys of the recipe")
    args = parser.parse_args()
    out: Path = args.out
    extend_world()
    old = wanted("heldout", args.prompts)
    films = {"one": ["cross"], "two": ["cross", "heart"]}
    clips = {kind: [*old, *judged_prompts(names, args.prompts)] for kind, names in films.items()}
    for name, found in check_judge(judged_prompts(films["two"], args.prompts)).items():
        print(f"the judge on {len(found)} {name} clips of the new shapes: {share(found, 'right')}")
    names = args.only or ["before", *(f"{kind}/{s}" for s in args.seeds for kind in RUNS)]
    for kind, own in films.items():
        if any(RUNS[name.split("/")[0]][0] == kind for name in names if name != "before"):
            make_films(out / f"films_{kind}", own, args.films * len(own))
            cut = ("--model", "nano", "--check", 0, "--crops", args.crops)
            ursa("tokenize", out / f"films_{kind}", "-o", out / kind, *cut)
    if any(name.startswith("old") for name in names):
        ursa(
            *("tokenize", "shapes:train", "--num", 900, "--seed", 11, "--model", "nano"),
            *("--check", 0, "-o", out / "old"),
        )
    for name in names:
        kind, _, seed = name.partition("/")
        file = out / f"{name.replace('/', '-')}.jsonl"
        if name == "before":
            judge("nano", clips["one"], file)
            continue
        shown, data, keys = RUNS[kind]
        recipe = out / f"{data.replace(',', '-')}.yaml"
        if not recipe.exists():
            sets = [word for each in data.split(",") for word in ("--data", out / each)]
            ursa("train", "--new", recipe, *sets, "--init", "nano")
        run = out / f"run_{kind}_{seed}"
        seconds = ursa("train", recipe, "-o", run, f"seed={seed}", *keys, *args.set, "--quiet")
        print(f"{name}: trained in {seconds / 60:.1f} minutes", flush=True)
        judge(run, clips[shown], file)
    report(out, names, len(old))
    print(f"\n{shlex.join(['python', *sys.argv])}\n{hardware()}, ursa {ursa_core.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
