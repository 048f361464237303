"""`ursa eval reconstruction|path`: a tokenizer and a path, on clips of any kind."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import batch_run
from ursa_cli.commands.evaluate import eval_run
from ursa_cli.options import measures
from ursa_cli.options import shared as options
from ursa_cli.options.evaluation import Course, Out
from ursa_cli.terminal import output
from ursa_core import files
from ursa_core.errors import DataError, UrsaError

if TYPE_CHECKING:
    from ursa_core.bundle.settings import BundleSettings
    from ursa_core.encoding.items import Item
    from ursa_core.grids import PixelShape
    from ursa_core.media import Frames
    from ursa_core.tokenizers.visual import VisualTokenizer

_NUM_SHAPES = 64
_SEED = 0

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Folders or files of videos and images, or shapes:heldout, clips of the procedural "
        "world.",
    ),
]
NumFrames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        metavar="N",
        help="Frames of each clip, 1 + a multiple of the temporal stride; 1 for images.",
        show_default="the model's",
        rich_help_panel=measures.CLIPS_PANEL,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        help="Height and width in pixels to scale and crop to.",
        show_default="the model's",
        rich_help_panel=measures.CLIPS_PANEL,
    ),
]


def _shape(
    settings: "BundleSettings", tokenizer: "VisualTokenizer", frames: int | None, size: str | None
) -> "PixelShape":
    """Of the clips; one that the tokenizer can't take is refused."""
    from ursa_core.grids import PixelShape

    in_range = frames is None or 1 <= frames <= 1_000_000
    options.require(in_range, "--frames", frames, "1 to 1000000")
    height, width = options.parse_size(size) if size else (settings.height, settings.width)
    shape = PixelShape(frames or settings.frames, height, width)
    tokenizer.strides.grid(shape)
    return shape


def _clips(
    inputs: Sequence[str],
    course: Course,
    fps: float,
    shape: "PixelShape",
    tokenizer: "VisualTokenizer",
    left_out: list[str],
) -> "Iterator[tuple[str, Frames]]":
    """Name and frames of each clip that can be read; others are told of and ``left_out``."""
    from ursa_core.encoding.cuts import Cut
    from ursa_core.encoding.items import Dropped, find_items

    items: list[Item] = find_items(inputs, course.limit or 1, _SEED, fps)
    chosen = items[: course.limit]
    if len(chosen) < len(items):
        output.note(f"the first {len(chosen)} of {len(items)} clips")
    with output.progress(len(chosen), "measure") as advance:
        for item in chosen:
            try:
                clip = next(item.clips(Cut(fps, shape), tokenizer.strides.temporal))
            except UrsaError as error:
                left_out.append(item.name)
                output.warn(f"left out: {error.message}")
                continue
            finally:
                advance()
            if not isinstance(clip, Dropped):  # which nothing is without filters
                yield item.name, clip.frames
    if len(left_out) == len(chosen):
        raise DataError("no clip could be used", "the warnings say why")


def reconstruction(
    out: Out,
    inputs: Inputs = ["shapes:heldout"],  # noqa: B006
    model: options.Model = options.DEFAULT_MODEL,
    limit: measures.Num = _NUM_SHAPES,
    frames: NumFrames = None,
    size: Size = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Measure what a tokenizer keeps: PSNR, SSIM, flicker, use of its codes, bits a pixel.

    LPIPS and FVD, too, where their weights are there; the report says where they
    are looked for. The page shows clips above what came back of them.

    Examples:
      ursa eval reconstruction -o kept

      ursa eval reconstruction films --model nano --size 64x64 -o kept
    """
    output.configure(as_json=as_json, quiet=quiet)
    course = measures.course(out, limit, force, "samples")
    with files.producing(course.folder):
        _reconstruction(course, inputs, model, frames, size, device)


def _reconstruction(
    course: Course,
    inputs: Sequence[str],
    model: str,
    frames: int | None,
    size: str | None,
    device: str,
) -> None:
    import numpy as np

    from ursa_core.bundle.bundle import load_tokenizer
    from ursa_core.devices import pick_device
    from ursa_core.evaluation.measures.reconstruction import (
        CodeUse,
        Networks,
        bits_per_pixel,
        reconstruct,
    )
    from ursa_core.evaluation.reports.intervals import mean
    from ursa_core.evaluation.reports.report import Report, Sample, Score
    from ursa_core.media import contact_sheet, write_media

    folder = options.model_folder(model)
    place = pick_device(device)
    tokenizer, settings, identity = load_tokenizer(folder, place)
    num_codes = len(tokenizer.codebook)
    shape = _shape(settings, tokenizer, frames, size)
    networks = Networks(shape, place)
    use, found, samples = CodeUse(num_codes), [], []
    left_out: list[str] = []
    batch_run.make_folder(course.samples)
    clips = _clips(inputs, course, settings.fps, shape, tokenizer, left_out)
    for index, (name, clip) in enumerate(clips):
        each, decoded = reconstruct(tokenizer, clip, use, networks)
        found.append(each)
        file = f"{index:05d}.png"
        sheet = contact_sheet([clip, decoded], columns=1)
        write_media(course.samples / file, sheet[None], 1.0, {"clip": name})
        values = {"psnr": each.psnr, "ssim": each.ssim, "flicker": each.flicker}
        values |= {} if each.lpips is None else {"lpips": each.lpips}
        caption = f"{name}: {each.psnr:.2f} dB, SSIM {each.ssim:.3f}"
        samples.append(Sample(file, caption, values, each.psnr))
    units = {"psnr": "dB", "ssim": "", "flicker": "levels", "lpips": ""}
    scores = [
        Score.of(name, mean(np.array([sample.values[name] for sample in samples], float)), unit,
                 len(samples))
        for name, unit in units.items() if name in samples[0].values
    ]  # fmt: skip
    if networks.fvd is not None:
        scores.append(Score("fvd", networks.fvd, num=len(samples)))
    bits = bits_per_pixel(found, num_codes)
    scores += [
        Score("codes used", use.used, unit="share", num=int(use.counts.sum())),
        Score("perplexity", use.perplexity, unit=f"of {num_codes} codes"),
        Score("bits per pixel", bits, unit="bits"),
        Score("entropy per pixel", bits * use.entropy_bits / np.log2(num_codes), unit="bits"),
    ]
    given = {"model": model, "tokenizer": identity, "inputs": list(inputs), "limit": course.limit}
    report = Report(
        "reconstruction",
        {**given, "fps": settings.fps, **_size_of(found), **networks.digests},
        not left_out,
        scores,
        samples=samples,
        notes=(
            "flicker: change from frame to frame beyond that of the clips themselves.",
            f"Bits per pixel: {np.log2(num_codes):.2f} bits for each code.",
            "Entropy per pixel: what codes take at least, by how often each occurs.",
            *networks.notes,
            *_left_out_note(left_out),
        ),
    )
    eval_run.finish(report, course)


def _left_out_note(left_out: Sequence[str]) -> list[str]:
    if not left_out:
        return []
    shown = ", ".join(left_out[:3]) + (", …" if len(left_out) > 3 else "")
    return [f"{len(left_out)} clips could not be used: {shown}."]


def _size_of(found: Sequence[Any]) -> dict[str, Any]:
    from ursa_core import __version__

    return {
        "pixels_per_clip": found[0].num_pixels,
        "codes_per_clip": found[0].num_codes,
        "ursa": __version__,
    }


def path(
    out: Out,
    inputs: Inputs = ["shapes:heldout"],  # noqa: B006
    model: options.Model = options.DEFAULT_MODEL,
    limit: measures.Num = _NUM_SHAPES,
    frames: NumFrames = None,
    size: Size = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Measure how linearly the model's path leads from noise to real tokens.

    The distance of the embeddings of x_t to those of x_1 at t = 0, 0.05 … 0.95,
    its correlation with t (-1 is linear), and the plot of the paper's Figure 5.

    Examples:
      ursa eval path -o path

      ursa eval path films --model nano --limit 20 -o path
    """
    output.configure(as_json=as_json, quiet=quiet)
    course = measures.course(out, limit, force, "linearity.png")
    import numpy as np
    import torch

    from ursa_core.bundle.bundle import load_tokenizer
    from ursa_core.bundle.folder import read_json
    from ursa_core.bundle.path_files import build_path, stored_codebook
    from ursa_core.devices import pick_device
    from ursa_core.encoding.encode import encode_clips
    from ursa_core.evaluation.measures.path_linearity import distances, draw, linearity
    from ursa_core.evaluation.reports.report import Report, Sample, Score, Table

    folder = options.model_folder(model)
    place = pick_device(device)
    tokenizer, settings, identity = load_tokenizer(folder, place)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    codebook = stored_codebook(folder / "scheduler", tokenizer.codebook)
    of_model = build_path(scheduler, codebook).to(place)
    names, rows = [], []
    left_out: list[str] = []
    shape = _shape(settings, tokenizer, frames, size)
    clips = _clips(inputs, course, settings.fps, shape, tokenizer, left_out)
    for index, (name, clip) in enumerate(clips):
        codes = encode_clips(tokenizer, [clip]).to(place)
        rows.append(distances(of_model, codebook, codes, _SEED, index))
        names.append(name)
    generator = torch.Generator().manual_seed(_SEED)
    alike = torch.randint(len(codebook), (20_000,), generator=generator).to(place)
    expected = distances(of_model, codebook, alike, _SEED, len(rows))
    found = linearity(rows)
    own = [float(np.corrcoef(found.times, row)[0, 1]) for row in found.clips]
    of_codebook = float(np.corrcoef(found.times, expected)[0, 1])
    samples = [
        Sample(name, name, {"correlation": value}) for name, value in zip(names, own, strict=True)
    ]
    scores = [
        Score("correlation", found.correlation, num=len(rows)),
        Score("correlation, all codes alike", of_codebook),
        Score("deviation from the line", found.deviation, unit="of its start"),
    ]
    table = Table(
        "Distance of x_t to x_1",
        ("T", "REAL TOKENS", "ALL CODES ALIKE"),
        [
            (round(float(t), 2), round(float(a), 4), round(float(b), 4))
            for t, a, b in zip(found.times, found.mean, expected, strict=True)
        ],
    )
    from ursa_core import __version__

    given = {"model": model, "tokenizer": identity, "inputs": list(inputs), "limit": limit}
    report = Report(
        "path",
        {**given, "seed": _SEED, "path": scheduler.get("path") or _kind(scheduler),
         "ursa": __version__},
        not left_out,
        scores,
        [table],
        samples,
        ("A correlation of -1 is linear; the paper's paths have -0.995, -0.921, -0.997, -0.949.",
         *_left_out_note(left_out)),
    )  # fmt: skip
    plot = draw(found, expected)
    with files.producing(course.folder):
        files.write(course.folder / "linearity.png", plot)
        eval_run.finish(report, course, {"Linearity of the path": plot})


def _kind(scheduler: dict[str, Any]) -> str:
    if scheduler.get("alpha") is None:
        return "mixture"
    return f"metric, alpha {scheduler['alpha']}, c {scheduler.get('c')}"
