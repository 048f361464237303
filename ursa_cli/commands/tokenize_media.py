"""`ursa tokenize`: media to codes, and a clip's codes back to media."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ursa_cli.commands import tokenize_run as run
from ursa_cli.options import shared as options
from ursa_cli.options.sampling import check_source_fps
from ursa_cli.terminal import output
from ursa_core.errors import UsageError
from ursa_core.parts import launched_shard

if TYPE_CHECKING:
    from ursa_core.encoding.cuts import Filters
    from ursa_core.worlds.sprites import Sprites

CLIP_SUFFIX = ".safetensors"
NUM_SHAPES = 1000
_CUTTING = "Cutting clips"
_FILTERS = "Leaving clips out"
_DRAWN = "Drawn clips"


def tokenize_media(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Videos, images, folders of them, a .jsonl or .csv that lists them (- is "
            "stdin), or "
            "shapes:train / shapes:heldout, or emoji:train / emoji:heldout with --data.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=options.new_path,
            metavar="OUT",
            help="FILE.safetensors for one clip, else a folder of shards; with --decode the video.",
            show_default=False,
        ),
    ] = None,
    decode: Annotated[
        Path | None,
        typer.Option(
            metavar="TOKENS",
            help="Turn a clip's FILE.safetensors back into a video instead.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    fps: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Frames sampled a second, 0.1 to 1000.",
            show_default="the model's",
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    source_fps: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Frames a second that the files have, whatever they say; a folder of PNG frames "
            "that says nothing is taken as 25 a second.",
            show_default=False,
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames of a clip; 1 + a multiple of the model's temporal stride.",
            show_default="the model's",
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Pixels that frames are scaled and cropped to; of several, with commas between, "
            "each file gets the one nearest in aspect ratio.",
            show_default="the model's",
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    clips: Annotated[
        Literal["head", "chunk", "slide", "uniform", "full"],
        typer.Option(
            help="Of each file: its first frames, clip after clip, a clip from every --stride-th "
            "frame on, --clips-per-file spread evenly, or all frames as one.",
            rich_help_panel=_CUTTING,
        ),
    ] = "head",
    stride: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Sampled frames between the starts of --clips slide, 1 or more.",
            show_default=False,
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    clips_per_file: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of --clips uniform, 1 or more.",
            show_default=False,
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="Leave out files whose shorter side has fewer pixels.",
            show_default=False,
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    min_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Leave out shorter films.",
            show_default=False,
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Leave out longer films.",
            show_default=False,
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    min_motion: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Leave out clips that move less, 0 to 1: the mean change of a pixel from frame "
            "to frame, as a share of its range.",
            show_default=False,
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    max_motion: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Leave out clips that move more, 0 to 1.",
            show_default=False,
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    num: Annotated[
        int,
        typer.Option(metavar="N", help="Clips, 1 to 10000000.", rich_help_panel=_DRAWN),
    ] = NUM_SHAPES,
    seed: Annotated[
        int,
        typer.Option(metavar="N", help="Seed, 0 to 2^63 - 1.", rich_help_panel=_DRAWN),
    ] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Figures of emoji:train, as recipes/emoji_data.py prepares them.",
            show_default=False,
            rich_help_panel=_DRAWN,
        ),
    ] = None,
    refine: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Steps that better the codes through the decoder: 20 give about 1 dB, in some "
            "twenty times the time.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = 0,
    check: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Clips decoded again for PSNR (dB) and SSIM, from the first on, by each process.",
            show_default="all of files, 16 procedural ones",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = None,
    crf: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Quality of a decoded mp4, 0 (lossless) to 51.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = 18,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Take part I, 1 to N, of the files; all parts go into the same folder.",
            show_default="by torchrun",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = None,
    device: options.Device = "auto",
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Delete the folder's shards and start over; else a stopped run continues.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = False,
    drop_gone: Annotated[
        bool,
        typer.Option(
            "--drop-gone",
            help="Remove the clips of files that are no longer there from the shards.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode videos and images into codes for training, or decode a clip's codes.

    One clip makes a token file, several make a folder of Parquet shards.
    Captions come from the list, a .txt beside each file, or metadata.jsonl or
    metadata.csv in its folder. Files that can't be read or are too short, or
    whose captions are faulty, are reported and skipped; the exit code is then 1.

    Examples:
      ursa tokenize shapes:train --num 64 -o shards

      ursa tokenize clip.mp4 -o clip.safetensors
    """
    output.configure(as_json=as_json, quiet=quiet)
    if out is None:
        raise UsageError("no output is given", "add -o OUT")
    options.require(1 <= num <= 10_000_000, "--num", num, "1 to 10000000")
    options.require(0 <= seed < 2**63, "--seed", seed, "0 to 2^63 - 1")
    options.require(0 <= refine <= 1000, "--refine", refine, "0 to 1000")
    options.require(check is None or check >= 0, "--check", check, "0 or more")
    options.require(0 <= crf <= 51, "--crf", crf, "0 (lossless) to 51")
    options.require(fps is None or 0.1 <= fps <= 1000, "--fps", fps, "0.1 to 1000")
    check_source_fps(source_fps)
    in_range = frames is None or 1 <= frames <= 1_000_000
    options.require(in_range, "--frames", frames, "1 to 1000000")
    sizes = [] if size is None else [options.parse_size(part) for part in size.split(",")]
    if decode is not None:
        if inputs or frames is not None or sizes or refine:
            raise UsageError(
                "--decode takes a token file and no INPUT, --frames, --size or --refine",
                "as in: ursa tokenize --decode clip.safetensors -o back.mp4",
            )
        run.decode_clip(decode, out, model, device, fps, crf, force)
        return
    if not inputs:
        raise UsageError("no input is given", "name videos, images, folders or shapes:train")
    if "-" in inputs and launched_shard(os.environ) is not None:
        raise UsageError("several processes can't share standard input", "give a file")
    filters = _filters(min_size, min_seconds, max_seconds, min_motion, max_motion)
    _check_clips(clips, frames, stride, clips_per_file)
    _check_procedural(inputs, clips, sizes, filters)
    _check_output(out, inputs, force)
    sprites = _sprites(inputs, data)
    if out.suffix == CLIP_SUFFIX:
        if shard is not None or drop_gone or clips not in ("head", "full"):
            raise UsageError(f"{out} holds one clip", "give a folder as OUT")
        encoder = run.load(
            model, device, fps, frames, sizes, clips, 1, 1, filters, refine, source_fps
        )
        run.encode_clip(inputs[0], out, encoder, seed, check, sprites)
        return
    part = run.part_of(shard)
    if fresh and part.count > 1:
        raise UsageError(
            "--fresh would delete what the other processes make",
            f"delete {out / 'shard-*'} and {out / 'report*'} yourself, then start all of them",
        )
    encoder = run.load(
        model, device, fps, frames, sizes, clips, stride or 1, clips_per_file or 1, filters, refine,
        source_fps,
    )  # fmt: skip
    run.encode_shards(inputs, out, encoder, num, seed, check, fresh, drop_gone, sprites, part)


def _filters(
    min_size: int | None,
    min_seconds: float | None,
    max_seconds: float | None,
    min_motion: float | None,
    max_motion: float | None,
) -> "Filters":
    """What is wanted of clips, each bound checked."""
    from ursa_core.encoding.cuts import Filters

    options.require(min_size is None or min_size >= 1, "--min-size", min_size, "1 or more")
    for low, high, name, most in (
        (min_seconds, max_seconds, "seconds", float("inf")),
        (min_motion, max_motion, "motion", 1.0),
    ):
        range_text = "0 or more" if most > 1 else "0 to 1"
        for bound, value in (("min", low), ("max", high)):
            is_possible = value is None or 0 <= value <= most
            options.require(is_possible, f"--{bound}-{name}", value, range_text)
        if low is not None and high is not None and low > high:
            raise UsageError(
                f"nothing has {low:g} to {high:g} of {name}", f"swap the two --m…-{name}"
            )
    return Filters(min_size, min_seconds, max_seconds, min_motion, max_motion)


def _check_clips(
    clips: str, frames: int | None, stride: int | None, clips_per_file: int | None
) -> None:
    """Refuse numbers that the way of cutting doesn't take, or lacks."""
    if clips == "full" and frames is not None:
        raise UsageError("--clips full takes all frames, and no --frames", "leave one of them out")
    for option, value, of in (
        ("--stride", stride, "slide"),
        ("--clips-per-file", clips_per_file, "uniform"),
    ):
        in_range = value is None or 1 <= value <= 1_000_000
        options.require(in_range, option, value, "1 to 1000000")
        if value is None and clips == of:
            raise UsageError(f"--clips {of} needs {option}", f"add {option} N")
        if value is not None and clips != of:
            raise UsageError(f"{option} is for --clips {of}", f"leave it out, or add --clips {of}")


def _check_procedural(
    inputs: Sequence[str], clips: str, sizes: Sequence[tuple[int, int]], filters: "Filters"
) -> None:
    """Refuse to cut, size or measure in several ways what is drawn at one length and size."""
    drawn = next((g for g in inputs if g.startswith(("shapes:", "emoji:"))), None)
    if drawn is None:
        return
    bounds = (filters.min_size, filters.min_seconds, filters.max_seconds)
    if clips != "head" or len(sizes) > 1 or any(bound is not None for bound in bounds):
        raise UsageError(
            f"the clips of {drawn} are drawn at one length and size",
            "leave out --clips, --min-size, --min-seconds, --max-seconds and further sizes",
        )


def _check_output(out: Path, inputs: Sequence[str], force: bool) -> None:
    """Refuse an output that can't be, before any work."""
    from ursa_core.encoding.sources import MEDIA_SUFFIXES
    from ursa_core.media import check_folder_of

    if out.suffix != CLIP_SUFFIX:
        if out.is_file() or out.suffix.lower() in {".parquet", *MEDIA_SUFFIXES}:
            raise UsageError(
                f"{out} is no folder, and shards need one",
                f"give a folder, or a name that ends in {CLIP_SUFFIX} for one clip",
            )
        return
    if len(inputs) != 1:
        raise UsageError(
            f"{out} holds one clip, and {len(inputs)} inputs are given", "give a folder as OUT"
        )
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "choose another name")
    if out.exists() and not force:
        raise UsageError(f"{out} exists already", "add --force to replace it")
    check_folder_of(out)


def _sprites(inputs: Sequence[str], data: Path | None) -> "Sprites | None":
    """The figures of ``--data``, where an input draws them."""
    if data is None:
        return None
    if not any(given.startswith("emoji:") for given in inputs):
        raise UsageError("--data is for the emoji", "add the input emoji:train, or leave it out")
    from ursa_core.worlds.sprites import load_sprites

    return load_sprites(data)
