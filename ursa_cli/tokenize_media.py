"""`ursa tokenize`: media to codes, and a clip's codes back to media."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import options, output
from ursa_core.errors import DataError, UsageError

if TYPE_CHECKING:
    from ursa_core.data.packs import Sprites
    from ursa_core.data.tokenizing import Cut, ItemResult
    from ursa_core.tokenizers.visual import VisualTokenizer

CLIP_SUFFIX = ".safetensors"
NUM_SHAPES = 1000
NUM_SHAPES_CHECKED = 16
_CUTTING = "Cutting clips"
_DRAWN = "Drawn clips"


def tokenize_media(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Videos, images, folders of them, or shapes:train / shapes:heldout, or "
            "emoji:train / emoji:heldout with --data.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
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
    model: options.Model = "nano",
    fps: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Frames sampled a second, 0.1 to 1000.",
            show_default="the model's",
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames taken from the start; 1 + a multiple of the model's temporal stride.",
            show_default="the model's",
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Pixels that frames are scaled and cropped to.",
            show_default="the model's",
            rich_help_panel=_CUTTING,
        ),
    ] = None,
    num: Annotated[
        int,
        typer.Option(metavar="N", help="Clips, 1 or more.", rich_help_panel=_DRAWN),
    ] = NUM_SHAPES,
    seed: Annotated[
        int,
        typer.Option(metavar="N", help="Seed, 0 or more.", rich_help_panel=_DRAWN),
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
    check: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Clips decoded again for PSNR (dB) and SSIM, from the first on.",
            show_default=f"all files, {NUM_SHAPES_CHECKED} procedural clips",
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
    device: options.Device = "auto",
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Delete the folder's shards and start over; else a stopped run continues.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode videos and images into codes for training, or decode a clip's codes.

    One clip makes a token file, several make a folder of Parquet shards.
    Captions come from a .txt beside each file, or from metadata.jsonl or
    metadata.csv in its folder. Files that can't be read or are too short, or
    whose captions are faulty, are reported and skipped; the exit code is then 1.

    Examples:
      ursa tokenize shapes:train --num 64 -o shards

      ursa tokenize clip.mp4 -o clip.safetensors
    """
    output.configure(as_json=as_json, quiet=quiet)
    if out is None:
        raise UsageError("no output is given", "add -o OUT")
    options.require(num >= 1, "--num", num, "1 or more")
    options.require(seed >= 0, "--seed", seed, "0 or more")
    options.require(check is None or check >= 0, "--check", check, "0 or more")
    options.require(0 <= crf <= 51, "--crf", crf, "0 (lossless) to 51")
    options.require(fps is None or 0.1 <= fps <= 1000, "--fps", fps, "0.1 to 1000")
    options.require(frames is None or frames >= 1, "--frames", frames, "1 or more")
    height_width = None if size is None else options.parse_size(size)
    if decode is not None:
        if inputs or frames is not None or height_width is not None:
            raise UsageError(
                "--decode takes a token file and no INPUT, --frames or --size",
                "as in: ursa tokenize --decode clip.safetensors -o back.mp4",
            )
        _decode(decode, out, model, device, fps, crf, force)
        return
    if not inputs:
        raise UsageError("no input is given", "name videos, images, folders or shapes:train")
    _check_output(out, inputs, force)
    sprites = _sprites(inputs, data)
    encoder = _load(model, device, fps, frames, height_width)
    if out.suffix == CLIP_SUFFIX:
        _encode_clip(inputs[0], out, encoder, seed, check, sprites)
    else:
        _encode_shards(inputs, out, encoder, num, seed, check, fresh, sprites)


@dataclass(frozen=True)
class _Encoder:
    """A loaded video tokenizer, its identity, and how it wants clips cut."""

    model: str
    tokenizer: "VisualTokenizer"
    digest: str
    cut: "Cut"


def _load(
    model: str,
    device: str,
    fps: float | None,
    frames: int | None,
    height_width: tuple[int, int] | None,
) -> _Encoder:
    from ursa_core.bundle import load_tokenizer
    from ursa_core.data.tokenizing import Cut
    from ursa_core.devices import pick_device
    from ursa_core.grids import PixelShape
    from ursa_core.hub import name_of

    folder = options.model_folder(model)
    tokenizer, settings, digest = load_tokenizer(folder, pick_device(device))
    height, width = height_width or (settings.height, settings.width)
    shape = PixelShape(frames or settings.frames, height, width)
    tokenizer.strides.grid(shape)  # refuses what doesn't fit
    return _Encoder(name_of(folder, exact=True), tokenizer, digest, Cut(fps or settings.fps, shape))


def _check_output(out: Path, inputs: Sequence[str], force: bool) -> None:
    """Refuse an output that can't be, before any work."""
    from ursa_core.data.sources import MEDIA_SUFFIXES
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
    from ursa_core.data.packs import load_sprites

    return load_sprites(data)


def _encode_clip(
    given: str,
    out: Path,
    encoder: _Encoder,
    seed: int,
    check: int | None,
    sprites: "Sprites | None",
) -> None:
    from ursa_core.data.tokenizing import find_clip, tokenize_clip

    item = find_clip(given, seed, encoder.cut.fps, sprites)
    result = tokenize_clip(
        item, encoder.tokenizer, encoder.digest, encoder.cut, out, check is None or check > 0
    )
    _report([result], out, [out], encoder)


def _encode_shards(
    inputs: Sequence[str],
    out: Path,
    encoder: _Encoder,
    num: int,
    seed: int,
    check: int | None,
    fresh: bool,
    sprites: "Sprites | None",
) -> None:
    from ursa_core.data import tokenizing as work
    from ursa_core.data.shard_writer import ShardWriter, remove_shards
    from ursa_core.subjects import save_subjects

    cut = encoder.cut
    repeats: list[Path] = []
    items = work.find_items(inputs, num, seed, cut.fps, repeats.append, sprites)
    if repeats:
        output.note(f"given twice, taken once: {', '.join(map(str, repeats))}")
    if check is None and any(given.startswith(work.PROCEDURAL) for given in inputs):
        check = NUM_SHAPES_CHECKED
    if fresh:
        remove_shards(out)
    size = f"{cut.shape.height}x{cut.shape.width}"
    cut_options = {"fps": cut.fps, "frames": cut.shape.frames, "size": size}
    writer = ShardWriter(out, work.token_identity(encoder.tokenizer, encoder.digest), cut_options)
    results: list[ItemResult] = []
    iteration = work.tokenize_items(items, encoder.tokenizer, cut, writer, check)
    try:
        with closing(iteration), output.progress(len(items), "tokenize") as advance:
            for result in iteration:
                results.append(result)
                if result.status == "skipped":
                    output.warn(f"skipped: {result.reason}")
                advance(1)
    except KeyboardInterrupt:
        output.note(f"stopped; {len(writer.done)} clips are in {out}, the same command goes on")
        raise
    if sprites is not None:
        save_subjects(out, sprites.subjects)  # a generator's bundle lists what it can draw
    _report(results, out, writer.shards, encoder)


def _report(
    results: Sequence["ItemResult"], out: Path, files: Sequence[Path], encoder: _Encoder
) -> None:
    """Print what became of the clips; a DataError at the end says if some were skipped."""
    counts = {name: sum(r.status == name for r in results) for name in ("done", "kept", "skipped")}
    checked = [(r.source, r.quality) for r in results if r.quality is not None]
    mean_psnr = mean_ssim = None
    lines = []
    if checked:
        mean_psnr = sum(quality.psnr for _, quality in checked) / len(checked)
        mean_ssim = sum(quality.ssim for _, quality in checked) / len(checked)
        shown = [(name, quality.psnr, quality.ssim) for name, quality in checked]
        if len(shown) > 1:
            shown.append((f"mean of {len(checked)}", mean_psnr, mean_ssim))
        rows = [(name, f"{psnr:.2f}", f"{ssim:.4f}") for name, psnr, ssim in shown]
        lines += output.table(("CLIP", "PSNR dB", "SSIM"), rows)
    if counts["done"] or counts["kept"]:
        lines.append(str(out))
    payload: dict[str, Any] = {
        "output": str(out),
        "files": [str(file) for file in files],
        "model": encoder.model,
        "tokenizer": encoder.digest,
        "fps": encoder.cut.fps,
        "grid": _grid(encoder),
        **{f"num_{name}": count for name, count in counts.items()},
        "psnr": mean_psnr,
        "ssim": mean_ssim,
        "items": [_item(result) for result in results if result.quality or result.reason],
    }
    output.data(payload, lines=lines, paths=[out] if files else [])
    if counts["skipped"]:
        raise DataError(
            f"{counts['skipped']} of {len(results)} clips were skipped",
            "the warnings say why; the same command tries these again",
        )


def _item(result: "ItemResult") -> dict[str, Any]:
    quality = result.quality
    return {
        "source": result.source,
        "status": result.status,
        "reason": result.reason,
        "psnr": quality.psnr if quality else None,
        "ssim": quality.ssim if quality else None,
    }


def _grid(encoder: _Encoder) -> list[int]:
    grid = encoder.tokenizer.strides.grid(encoder.cut.shape)
    return [grid.frames, grid.rows, grid.columns]


def _decode(
    tokens_path: Path,
    out: Path,
    model: str,
    device: str,
    fps: float | None,
    crf: int,
    force: bool,
) -> None:
    from ursa_core.bundle import load_tokenizer
    from ursa_core.data.token_files import load_tokens_of
    from ursa_core.devices import pick_device
    from ursa_core.grids import LatentGrid
    from ursa_core.hub import name_of
    from ursa_core.media import check_output, write_media
    from ursa_core.tokenizers.visual import decode_frames

    check_output(out, force, fps=fps)
    folder = options.model_folder(model)
    tokenizer, _, digest = load_tokenizer(folder, pick_device(device))
    tokens = load_tokens_of(tokens_path, digest)
    shape = tokenizer.strides.pixels(LatentGrid(*tokens.codes.shape))
    rate = fps or tokens.fps
    check_output(out, force, shape, rate)
    metadata = {**tokens.metadata, "fps": rate}
    write_media(out, decode_frames(tokenizer, tokens.codes), rate, metadata, crf)
    payload = {
        "output": str(out),
        "model": name_of(folder, exact=True),
        "tokenizer": digest,
        "frames": shape.frames,
        "height": shape.height,
        "width": shape.width,
        "fps": rate,
    }
    output.data(payload, paths=[out])
