"""The paper's comparisons in small: methods by steps, linearity of the path, size, time shift.

Stills of the procedural world, 26 trainings of recipes/compare.yaml, and scores by the pixel judge
on prompts held out of training; plots and tables are made of them:

    .venv/bin/python benchmarks/comparisons.py --out runs/compare

Each training is a run folder of `ursa train`, its scores are lines of OUT/results.jsonl, and the
same command goes on where it was stopped. `--report` only makes the plots and tables anew.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from comparison_arms import BASE, COMPARISONS, Run, all_runs
from comparison_report import ALL, ATTRIBUTES, CEILING, Line, write_report
from nano_quality import hardware
from PIL import Image
from torch import Tensor

import ursa_core
from ursa_core.bundle.bundle import Bundle, load_bundle, load_tokenizer
from ursa_core.devices import pick_device, pick_dtype
from ursa_core.errors import UrsaError
from ursa_core.evaluation.suites.shapes_judge import judge
from ursa_core.grids import LatentGrid
from ursa_core.media import Frames, to_frames, to_video
from ursa_core.path.calibration import TIMES, beta_at, distance_curve, evaluate
from ursa_core.recipe.fields import GeneratorRecipe
from ursa_core.recipe.loading import load_recipe
from ursa_core.sampling.conditioning import SamplingStart
from ursa_core.sampling.denoise import denoise
from ursa_core.sampling.guidance import Guidance
from ursa_core.sampling.time_grid import time_grid
from ursa_core.seeding import stream, stream_seed
from ursa_core.tokenizers.visual import VisualTokenizer
from ursa_core.tokens.shards import read_shards
from ursa_core.worlds import shapes

RECIPE = Path(__file__).parents[1] / "recipes" / "compare.yaml"
SIZE = (48, 40)
NUM_IMAGES = 8000
DATA_SEED = 1
MOTION = "shrinks"
"""A still is the first frame of such a clip, where objects are largest; captions leave it out."""
OFF_CENTRE = 0.08
"""How far objects stand from the middle at most, as shares of width and height."""

PER_PROMPT = 8

Still = tuple[str, str, str]
"""Colour, shape and background."""
Way = tuple[int, float]
"""Sampling steps, and the probability of the corrector."""


# --- data -----------------------------------------------------------------------------------------


def stills(split: str) -> list[Still]:
    """Colours, shapes and backgrounds of a split: one (colour, shape) in five is held out."""
    return [
        (colour, shape, background)
        for colour in shapes.COLOURS
        for shape in shapes.SHAPES
        if shapes.is_held_out(colour, shape, MOTION) == (split == "heldout")
        for background in shapes.BACKGROUNDS
    ]


def prompt_of(still: Still) -> str:
    """``a red star on a navy background``: stills show no motion, so none is named."""
    return "a {} {} on a {} background".format(*still)


def draw(still: Still, rng: np.random.Generator) -> Frames:
    """The still (1, 48, 40, 3): an object of random size and tilt near the middle."""
    colour, shape, background = still
    spec = shapes.sample_spec(rng, colour, shape, MOTION, background)
    x, y = 0.5 + rng.uniform(-OFF_CENTRE, OFF_CENTRE, 2)
    return shapes.render(replace(spec, centre=((x, y), (x, y))), *SIZE, np.zeros(1))


def make_data_(out: Path, num: int) -> None:
    """Write the training images and their tokens, whatever of them isn't there yet."""
    images, choices = out / "images", stills("train")
    table = images / "metadata.jsonl"
    if not table.exists():
        images.mkdir(parents=True, exist_ok=True)
        rows = []
        for index in range(num):
            rng = np.random.default_rng([DATA_SEED, index])
            still = choices[rng.integers(len(choices))]
            name = f"{index:05}.png"
            Image.fromarray(draw(still, rng)[0]).save(images / name)
            rows.append(json.dumps({"file_name": name, "text": prompt_of(still)}) + "\n")
        table.write_text("".join(rows), encoding="utf-8")
    height, width = SIZE
    arguments = ["--frames", "1", "--size", f"{height}x{width}", "--check", "0", "--quiet"]
    arguments += ["--model", str(recipe_of(BASE).tokenizer)]
    ursa("tokenize", str(images), *arguments, "-o", str(out / "tokens"), log=out / "tokenize.log")


def ursa(*arguments: str, log: Path) -> None:
    """Run a command of ursa on one thread; what it tells goes to a file.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "ursa_cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as told:
        done = subprocess.run(command, stdout=told, stderr=told, env=environment, check=False)
    if done.returncode:
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-3:])
        raise RuntimeError(f"ursa {' '.join(arguments)} ended with {done.returncode}:\n{last}")


# --- scores ---------------------------------------------------------------------------------------


def sample(
    bundle: Bundle, prompts: list[str], steps: int, correct: float = 0.0
) -> tuple[Tensor, int]:
    """Codes (B, L) of a batch that is drawn together, and the calls of the network they took."""
    settings, path = bundle.settings, bundle.path
    grid = bundle.grid(settings.shape)
    ids = bundle.text_tokenizer.encode([*prompts, *[""] * len(prompts)]).to(bundle.device)
    generator = stream(0, "comparison", steps)
    calls = 0

    def network(prompt_ids: Tensor, x_t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return bundle.transformer(prompt_ids, x_t, grid)

    prompt_ids, negative_ids = ids.chunk(2)
    x_0 = path.initial((len(prompts), grid.num_codes), generator, bundle.device)
    codes = denoise(
        network,
        lambda hidden: bundle.transformer.head(hidden)[..., : path.num_codes],
        path,
        SamplingStart(x_0, time_grid(steps, settings.shift)),
        replace(settings.defaults, correct=correct, solver="integrated" if correct else None),
        prompt_ids=prompt_ids,
        negative_ids=negative_ids,
        generators=generator,
        guidance=Guidance(settings.guidance, settings.guidance_interval),
    )
    return codes, calls


def decoded(tokenizer: VisualTokenizer, codes: Tensor, grid: LatentGrid) -> list[Frames]:
    """The images (1, H, W, 3) of codes (B, L)."""
    videos = tokenizer.decode(codes.view(-1, grid.frames, grid.rows, grid.columns))
    return [to_frames(video) for video in videos]


def judged(wanted: list[Still], images: list[Frames]) -> Line:
    """How many images show what was asked for, by attribute and in all."""
    verdicts = [judge(image) for image in images]
    seen = [(verdict.colour, verdict.shape, verdict.background) for verdict in verdicts]
    right = np.array(seen) == np.array(wanted)
    counts = dict(zip(ATTRIBUTES, right.sum(0).tolist(), strict=True))
    return {"images": len(wanted), "right": {**counts, ALL: int(right.all(1).sum())}}


@torch.inference_mode()
def score(bundle: Bundle, steps: int, correct: float = 0.0, per_prompt: int = PER_PROMPT) -> Line:
    """Scores of a model on the held-out prompts."""
    wanted = stills("heldout") * per_prompt
    start = time.process_time()
    codes, calls = sample(bundle, [prompt_of(still) for still in wanted], steps, correct)
    seconds = round(time.process_time() - start, 1)
    grid = bundle.grid(bundle.settings.shape)
    found = judged(wanted, decoded(bundle.video_tokenizer, codes, grid))
    way = {"steps": steps, "correct": correct}
    return {**way, "calls": calls, "cpu_seconds": seconds, **found}


@torch.inference_mode()
def ceiling(per_prompt: int = PER_PROMPT) -> Line:
    """Scores of rendered held-out stills behind the tokenizer: no model can be judged better."""
    tokenizer, _, _ = load_tokenizer(recipe_of(BASE).tokenizer)
    wanted = stills("heldout") * per_prompt
    rngs = [
        np.random.default_rng([stream_seed(0, "ceiling"), place]) for place in range(len(wanted))
    ]
    video = torch.cat([to_video(draw(*pair)) for pair in zip(wanted, rngs, strict=True)])
    images = [to_frames(each) for each in tokenizer.decode(tokenizer.encode(video))]
    return {"run": CEILING, **judged(wanted, images)}


# --- runs -----------------------------------------------------------------------------------------


def recipe_of(run: Run, *overrides: str) -> GeneratorRecipe:
    """The recipe of a run."""
    recipe = load_recipe(RECIPE, [*run.overrides, *overrides])
    assert isinstance(recipe, GeneratorRecipe)
    return recipe


def train_and_score(
    run: Run, ways: tuple[Way, ...], out: Path, overrides: tuple[str, ...]
) -> list[Line]:
    """Train a run, or go on with it, and score it in these ways."""
    torch.set_num_threads(1)
    folder = out / run.name
    given = [*run.overrides, f"data.shards={out / 'tokens'}", *overrides]
    log = out / f"{run.name}.log"
    ursa("train", str(RECIPE), *given, "-o", str(folder), log=log)
    device = pick_device("auto")
    bundle = load_bundle(folder, device, pick_dtype("auto", device))
    parameters = sum(each.numel() for each in bundle.transformer.parameters())
    about = {"run": run.name, "parameters": parameters, "loss": last_loss(folder)}
    return [{**about, **score(bundle, *way)} for way in ways]


def last_loss(folder: Path, num_lines: int = 3) -> float:
    """Training loss over the last lines of a run's metrics."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-num_lines:]
    return float(np.mean([json.loads(line)["loss"] for line in lines]))


def linearity(out: Path) -> Iterator[Line]:
    """How linear the path of each (alpha, c) is on the codes of the training images."""
    codebook = load_tokenizer(recipe_of(BASE).tokenizer)[0].codebook
    table = read_shards(out / "tokens")
    codes = table.codes(table.rows(table.grids[0])).flatten()
    curve = distance_curve(codebook, torch.bincount(codes, minlength=len(codebook)))
    for arm in COMPARISONS["linearity"]:
        path = recipe_of(arm.runs[0]).path
        assert path.alpha is not None
        assert path.c is not None
        found = evaluate(curve, path.alpha, path.c)
        distance = curve.at(beta_at(TIMES, path.alpha, path.c)) / curve.mean[0]
        yield {
            "path": arm.label,
            "correlation": found.correlation,
            "deviation": found.deviation,
            "distance": distance.round(4).tolist(),
        }


def read_lines(path: Path) -> list[Line]:
    """The results so far; a line that was cut off counts as none."""
    lines: list[Line] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue
    return lines


def missing(lines: list[Line]) -> dict[Run, tuple[Way, ...]]:
    """Runs that lack scores, with the ways to sample that they lack."""
    there = {(line.get("run"), line.get("steps"), line.get("correct", 0.0)) for line in lines}
    lacking = {
        run: tuple(way for way in product(run.steps, run.corrects) if (run.name, *way) not in there)
        for run in all_runs()
    }
    return {run: ways for run, ways in lacking.items() if ways}


def append(path: Path, lines: list[Line]) -> None:
    """Add result lines to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def make_results(out: Path, workers: int, num_images: int, overrides: tuple[str, ...]) -> None:
    """Train and score whatever is missing in OUT/results.jsonl."""
    results = out / "results.jsonl"
    lines = read_lines(results)
    make_data_(out, num_images)
    if not any("path" in line for line in lines):
        append(results, list(linearity(out)))
    if not any(line.get("run") == CEILING for line in lines):
        append(results, [ceiling()])
    lacking = missing(lines)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        running = {
            pool.submit(train_and_score, run, ways, out, overrides): run
            for run, ways in lacking.items()
        }
        for number, done in enumerate(as_completed(running), 1):
            append(results, done.result())
            print(f"{number} of {len(running)}: {running[done].name}", flush=True)


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of the recipe, for all runs: train.steps=20")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="for all of it")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, a thread each")
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="to train on")
    parser.add_argument("--report", action="store_true", help="plots and tables only")
    return parser.parse_args()


def main() -> int:
    """Train, score, report, and return the exit code."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        if not args.report:
            make_results(args.out, args.workers, args.images, tuple(args.overrides))
        page = write_report(args.out, COMPARISONS, read_lines(args.out / "results.jsonl"))
    except UrsaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"ursa {ursa_core.__version__}, torch {torch.__version__}, {hardware()}")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes; {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
