"""The runs of `ursa tokenize`: one clip into a token file, or many into a folder of shards."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli.batch_run import local_device
from ursa_cli.options import shared as options
from ursa_cli.prompt_warnings import warn_of_captions
from ursa_cli.terminal import output
from ursa_core.errors import CheckpointError, DataError, UsageError
from ursa_core.parts import Shard, launched_shard, parse_shard

if TYPE_CHECKING:
    from ursa_core.encoding.cuts import Cut, Filters, Mode
    from ursa_core.encoding.items import Item
    from ursa_core.encoding.origins import Comparison
    from ursa_core.encoding.report import ItemResult
    from ursa_core.tokenizers.visual import VisualTokenizer
    from ursa_core.worlds.sprites import Sprites

NUM_SHAPES_CHECKED = 16
MAX_NAMED = 3


@dataclass(frozen=True)
class Encoder:
    """A loaded video tokenizer, its identity, how clips are cut and refined, and its folder."""

    model: str
    tokenizer: "VisualTokenizer"
    digest: str
    cut: "Cut"
    refine: int
    folder: Path


def part_of(shard: str | None) -> Shard:
    """The part of the work that this process does: of ``--shard``, or its rank of torchrun."""
    return parse_shard(shard) if shard is not None else launched_shard(os.environ) or Shard()


def load(
    model: str,
    device: str,
    fps: float | None,
    frames: int | None,
    sizes: Sequence[tuple[int, int]],
    mode: "Mode",
    stride: int,
    count: int,
    filters: "Filters",
    refine: int,
    source_fps: float | None,
) -> Encoder:
    """The tokenizer of a model, and the cut that the options ask for.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
        ShapeError: the cut doesn't fit its strides.
        UsageError: codes of images are to be refined.
    """
    from ursa_core.bundle.bundle import load_tokenizer
    from ursa_core.bundle.hub import name_of
    from ursa_core.devices import pick_device
    from ursa_core.encoding.cuts import Cut
    from ursa_core.grids import PixelShape
    from ursa_core.tokenizers.video_fsq import VideoTokenizer

    folder = options.model_folder(model)
    tokenizer, settings, digest = load_tokenizer(folder, pick_device(local_device(device)))
    first, *others = sizes or [(settings.height, settings.width)]
    shape = PixelShape(frames or settings.frames, *first)
    cut = Cut(fps or settings.fps, shape, mode, stride, count, tuple(others), filters, source_fps)
    for height, width in cut.all_sizes:  # refuses what doesn't fit
        tokenizer.strides.grid(PixelShape(shape.frames, height, width))
    if refine and not isinstance(tokenizer, VideoTokenizer):
        raise UsageError(
            f"the model {model} has an image tokenizer, whose codes can't be refined",
            "leave out --refine",
        )
    return Encoder(name_of(folder, exact=True), tokenizer, digest, cut, refine, folder)


def encode_clip(
    given: str,
    out: Path,
    encoder: Encoder,
    seed: int,
    check: int | None,
    sprites: "Sprites | None",
) -> None:
    """Encode one clip into a token file, and report."""
    from ursa_core.encoding.encode import tokenize_clip
    from ursa_core.encoding.items import find_clip

    item = find_clip(given, seed, encoder.cut.fps, sprites)
    _warn_of_captions([item], encoder)
    checked = check is None or check > 0
    result = tokenize_clip(
        item,
        encoder.tokenizer,
        encoder.digest,
        encoder.cut,
        out,
        checked,
        encoder.refine,
        output.warn,
    )
    _report([result], out, [out], encoder)


def encode_shards(
    inputs: Sequence[str],
    out: Path,
    encoder: Encoder,
    num: int,
    seed: int,
    check: int | None,
    fresh: bool,
    drop_gone: bool,
    sprites: "Sprites | None",
    part: Shard,
) -> None:
    """Encode a part of the inputs' clips into shards, and report."""
    from ursa_core.bundle.subjects import save_subjects
    from ursa_core.encoding.encode import Tokenizing, token_identity
    from ursa_core.encoding.items import PROCEDURAL, find_items
    from ursa_core.encoding.report import Report, remove_reports
    from ursa_core.tokens.shards import shard_paths
    from ursa_core.tokens.writer import ShardWriter, remove_shards

    cut = encoder.cut
    repeats: list[Path] = []
    left_out: list[Path] = []
    items = find_items(
        inputs, num, seed, cut.fps, repeats.append, sprites, on_left_out=left_out.append
    )
    own = [item for index, item in enumerate(items) if part.owns(index)]
    if repeats:
        output.note(f"given twice, taken once: {', '.join(map(str, repeats))}")
    if left_out:
        output.note(f"left out, as no media of a known suffix or unreadable: {_named(left_out)}")
    _warn_of_captions(items, encoder)
    if check is None and any(given.startswith(PROCEDURAL) for given in inputs):
        check = NUM_SHAPES_CHECKED
    if fresh:
        remove_shards(out)
        remove_reports(out)
    identity = token_identity(encoder.tokenizer, encoder.digest)
    refined = {"refine": encoder.refine} if encoder.refine else {}
    writer = ShardWriter(out, identity, {**cut.to_json(), **refined}, part=part)
    results: list[ItemResult] = []
    try:
        with Report(out, writer.settings, part) as report:
            work = Tokenizing(encoder.tokenizer, cut, writer, check, encoder.refine)
            found = work.compare(items, report, part, drop_gone)
            files = _tell_of_files(found, out, drop_gone)
            iteration = work.run(own, found)
            with closing(iteration), output.progress(len(own), "tokenize") as advance:
                for name, of_item in iteration:
                    results += of_item
                    report.add(name, of_item)
                    if of_item[0].status == "skipped":
                        output.warn(f"skipped: {of_item[0].reason}")
                    advance(1)
    except KeyboardInterrupt:
        output.note(f"stopped; {writer.num_clips} clips are in {out}, the same command goes on")
        raise
    finally:
        writer.remove_made()
    if sprites is not None and part.number == 1:
        save_subjects(out, sprites.subjects)  # a generator's bundle lists what it can draw
    if work.num_uncaptioned:
        output.note(f"clips without a caption: {work.num_uncaptioned}")
    added = set(shard_paths(out)) - set(writer.shards)
    if added:
        output.note(f"shards that other processes added meanwhile: {len(added)}")
    _report(results, out, writer.shards, encoder, report.path, work.num_uncaptioned, files)


def _tell_of_files(found: "Comparison", out: Path, drop_gone: bool) -> dict[str, Any]:
    """Print and return which files have changed or are gone since their clips were made."""
    from ursa_core.encoding.origins import located

    gone = (
        "gone, their clips dropped"
        if drop_gone
        else f"gone, their clips stay in {out} without --drop-gone"
    )
    files = {
        name: sorted({str(located(out.resolve(), each.origin.path)) for each in made})
        for name, made in (("changed", found.changed), ("gone", found.gone))
    }
    for what, names in (("changed, made again", files["changed"]), (gone, files["gone"])):
        if names:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            output.note(f"{what}: {', '.join(names[:MAX_NAMED])}{more}")
    if found.num_unchecked:
        output.note(
            f"kept without knowing whether their files have changed: the clips of"
            f" {found.num_unchecked} files, made by an earlier version; --fresh makes all again"
        )
    return {**files, "num_unchecked": found.num_unchecked}


def _named(paths: Sequence[Path], most: int = 4) -> str:
    """The first few of many paths, sorted, whatever bytes their names hold."""
    shown = [os.fsencode(path).decode(errors="backslashreplace") for path in sorted(paths)[:most]]
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return f"{', '.join(shown)}{more}"


def _warn_of_captions(items: "Sequence[Item]", encoder: Encoder) -> None:
    """Warn of captions of files that the model's text tokenizer, if it has one, can't take."""
    from ursa_core.bundle.settings import load_settings, motion_prompt
    from ursa_core.encoding.caption_fit import measure_captions
    from ursa_core.encoding.items import FileItem
    from ursa_core.tokenizers.text import TextTokenizer

    captions = [c for item in items if isinstance(item, FileItem) for c in item.source.captions]
    folder = encoder.folder / "tokenizer"
    if not captions or not folder.is_dir():
        return
    settings = load_settings(encoder.folder)
    prefix = motion_prompt(settings.motion, "") if settings.motion_prefix else ""
    try:
        texts = TextTokenizer.load(folder, settings.max_prompt_length)
    except CheckpointError as error:
        output.note(f"the length of captions isn't checked: {error.message}")
        return
    warn_of_captions(measure_captions(texts, captions, prefix.__add__), encoder.model)


def decode_clip(
    tokens_path: Path,
    out: Path,
    model: str,
    device: str,
    fps: float | None,
    crf: int,
    force: bool,
) -> None:
    """Turn a token file back into a video, and report."""
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


def _report(
    results: Sequence["ItemResult"],
    out: Path,
    files: Sequence[Path],
    encoder: Encoder,
    written: Path | None = None,
    num_uncaptioned: int = 0,
    compared: dict[str, Any] | None = None,
) -> None:
    """Print what became of the clips; a DataError at the end says if some were skipped."""
    counts = Counter(result.status for result in results)
    dropped = Counter(result.reason for result in results if result.status == "dropped")
    if dropped:
        told = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        output.note(f"left out: {told}; {written} names them")
    lines, means = _quality(results)
    if counts["done"] or counts["kept"]:
        lines.append(str(out))
    payload: dict[str, Any] = {
        "output": str(out),
        "files": [str(file) for file in files],
        "report": None if written is None else str(written),
        "model": encoder.model,
        "tokenizer": encoder.digest,
        "fps": encoder.cut.fps,
        "grid": _grid(encoder),
        "refine": encoder.refine,
        **{f"num_{name}": counts[name] for name in ("done", "kept", "skipped", "dropped")},
        "num_uncaptioned": num_uncaptioned,
        "dropped": dict(dropped),
        **(compared or {}),
        **means,
        "items": [result.to_json() for result in results if result.quality or result.reason],
    }
    output.data(payload, lines=lines, paths=[out] if files else [])
    if counts["skipped"]:
        raise DataError(
            f"{counts['skipped']} of {len(results)} clips were skipped",
            "the warnings say why; the same command tries these again",
        )
    if results and not files:
        raise DataError(
            f"all {counts['dropped']} clips were left out", "allow more: the report says why"
        )


def _quality(results: Sequence["ItemResult"]) -> tuple[list[str], dict[str, float | None]]:
    """A table of the measured clips, and their means."""
    shown = [(r.source, r.quality.psnr, r.quality.ssim) for r in results if r.quality is not None]
    if not shown:
        return [], {"psnr": None, "ssim": None}
    psnr = sum(row[1] for row in shown) / len(shown)
    ssim = sum(row[2] for row in shown) / len(shown)
    if len(shown) > 1:
        shown.append((f"mean of {len(shown)}", psnr, ssim))
    rows = [(name, f"{of_psnr:.2f}", f"{of_ssim:.4f}") for name, of_psnr, of_ssim in shown]
    means: dict[str, float | None] = {"psnr": psnr, "ssim": ssim}
    return output.table(("CLIP", "PSNR dB", "SSIM"), rows), means


def _grid(encoder: Encoder) -> list[int] | None:
    """Of the clips; None where they differ."""
    if encoder.cut.sizes or encoder.cut.mode == "full":
        return None
    grid = encoder.tokenizer.strides.grid(encoder.cut.shape)
    return [grid.frames, grid.rows, grid.columns]
