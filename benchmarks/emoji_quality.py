"""How often a model's clips show the emoji and the background of the prompt, and move as they do.

Also how whole their faces are in each frame, and how steady between frames (emoji_fidelity.py).
Held-out (subject, background) pairs are sampled with one seed and the model's default settings, by
the functions behind ``ursa sample``, and matched against all reference loops. DATA is the folder
that recipes/emoji_data.py prepares:

    .venv/bin/python benchmarks/emoji_quality.py --data data/emoji --model runs/emoji

The matcher itself on reference clips, shifted and through a tokenizer, and that tokenizer alone on
held-out emoji, film and shapes:

    .venv/bin/python benchmarks/emoji_quality.py --data data/emoji --model nano --check-matcher
    .venv/bin/python benchmarks/emoji_quality.py --data data/emoji --model nano --tokenizer

Fidelity and steadiness themselves, on reference clips, through a tokenizer and with planted faults:

    .venv/bin/python benchmarks/emoji_quality.py --data data/emoji --model emoji --check-fidelity

Loops, as `ursa interpolate --loop` makes them from a reference's first frame:

    .venv/bin/python benchmarks/emoji_quality.py --data data/emoji --model runs/emoji --loops

Prints a table, then one JSON object; the clips and their matches stay in the folder of --out.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from emoji_fidelity import FAULTS, Fidelity, fidelity
from nano_quality import hardware, shuffle_weights_

import ursa_core
from benchmarks.emoji_matcher import EmojiMatcher, Match
from ursa_core.bundle.bundle import load_bundle, load_tokenizer, resolve_model
from ursa_core.bundle.settings import load_settings
from ursa_core.clips.cond_frames import CondFrames, CondMedia
from ursa_core.devices import pick_device, pick_dtype
from ursa_core.encoding.encode import encode_clips
from ursa_core.errors import UrsaError
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, read_media, write_media
from ursa_core.media.quality import psnr
from ursa_core.sampling.generate import Request, decode, generate
from ursa_core.seeding import stream_seed
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames
from ursa_core.worlds import emoji, shapes
from ursa_core.worlds.sprites import Film, Sprites, load_film, load_sprites

NUM_PAIRS = 200
NUM_TOKENIZER_CLIPS = 64
NUM_LOOPS = 50
NUM_FIDELITY_CLIPS = 24
STEADY = (0.67, 1.5)
"""Changes from frame to frame, in the reference's, between which a clip counts as steady."""
LARGEST_SEAM = 1.25
"""Change from the last frame to the first, in the largest inside, that a clean loop may have."""
MAX_SHIFT = 3
"""Pixels by which the matcher's own check shifts clips."""

Pair = tuple[str, str]


def pairs_of(sprites: Sprites, limit: int, split: str = "heldout") -> list[Pair]:
    """A fixed random part of the (subject, background) pairs that are held out, or in training."""
    pairs = [
        (subject.name, background)
        for subject in sprites.subjects
        for background in emoji.backgrounds_of(subject.name, split)
    ]
    order = np.random.default_rng(0).permutation(len(pairs))[:limit]
    return [pairs[place] for place in sorted(order)]


def reference(sprites: Sprites, shape: PixelShape, pair: Pair, seed: int = 0) -> Frames:
    """A clip of a pair, at a phase that the seed decides."""
    name, background = pair
    rng = np.random.default_rng(stream_seed(seed, f"{name}/{background}"))
    number = [subject.name for subject in sprites.subjects].index(name)
    loop = sprites.loop(number)
    times = emoji.sample_phase(rng, loop) + np.arange(shape.frames)
    return emoji.render(loop, background, shape.height, shape.width, times)


def whole_loop(sprites: Sprites, shape: PixelShape, pair: Pair) -> Frames:
    """Every frame of a pair's loop once."""
    name, background = pair
    number = [subject.name for subject in sprites.subjects].index(name)
    loop = sprites.loop(number)
    return emoji.render(loop, background, shape.height, shape.width, np.arange(len(loop)))


def fidelity_figures(found: list[Fidelity], name: str = "fidelity") -> dict[str, float]:
    """Means over clips, the median of steadiness and the share of steady clips, printed too."""
    steadiness = np.array([each.steadiness for each in found])
    figures = {
        name: float(np.mean([each.mean for each in found])),
        f"{name}_worst_frame": float(np.mean([each.worst for each in found])),
        f"{name}_steadiness": float(np.median(steadiness)),
        f"{name}_steady": float(np.mean((STEADY[0] <= steadiness) & (steadiness <= STEADY[1]))),
    }
    mean, worst, steady, share = figures.values()
    print(
        f"{name:14}{mean:7.3f}, worst frame {worst:.3f}, steadiness {steady:.2f},"
        f" within {STEADY[0]} to {STEADY[1]}: {share:.0%}"
    )
    return figures


def fidelity_check(args: argparse.Namespace, sprites: Sprites) -> dict[str, Any]:
    """Fidelity of reference clips, of their reconstructions, and with planted faults."""
    tokenizer, settings, identity = load_tokenizer(args.model)
    pairs = pairs_of(sprites, args.limit or NUM_FIDELITY_CLIPS)
    found: dict[str, list[Fidelity]] = {}
    for pair in pairs:
        clip = reference(sprites, settings.shape, pair, args.seed)
        loop = whole_loop(sprites, settings.shape, pair)
        kinds = {"reference": clip, "reconstructed": reconstructed(tokenizer, clip)}
        kinds |= {name: plant(clip) for name, plant in FAULTS.items()}
        for name, frames in kinds.items():
            found.setdefault(name, []).append(fidelity(frames, loop))
    figures = [fidelity_figures(each, name) for name, each in found.items()]
    return {"clips": len(pairs), "tokenizer": identity, **{k: f[k] for f in figures for k in f}}


def reconstructed(tokenizer: VisualTokenizer, frames: Frames, refine: int = 0) -> Frames:
    """A clip after encoding and decoding."""
    codes = encode_clips(tokenizer, [np.ascontiguousarray(frames)], refine)
    return decode_frames(tokenizer, codes[0])


def rendered(sprites: Sprites, shape: PixelShape, pair: Pair, seed: int) -> Frames:
    """A reference clip of a pair, moved by a few pixels."""
    clip = reference(sprites, shape, pair, seed)
    rng = np.random.default_rng(stream_seed(seed, f"{'/'.join(pair)} shifted"))
    down, right = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, 2)
    pad = ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT), (0, 0))
    padded = np.pad(clip, pad, mode="edge")
    top, left = MAX_SHIFT + down, MAX_SHIFT + right
    return padded[:, top : top + shape.height, left : left + shape.width]


def moves_alike(motion: float, wanted: float) -> bool:
    """Whether a clip moves half to twice as much as its reference."""
    return wanted / 2 <= motion <= wanted * 2


def matcher_check(args: argparse.Namespace, sprites: Sprites) -> dict[str, Any]:
    """Shares of reference clips that the matcher names rightly, shifted and then reconstructed."""
    tokenizer, settings, identity = load_tokenizer(args.model)
    matcher = matcher_of(sprites)
    names = [subject.name for subject in sprites.subjects]
    pairs = [(name, b) for name in names for b in emoji.BACKGROUNDS]
    order = np.random.default_rng(0).permutation(len(pairs))[: args.limit or len(names) * 2]
    right: dict[str, list[bool]] = {"shifted": [], "reconstructed": [], "background": []}
    wrong = []
    for pair in (pairs[place] for place in order):
        clip = rendered(sprites, settings.shape, pair, args.seed)
        back = reconstructed(tokenizer, clip)
        for kind, frames in (("shifted", clip), ("reconstructed", back)):
            found = matcher.match(frames)
            right[kind].append(found.subject == pair[0])
            if found.subject != pair[0]:
                wrong.append(f"{kind}: {pair[0]} on {pair[1]} seen as {found.subject}")
        right["background"].append(found.background == pair[1])
    shares = {kind: float(np.mean(hits)) for kind, hits in right.items()}
    for kind, share in shares.items():
        print(f"{kind:14}{share:7.1%}")
    return {"clips": len(order), "tokenizer": identity, **shares, "wrong": wrong}


def tokenizer_quality(args: argparse.Namespace, sprites: Sprites) -> dict[str, Any]:
    """PSNR in dB of held-out clips by source, the codes that they use, and fidelity of pairs."""
    tokenizer, settings, identity = load_tokenizer(args.model)
    shape = settings.shape
    size = (shape.frames, args.side or shape.height, args.side or shape.width)
    film = load_film(args.data)
    in_film, live = (
        Film(film.frames, tuple(s for s in film.shots if (s.clip in LIVE) == is_live))
        for is_live in (False, True)
    )
    sources: dict[str, Callable[[int], Frames]] = {
        "emoji": lambda k: sprites.training_clip(args.seed, k, "heldout", *size)[0],
        "shapes": lambda k: shapes.training_clip(args.seed, k, "heldout", *size)[0],
        "film": lambda k: in_film.training_clip(args.seed, k, "heldout", *size),
        "live": lambda k: live.training_clip(args.seed, k, "heldout", *size),
    }
    used = torch.zeros(len(tokenizer.codebook), dtype=torch.int64)
    result: dict[str, Any] = {}
    for name, draw in sources.items():
        decibels = []
        for index in range(args.limit or NUM_TOKENIZER_CLIPS):
            frames = np.ascontiguousarray(draw(index))
            codes = encode_clips(tokenizer, [frames], args.refine)
            decibels.append(psnr(frames, decode_frames(tokenizer, codes[0])))
            used += torch.bincount(codes.flatten(), minlength=len(used))
        result[f"psnr_{name}"] = float(np.mean(decibels))
        print(f"{name:14}{np.mean(decibels):7.2f} dB, lowest {np.min(decibels):.2f} dB")
    share = float((used > 0).double().mean())
    print(f"codes used    {share:7.1%} of {len(used)}")
    result |= ceiling(tokenizer, sprites, PixelShape(*size), args)
    return {"tokenizer": identity, **result, "num_codes": len(used), "codes_used": share}


def ceiling(
    tokenizer: VisualTokenizer, sprites: Sprites, shape: PixelShape, args: argparse.Namespace
) -> dict[str, float]:
    """Fidelity of held-out pairs' reference clips after encoding and decoding."""
    found = []
    for pair in pairs_of(sprites, args.limit or NUM_TOKENIZER_CLIPS):
        clip = reference(sprites, shape, pair, args.seed)
        back = reconstructed(tokenizer, clip, args.refine)
        found.append(fidelity(back, whole_loop(sprites, shape, pair)))
    return fidelity_figures(found, "reconstructed")


LIVE = ("bikes",)


def matcher_of(sprites: Sprites) -> EmojiMatcher:
    """The matcher of all subjects."""
    loops = [sprites.loop(number) for number in range(len(sprites.subjects))]
    return EmojiMatcher([subject.name for subject in sprites.subjects], loops)


def quality(args: argparse.Namespace, sprites: Sprites) -> dict[str, Any]:
    """Scores of sampled clips, written as mp4 and read back; every match stays beside them."""
    settings = load_settings(resolve_model(args.model))
    pairs = pairs_of(sprites, args.limit or NUM_PAIRS)
    device = pick_device("auto")
    bundle = load_bundle(args.model, device, pick_dtype("auto", device))
    if args.shuffle_weights:
        shuffle_weights_(bundle.transformer, args.seed)
    folder: Path = args.out
    folder.mkdir(parents=True, exist_ok=True)

    def clips() -> Iterator[Frames]:
        for pair in pairs:
            request = Request(emoji.caption(*pair), args.seed)
            yield decode(bundle, generate(bundle, request))

    matcher = matcher_of(sprites)
    matches: list[Match] = []
    faces: list[Fidelity] = []
    with (folder / "matches.jsonl").open("w", encoding="utf-8") as lines:
        for number, (pair, frames) in enumerate(zip(pairs, clips(), strict=True), 1):
            file = folder / f"{'_'.join(pair).replace(' ', '_')}.mp4"
            write_media(file, frames, settings.fps, {"prompt": emoji.caption(*pair)})
            written = read_media(file).frames
            matches.append(matcher.match(written))
            faces.append(fidelity(written, whole_loop(sprites, settings.shape, pair)))
            line = {"wanted": pair, "seen": asdict(matches[-1]), "face": asdict(faces[-1])}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            if number % 20 == 0:
                print(f"{number}/{len(pairs)} clips", file=sys.stderr, flush=True)
    pairs_seen = list(zip(pairs, matches, strict=True))
    moves = [moves_alike(match.motion, matcher.motion_of(*pair)) for pair, match in pairs_seen]
    shares = {
        "subject": float(np.mean([match.subject == name for (name, _), match in pairs_seen])),
        "background": float(np.mean([match.background == b for (_, b), match in pairs_seen])),
        "motion": float(np.mean(moves)),
    }
    for name, share in shares.items():
        print(f"{name:14}{share:7.1%}")
    shares |= fidelity_figures(faces)
    shares |= ceiling(bundle.video_tokenizer, sprites, settings.shape, args)
    return {"clips": len(pairs), "device": str(device), **shares}


def loops(args: argparse.Namespace, sprites: Sprites) -> dict[str, Any]:
    """How often a loop shows its figure throughout, and goes on over its seam as it goes inside."""
    device = pick_device("auto")
    bundle = load_bundle(args.model, device, pick_dtype("auto", device))
    settings, matcher = bundle.settings, matcher_of(sprites)
    shown = settings.frames - bundle.video_tokenizer.strides.temporal
    pairs = pairs_of(sprites, args.limit or NUM_LOOPS)
    args.out.mkdir(parents=True, exist_ok=True)
    right, moves, seams = [], [], []
    for pair in pairs:
        image = reference(sprites, settings.shape, pair)[:1]
        media = {at: CondMedia("drawn", "", image, None, {}) for at in (0, shown)}
        given = CondFrames(media, "lock", 0.0)
        conditioning = given.conditioning(bundle, bundle.grid(settings.shape))
        request = Request(emoji.caption(*pair), args.seed)
        codes = generate(bundle, request, conditioning=conditioning)
        file = args.out / f"loop_{'_'.join(pair).replace(' ', '_')}.mp4"
        write_media(file, given.shown(decode(bundle, codes))[:shown], settings.fps)
        frames = read_media(file).frames
        steps = np.abs(np.diff(frames.astype(np.float32), axis=0, append=frames[:1]))
        *inside, seam = steps.mean((1, 2, 3)).tolist()
        seams.append(seam / max(*inside, 1e-6))
        match, wanted = matcher.match(frames), matcher.motion_of(*pair)
        right.append(match.subject == pair[0])
        moves.append(moves_alike(match.motion, wanted))
    shares = {
        "subject": float(np.mean(right)),
        "motion": float(np.mean(moves)),
        "clean": float(np.mean(np.array(seams) <= LARGEST_SEAM)),
    }
    for name, share in shares.items():
        print(f"{name:14}{share:7.1%}")
    return {
        "clips": len(pairs),
        "device": str(device),
        **shares,
        "seam_median": float(np.median(seams)),
    }


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared emoji and film")
    parser.add_argument("--model", required=True, help="shipped name or folder of a bundle")
    parser.add_argument("--limit", type=int, help="so many clips (of each source)")
    parser.add_argument("--seed", type=int, default=0, help="of every clip")
    parser.add_argument("--out", type=Path, default=Path("out_emoji_quality"), help="for the clips")
    parser.add_argument("--refine", type=int, default=0, help="steps, as of ursa tokenize")
    parser.add_argument("--side", type=int, help="pixels, in place of the bundle's own size")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--shuffle-weights", action="store_true", help="control: scores at chance")
    for option, measure, text in (
        ("--check-matcher", matcher_check, "match reference clips instead"),
        ("--check-fidelity", fidelity_check, "fidelity of references and planted faults instead"),
        ("--tokenizer", tokenizer_quality, "PSNR, codebook use and fidelity instead"),
        ("--loops", loops, "loops instead"),
    ):
        mode.add_argument(option, action="store_const", const=measure, dest="measure", help=text)
    parser.set_defaults(measure=quality)
    args = parser.parse_args()
    if (args.refine or args.side) and args.measure is not tokenizer_quality:
        parser.error("--refine and --side are for --tokenizer")
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit {args.limit} leaves no clips; give 1 or more")
    return args


def main() -> int:
    """Measure, print, and return the exit code."""
    args = parse_arguments()
    start = time.perf_counter()
    try:
        sprites = load_sprites(args.data)
        result = args.measure(args, sprites)
    except UrsaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    provenance = {
        "command": " ".join(["python", *sys.argv]),
        "subjects": len(sprites.subjects),
        "version": f"ursa {ursa_core.__version__}, torch {torch.__version__}",
        "hardware": hardware(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    for name, value in provenance.items():
        print(f"{name:14}{value}")
    print(json.dumps({**provenance, **result}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
