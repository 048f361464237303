"""`ursa tokenize`: media to codes, and a clip's codes back to media."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from ursa_cli.batch_run import note_stop
from ursa_cli.options import shared as options
from ursa_cli.options.batches import RAY, RayGiven, own_shard
from ursa_cli.options.sampling import MODELS
from ursa_cli.terminal import output
from ursa_core.batches.ray_pool import RayOptions
from ursa_core.encoding.options import TokenizeOptions
from ursa_core.errors import CheckpointError, DataError, UsageError
from ursa_core.files import check_folder_of
from ursa_core.parts import Part, launched_part

if TYPE_CHECKING:
    from ursa_core.encoding.caption_fit import CaptionFit
    from ursa_core.encoding.encode import Encoder
    from ursa_core.encoding.report import ItemResult
    from ursa_core.encoding.run import FolderRun

CLIP_SUFFIX = ".safetensors"
MAX_NAMED = 3


def _sizes(text: str) -> list[tuple[int, int]]:
    return [options.parse_size(part) for part in text.split(",")]


_OPTIONS: options.Panels = {
    None: {
        "decode": ("TOKENS", "Turn a clip's FILE.safetensors back into a video instead."),
    },
    "Cutting clips": {
        "fps": ("R", "Frames sampled per second, 0.1 to 1000.", MODELS),
        "source_fps": ("R", ("Frames per second of the files, whatever they say; a folder of PNG "
                       "frames that says nothing is taken as 25 per second.")),
        "frames": ("N", "Frames per clip; 1 + a multiple of the model's temporal stride.", MODELS),
        "size": ("HxW", ("Pixels that frames are scaled and cropped to; of several, with commas "
                 "between, each file gets the one nearest in aspect ratio."), MODELS, _sizes),
        "clips": (None, ("Clips of each file: its first frames, clip after clip, a clip from every "
                  "--stride-th frame on, --clips-per-file spread evenly, or all frames as one.")),
        "stride": ("N", "Sampled frames between the starts of --clips slide, 1 or more."),
        "clips_per_file": ("N", "Number of --clips uniform, 1 or more."),
        "crops": ("N", ("Random parts of each clip, 82 % of it or more, added to the whole: of "
                  "few films, training learns the whole ones by heart.")),
    },
    "Leaving clips out": {
        "min_size": ("PX", "Leave out files whose shorter side has fewer pixels."),
        "min_seconds": ("S", "Leave out shorter films."),
        "max_seconds": ("S", "Leave out longer films."),
        "min_motion": ("X", ("Leave out clips that move less, 0 to 1: the mean change of a pixel "
                       "from frame to frame, as a share of its range.")),
        "max_motion": ("X", "Leave out clips that move more, 0 to 1."),
    },
    "Drawn clips": {
        "num": ("N", "Clips, 1 to 10000000."),
        "seed": ("N", "Seed, 0 to 2^63 - 1."),
        "data": ("FOLDER", "Figures of emoji:train, as recipes/emoji_data.py prepares them."),
    },
    options.RUN_PANEL: {
        "refine": ("N", ("Steps that improve the codes through the decoder: 20 give about 1 dB, in "
                   "some twenty times the time.")),
        "check": ("N", ("Clips decoded again for PSNR (dB) and SSIM, from the first on, per "
                  "process."), "all of files, 16 procedural ones"),
        "crf": ("N", "Quality of a decoded mp4, 0 (lossless) to 51."),
        "shard": ("I/N", "Take part I, 1 to N, of the files; all parts go into the same folder.",
                  "by torchrun"),
        **RAY,
        "fresh": (None, ("Delete the folder's shards and start over; otherwise a stopped run "
                  "continues.")),
        "drop_gone": (None, "Remove the clips of files that no longer exist from the shards."),
    },
}  # fmt: skip


@options.described(_OPTIONS, wanted=TokenizeOptions, cluster=RayGiven)
def tokenize_media(
    wanted: TokenizeOptions,
    cluster: RayGiven,
    inputs: Annotated[
        list[str] | None,
        options.argument(
            "INPUT",
            "Videos, images, folders of them, a .jsonl or .csv that lists them (- is "
            "stdin), or shapes:train / shapes:heldout, or emoji:train / emoji:heldout with --data.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        options.output_path(
            "OUT",
            "FILE.safetensors for one clip, else a folder of shards; with --decode the video.",
        ),
    ] = None,
    decode: Path | None = None,
    model: options.Model = options.DEFAULT_MODEL,
    crf: int = 18,
    shard: str | None = None,
    device: options.Device = "auto",
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode videos and images into codes for training, or decode a clip's codes.

    One clip makes a token file, several make a folder of Parquet shards.
    Captions come from the list, a .txt next to each file, or metadata.jsonl or
    metadata.csv in its folder. Files that can't be read or are too short, or
    whose captions are faulty, are reported and skipped; the exit code is then 1.

    Examples:
      ursa tokenize shapes:train --num 64 -o shards
      ursa tokenize clip.mp4 -o clip.safetensors
    """
    output.configure(as_json=as_json, quiet=quiet)
    if out is None:
        raise UsageError("no output is given", "add -o OUT")
    wanted.refuse(inputs or ())
    options.require(0 <= crf <= 51, "--crf", crf, "0 (lossless) to 51")
    if decode is not None:
        if inputs or wanted.frames is not None or wanted.size or wanted.refine:
            fault = "--decode takes a token file and no INPUT, --frames, --size or --refine"
            raise UsageError(fault, "as in: ursa tokenize --decode clip.safetensors -o back.mp4")
        _decode(decode, out, model, device, wanted.fps, crf, force)
        return
    if not inputs:
        raise UsageError("no input is given", "name videos, images, folders or shapes:train")
    if "-" in inputs and launched_part(os.environ) is not None:
        raise UsageError("several processes can't share standard input", "give a file")
    is_clip = out.suffix == CLIP_SUFFIX
    is_one = wanted.clips in ("head", "full") and not wanted.crops
    if is_clip and (shard is not None or wanted.drop_gone or not is_one):
        raise UsageError(f"{out} holds one clip", "give a folder as OUT")
    _check_output(out, inputs, force)
    part, ray = own_shard(shard), cluster.options()
    if ray is not None and (is_clip or part.count > 1):
        what = "--shard" if part.count > 1 else str(out)
        raise UsageError(f"{what} and --ray can't both be given", "leave one out")
    if wanted.fresh and part.count > 1 and not is_clip and not dry_run:
        hint = f"delete {out / 'shard-*'} and {out / 'report*'} yourself, then start all of them"
        raise UsageError("--fresh would delete what the other processes make", hint)
    from ursa_core.devices import local_device
    from ursa_core.encoding.run import load_encoder, tokenizing

    encoder = load_encoder(options.model_folder(model), wanted, str(local_device(device)))
    if is_clip and not dry_run:
        _encode_clip(inputs[0], out, encoder, wanted)
    elif not dry_run:
        _encode_shards(inputs, out, encoder, wanted, part, ray)
    else:
        with TemporaryDirectory() as empty:  # where all is to be made
            folder = Path(empty) if is_clip or wanted.fresh else out
            with tokenizing(inputs, folder, encoder, replace(wanted, fresh=False), part) as run:
                _show_plan(run, out, folder, wanted.drop_gone)


def _check_output(out: Path, inputs: Sequence[str], force: bool) -> None:
    from ursa_core.encoding.sources import MEDIA_SUFFIXES

    if out.suffix != CLIP_SUFFIX:
        if out.is_file() or out.suffix.lower() in {".parquet", *MEDIA_SUFFIXES}:
            hint = f"give a folder, or a name that ends in {CLIP_SUFFIX} for one clip"
            raise UsageError(f"{out} is no folder, and shards need one", hint)
        return
    if len(inputs) != 1:
        fault = f"{out} holds one clip, and {len(inputs)} inputs are given"
        raise UsageError(fault, "give a folder as OUT")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "choose another name")
    if out.exists() and not force:
        raise UsageError(f"{out} exists already", "add --force to replace it")
    check_folder_of(out)


def _encode_clip(given: str, out: Path, encoder: "Encoder", wanted: TokenizeOptions) -> None:
    from ursa_core.encoding.items import find_clip
    from ursa_core.encoding.report import summary
    from ursa_core.encoding.run import fit_captions, tokenize_clip
    from ursa_core.worlds.sprites import load_sprites

    sprites = load_sprites(wanted.data) if wanted.data is not None else None
    item = find_clip(given, wanted.seed, encoder.cut.fps, sprites)
    _warn_of_captions(fit_captions([item], encoder), encoder.model)
    result = tokenize_clip(item, encoder, out, wanted.check != 0)
    output.warn(*result.notes)
    about = {"files": [out], "report": None, **encoder.to_json()}
    _report([result], out, {**about, **summary([result])})


def _encode_shards(
    inputs: Sequence[str],
    out: Path,
    encoder: "Encoder",
    wanted: TokenizeOptions,
    part: Part,
    ray: RayOptions | None,
) -> None:
    from ursa_core.encoding.on_ray import OnRay
    from ursa_core.encoding.run import tokenizing
    from ursa_core.tokens.shards import shard_paths

    on_ray = None if ray is None else OnRay(ray, output.warn, note_stop)
    with tokenizing(inputs, out, encoder, wanted, part, on_ray) as run:
        _describe(run, out, wanted.drop_gone)
        try:
            with output.progress(len(run.items), "tokenize") as advance:
                for _, results in run:
                    if results[0].status == "skipped":
                        output.warn(f"skipped: {results[0].reason}")
                    advance(1, on_ray.pool.text if on_ray and on_ray.pool else "")
        except KeyboardInterrupt:
            run.close()
            num = run.writer.num_clips
            output.note(f"stopped; {num} clips are in {out}, the same command goes on")
            raise
    output.note(*[on_ray.pool.text] if on_ray and on_ray.pool else [])
    found = run.summary()
    if found["num_uncaptioned"]:
        output.note(f"clips without a caption: {found['num_uncaptioned']}")
    shards = run.writer.shards
    if added := set(shard_paths(out)) - set(shards):
        output.note(f"shards that other processes added meanwhile: {len(added)}")
    files = {"files": shards, "report": run.report.path}
    _report(run.results, out, {**files, **encoder.to_json(), **found})


def _show_plan(run: "FolderRun", out: Path, folder: Path, drop_gone: bool) -> None:
    """Print what would be encoded, next to the clips that ``folder`` holds."""
    from ursa_core.encoding.sources import MediaFile

    _describe(run, folder, drop_gone)
    encoder, num = run.encoder, len(run.items)
    num_kept = sum(item.key in run.found.done for item in run.items)
    cut = {**encoder.cut.to_json(), "clips": encoder.cut.mode}
    lines = [
        f"{num:,} files or drawn clips, {num_kept:,} of them done in {out}",
        f"model {encoder.model}; {', '.join(f'{key} {value}' for key, value in cut.items())}",
    ]
    files = [item for item in run.items if isinstance(item, MediaFile)]
    faults = [
        file.fault.message if file.fault else f"{file.path} doesn't exist"
        for file in files
        if file.fault or not file.path.exists()
    ]
    output.warn(*(f"will be skipped: {fault}" for fault in faults[:MAX_NAMED]))
    output.note(*[f"{len(faults):,} files will be skipped"] * (len(faults) > MAX_NAMED))
    counts = {"output": out, "num_items": num, "num_kept": num_kept, "num_faulty": len(faults)}
    output.data({**counts, **encoder.to_json(), **cut}, lines=lines)


def _describe(run: "FolderRun", out: Path, drop_gone: bool) -> None:
    found = run.found.to_json(out)
    kept = "dropped" if drop_gone else f"stay in {out} without --drop-gone"
    for what, paths in (
        ("given twice, taken once", run.repeats),
        ("left out, as no media of a known suffix or unreadable", run.left_out),
        ("changed, made again", found["changed"]),
        (f"gone, their clips {kept}", found["gone"]),
    ):
        if paths:  # whatever bytes their names hold
            shown = [os.fsencode(path).decode(errors="backslashreplace") for path in sorted(paths)]
            more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
            output.note(f"{what}: {', '.join(shown[:MAX_NAMED])}{more}")
    _warn_of_captions(run.fit, run.encoder.model)


def _warn_of_captions(fit: "CaptionFit | CheckpointError | None", model: str) -> None:
    if isinstance(fit, CheckpointError):
        output.note(f"the length of captions isn't checked: {fit.message}")
    elif fit is not None:
        output.warn(*fit.warnings(model))


def _report(results: Sequence["ItemResult"], out: Path, payload: dict[str, Any]) -> None:
    """Print the results of the clips; a DataError at the end says if some were skipped."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in payload["dropped"].items())
    if dropped:
        output.note(f"left out: {dropped}; {payload['report']} names them")
    rows = [(r.source, r.quality.psnr, r.quality.ssim) for r in results if r.quality is not None]
    if len(rows) > 1:
        rows.append((f"mean of {len(rows)}", payload["psnr"], payload["ssim"]))
    cells = [(name, f"{psnr:.2f}", f"{ssim:.4f}") for name, psnr, ssim in rows]
    lines = output.table(("CLIP", "PSNR dB", "SSIM"), cells) if cells else []
    if payload["num_done"] or payload["num_kept"]:
        lines.append(str(out))
    paths = [out] if payload["files"] else []
    output.data({"output": out, **payload}, lines=lines, paths=paths)
    if payload["num_skipped"]:
        hint = "the warnings say why; the same command tries these again"
        raise DataError(f"{payload['num_skipped']} of {len(results)} clips were skipped", hint)
    if results and not payload["files"]:
        hint = "allow more: the report says why"
        raise DataError(f"all {payload['num_dropped']} clips were left out", hint)


def _decode(
    tokens_path: Path, out: Path, model: str, device: str, fps: float | None, crf: int, force: bool
) -> None:
    from ursa_core.bundle.bundle import load_tokenizer
    from ursa_core.bundle.hub import name_of
    from ursa_core.devices import pick_device
    from ursa_core.grids import LatentGrid
    from ursa_core.media import check_output, write_media
    from ursa_core.tokenizers.visual import decode_frames
    from ursa_core.tokens.token_files import load_tokens_of

    check_output(out, force, fps=fps)
    folder = options.model_folder(model)
    tokenizer, _, digest = load_tokenizer(folder, pick_device(device))
    tokens = load_tokens_of(tokens_path, digest)
    shape = tokenizer.strides.pixels(LatentGrid(*tokens.codes.shape))
    rate = fps or tokens.fps
    check_output(out, force, shape, rate)
    metadata = {**tokens.metadata, "fps": rate}
    write_media(out, decode_frames(tokenizer, tokens.codes), rate, metadata, crf)
    about = {"model": name_of(folder, exact=True), "tokenizer": digest, **vars(shape), "fps": rate}
    output.data({"output": str(out), **about}, paths=[out])
