"""How often a model's clips show what the prompt says, judged from the pixels of written mp4s.

The held-out half of ``ursa eval shapes``, by its own functions: every held-out combination of
colour, shape and motion, over all four backgrounds, with the model's default settings:

    .venv/bin/python benchmarks/nano_quality.py

The judge itself, a control whose weights are shuffled, and the tokenizer alone:

    .venv/bin/python benchmarks/nano_quality.py --check-judge
    .venv/bin/python benchmarks/nano_quality.py --shuffle-weights --limit 64
    .venv/bin/python benchmarks/nano_quality.py --tokenizer

Prints a table, then one JSON object; the clips and their verdicts stay in the folder of --out.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ursa_core
from ursa_core.bundle.bundle import Bundle, load_bundle, load_tokenizer, resolve_model
from ursa_core.bundle.settings import load_settings
from ursa_core.devices import pick_device, pick_dtype
from ursa_core.errors import UrsaError
from ursa_core.evaluation.suites.shapes import (
    Wanted,
    judge_file,
    judge_rendered,
    plan,
    scores,
    wanted,
)
from ursa_core.evaluation.suites.shapes_judge import Verdict
from ursa_core.media import to_frames, to_video, write_media
from ursa_core.media.quality import psnr
from ursa_core.sampling.generate import Request, decode, generate
from ursa_core.seeding import stream
from ursa_core.worlds import shapes

TOKENIZER_CLIPS = 256


def shuffle_weights_(module: torch.nn.Module, seed: int) -> None:
    """Permute the values within each tensor: all statistics stay, all that was learnt goes."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            order = torch.randperm(weight.numel(), generator=stream(seed, f"shuffle/{name}"))
            weight.copy_(weight.flatten()[order.to(weight.device)].view_as(weight))


def sampled(bundle: Bundle, clips: list[Wanted], seed: int, folder: Path) -> Iterator[Verdict]:
    """Verdicts on one clip a prompt, sampled and written as ``ursa eval shapes`` does it."""
    files = {file.name: file for file in plan().files}
    start = time.perf_counter()
    for number, each in enumerate(clips, 1):
        file = files[each.name]
        codes = generate(bundle, Request(file.prompt, file.seed(seed)))
        path = folder / each.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_media(path, decode(bundle, codes), bundle.settings.fps, {"prompt": file.prompt})
        yield judge_file(path)
        if number % 20 == 0 or number == len(clips):
            seconds = (time.perf_counter() - start) / number
            print(f"{number}/{len(clips)} clips, {seconds:.2f} s each", file=sys.stderr, flush=True)


def quality(args: argparse.Namespace) -> dict[str, Any]:
    """Scores of sampled or rendered clips; writes every verdict beside the clips."""
    settings = load_settings(resolve_model(args.model))
    clips = wanted("heldout", args.limit)
    folder: Path = args.out
    folder.mkdir(parents=True, exist_ok=True)
    ran_on: dict[str, str] = {}
    if args.check_judge:
        verdicts = list(judge_rendered(clips, settings.shape, settings.fps, args.seed))
    else:
        device = pick_device("auto")
        dtype = pick_dtype("auto", device)
        ran_on = {"device": str(device), "dtype": str(dtype).removeprefix("torch.")}
        bundle = load_bundle(args.model, device, dtype)
        if args.shuffle_weights:
            shuffle_weights_(bundle.transformer, args.seed)
        verdicts = list(sampled(bundle, clips, args.seed, folder))
    with (folder / "verdicts.jsonl").open("w", encoding="utf-8") as file:
        for each, verdict in zip(clips, verdicts, strict=True):
            file.write(json.dumps({"wanted": asdict(each), "seen": asdict(verdict)}) + "\n")
    found = scores(clips, verdicts)
    print(f"{'':12}{'right':>8}  {'95 % interval':20}{'chance':>8}")
    for score in found:
        print(f"{score.name:12}{score.text:>8}  {score.interval_text:20}{score.chance:8.1%}")
    return {
        "clips": len(clips),
        **ran_on,
        **{score.name.replace(" ", "_"): score.value for score in found},
    }


def tokenizer_quality(args: argparse.Namespace) -> dict[str, Any]:
    """PSNR of held-out clips through the tokenizer and back, and the codes that they use."""
    tokenizer, settings, identity = load_tokenizer(args.model)
    shape = settings.shape
    used = torch.zeros(len(tokenizer.codebook), dtype=torch.int64)
    decibels = []
    with torch.inference_mode():
        for index in range(args.limit or TOKENIZER_CLIPS):
            frames, _ = shapes.training_clip(
                args.seed, index, "heldout", shape.frames, shape.height, shape.width
            )
            codes = tokenizer.encode(to_video(frames))
            used += torch.bincount(codes.flatten(), minlength=len(used))
            decibels.append(psnr(frames, to_frames(tokenizer.decode(codes))))
    share = used[used > 0].double() / used.sum()
    result = {
        "clips": len(decibels),
        "tokenizer": identity,
        "psnr_db": float(np.mean(decibels)),
        "psnr_db_lowest": float(np.min(decibels)),
        "num_codes": len(used),
        "codes_used": float((used > 0).double().mean()),
        "code_perplexity": float(torch.exp(-(share * share.log()).sum())),
    }
    print(f"PSNR          {result['psnr_db']:.2f} dB, lowest {result['psnr_db_lowest']:.2f} dB")
    print(f"codes used    {result['codes_used']:.1%} of {result['num_codes']}")
    print(f"perplexity    {result['code_perplexity']:.0f} codes")
    return result


def hardware() -> str:
    """Processor and threads, in a line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads"


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="shipped name or folder of a bundle")
    parser.add_argument("--limit", type=int, help="judge so many clips instead of all")
    parser.add_argument("--seed", type=int, default=0, help="of every clip")
    parser.add_argument("--out", type=Path, default=Path("out_nano_quality"), help="for the clips")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check-judge", action="store_true", help="judge rendered clips instead")
    mode.add_argument("--shuffle-weights", action="store_true", help="control: scores at chance")
    mode.add_argument("--tokenizer", action="store_true", help="PSNR and codebook use instead")
    args = parser.parse_args()
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit {args.limit} leaves no clips; give 1 or more")
    return args


def main() -> int:
    """Measure, print, and return the exit code."""
    args = parse_arguments()
    start = time.perf_counter()
    try:
        result = tokenizer_quality(args) if args.tokenizer else quality(args)
    except UrsaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    provenance = {
        "command": shlex.join(["python", *sys.argv]),
        "model": args.model,
        "seed": args.seed,
        "version": f"ursa {ursa_core.__version__}, torch {torch.__version__}",
        "hardware": hardware(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    for name in ("command", "version", "hardware"):
        print(f"{name:12}  {provenance[name]}")
    print(json.dumps({**provenance, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
