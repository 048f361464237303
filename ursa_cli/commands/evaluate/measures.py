"""`ursa eval reconstruction|path|videos|compare`: measures, and what two reports differ in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ursa_cli.options import evaluation
from ursa_cli.options import shared as options
from ursa_cli.options.evaluation import CLIPS, ClipsOptions, MaxClips, Out
from ursa_cli.terminal import output
from ursa_core import files
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_core.bundle.settings import BundleSettings
    from ursa_core.encoding.items import Clips
    from ursa_core.evaluation.reports.report import Comparison, Difference
    from ursa_core.tokenizers.visual import VisualTokenizer

ReportOption = Annotated[
    Path, options.argument(None, "Folder of an evaluation, or its report.json.")
]
_SEED = 0
_NUM_SHOWN = 5  # changed samples of each score


@options.described(CLIPS, chosen=ClipsOptions)
def reconstruction(chosen: ClipsOptions) -> None:
    """Measure what a tokenizer keeps: PSNR, SSIM, flicker, use of its codes, bits per pixel.

    LPIPS and FVD, too, where their weights are there; the report says where they
    are looked for. The page shows clips above their reconstructions.

    Examples:
      ursa eval reconstruction -o kept
      ursa eval reconstruction films --model nano --size 64x64 -o kept
    """
    _, tokenizer, defaults, settings = _loaded(chosen, "samples")
    from ursa_cli.commands.evaluate.parts import finish
    from ursa_core.evaluation.measures.reconstruction import report
    from ursa_core.evaluation.runs import EvalRun

    settings["fps"] = defaults.fps
    with files.producing(chosen.out):
        with _clips(chosen, tokenizer, defaults) as clips:
            found = report(tokenizer, clips, EvalRun(chosen.out).samples, settings)
        finish(found, chosen.out)


@options.described(CLIPS, chosen=ClipsOptions)
def path(chosen: ClipsOptions) -> None:
    """Measure how linearly the model's path leads from noise to real tokens.

    The distance of the embeddings of x_t to those of x_1 at t = 0, 0.05 … 0.95,
    its correlation with t (-1 is linear), and the plot of the paper's Figure 5.

    Examples:
      ursa eval path -o path
      ursa eval path films --model nano --limit 20 -o path
    """
    folder, tokenizer, defaults, settings = _loaded(chosen, "linearity.png")
    from ursa_cli.commands.evaluate.parts import finish
    from ursa_core.bundle.folder import read_json
    from ursa_core.bundle.path_files import build_path, stored_codebook
    from ursa_core.bundle.settings import PathConfig
    from ursa_core.configs import read_config
    from ursa_core.devices import pick_device
    from ursa_core.evaluation.measures.path_linearity import report

    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    codebook = stored_codebook(folder / "scheduler", tokenizer.codebook)
    of_model = build_path(scheduler, codebook).to(pick_device(chosen.device))
    stated = read_config(PathConfig, scheduler, "scheduler_config.json")
    kind = stated.kind
    if stated.path is None and stated.alpha is not None:
        kind += f", alpha {stated.alpha}, c {stated.c}"
    settings |= {"seed": _SEED, "path": kind}
    with _clips(chosen, tokenizer, defaults) as clips:
        found, plot = report(tokenizer, of_model, codebook, clips, settings)
    with files.producing(chosen.out):
        files.write(chosen.out / "linearity.png", plot)
        finish(found, chosen.out, {"Linearity of the path": plot})


def videos(
    out: Out,
    inputs: Annotated[list[Path], options.argument("INPUT", "Folders or files of videos.")],
    limit: MaxClips = 1_000_000,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Measure any videos, without weights or references: flicker, motion, drift, kept frames.

    Motion is by block matching; kept frames are those that the video's own metadata names.

    Examples:
      ursa eval videos out.mp4 -o metrics
      ursa eval videos clips --limit 100 -o metrics
    """
    output.configure(as_json=as_json, quiet=quiet)
    evaluation.check_report(out, limit, force)
    from ursa_cli.commands.evaluate.parts import finish
    from ursa_core.encoding.sources import find_sources
    from ursa_core.evaluation.measures.videos import report

    sources = find_sources(inputs)[:limit]
    settings = {"inputs": [str(each) for each in inputs], "limit": limit}
    with output.progress(len(sources), "measure") as advance:
        found = report(sources, settings, output.warn, advance)
    finish(found, out)


def _loaded(
    chosen: ClipsOptions, product: str
) -> "tuple[Path, VisualTokenizer, BundleSettings, dict[str, Any]]":
    """The model's folder, tokenizer and own settings, and the settings that a report states."""
    output.configure(as_json=chosen.as_json, quiet=chosen.quiet)
    evaluation.check_report(chosen.out, chosen.limit, chosen.force, product)
    from ursa_core.bundle.bundle import load_tokenizer
    from ursa_core.devices import pick_device

    folder = options.model_folder(chosen.model)
    tokenizer, defaults, identity = load_tokenizer(folder, pick_device(chosen.device))
    named = {"model": chosen.model, "tokenizer": identity, "inputs": chosen.inputs}
    return folder, tokenizer, defaults, {**named, "limit": chosen.limit}


@contextmanager
def _clips(
    chosen: ClipsOptions, tokenizer: "VisualTokenizer", defaults: "BundleSettings"
) -> "Iterator[Clips]":
    """The clips that are asked for, with progress; a shape that doesn't fit is refused."""
    from ursa_core.encoding.cuts import ClipCut
    from ursa_core.encoding.items import Clips, find_items
    from ursa_core.grids import PixelShape

    frames, size = chosen.frames, chosen.size
    in_range = frames is None or 1 <= frames <= 1_000_000
    options.require(in_range, "--frames", frames, "1 to 1000000")
    height, width = options.parse_size(size) if size else (defaults.height, defaults.width)
    shape = PixelShape(frames or defaults.frames, height, width)
    tokenizer.strides.grid(shape)
    items = find_items(chosen.inputs, chosen.limit, _SEED, defaults.fps)
    first = items[: chosen.limit]
    if len(first) < len(items):
        output.note(f"the first {len(first)} of {len(items)} clips")
    stride = tokenizer.strides.temporal
    with output.progress(len(first), "measure") as advance:
        yield Clips(first, ClipCut(defaults.fps, shape), stride, output.warn, advance)


def compare(
    a: ReportOption,
    b: ReportOption,
    plot: Annotated[
        Path | None, options.option("PNG", "Draw the differences, too.", parser=options.new_path)
    ] = None,
    as_json: options.Json = False,
    force: options.Force = False,
) -> None:
    """Show what differs between two reports of one suite: B minus A, with 95 % intervals.

    Over the samples that both have: Newcombe's interval and McNemar's exact
    test where samples are right or wrong, else the paired bootstrap. Names
    samples that changed.

    Examples:
      ursa eval compare shapes-before shapes-after
      ursa eval compare a b --plot differences.png --json
    """
    output.configure(as_json=as_json)
    from ursa_core.evaluation.reports.report import compare as compared
    from ursa_core.evaluation.reports.report import read_report

    if plot is not None:
        from ursa_core.media import check_output

        if plot.suffix.lower() != ".png":
            raise UsageError(f"the plot is a PNG, and {plot} is named otherwise", "give NAME.png")
        check_output(plot, force)
    found = compared(read_report(a), read_report(b))
    if plot is not None:
        from ursa_core.evaluation.reports.plots import differences_plot

        named = [(each.name, each.interval) for each in found.differences if each.interval]
        units = {each.unit for each in found.differences if each.interval}
        files.write(plot, differences_plot(named, units.pop() if len(units) == 1 else ""))
    output.data(asdict(found), lines=_lines(found))


def _lines(found: "Comparison") -> list[str]:
    rows = [_row(each) for each in found.differences]
    header = ("SCORE", "A", "B", "B - A", "95 % INTERVAL", "P", "GAINED", "LOST", "SAMPLES")
    lines = output.table(header, rows)
    for each in found.differences:
        for what, names in (("gained", each.gained), ("lost", each.lost)):
            if names:
                shown = ", ".join(names[:_NUM_SHOWN]) + (", …" if len(names) > _NUM_SHOWN else "")
                lines.append(f"{each.name}, {what}: {shown}")
    for name, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            lines.append(f"{len(only)} samples are in {name} alone and aren't compared")
    settings = [
        f"{key}: {first} and {second}" for key, (first, second) in found.other_settings.items()
    ]
    return [*lines, *(["other settings: " + "; ".join(settings)] if settings else [])]


def _row(each: "Difference") -> tuple[str, ...]:
    from ursa_core.evaluation.reports.report import number

    def text(value: float | None) -> str:
        return "missing" if value is None else number(value, each.unit)

    change = interval = ""
    if each.interval is not None:
        mark = "" if each.interval.low <= 0 <= each.interval.high else " *"
        change = text(each.interval.value) + mark
        interval = f"{text(each.interval.low)} – {text(each.interval.high)}"
    p = "" if each.p is None else f"{each.p:.3g}"
    counts = (str(len(each.gained)), str(len(each.lost)), str(each.num)) if each.num else ("",) * 3
    return (each.name, text(each.a), text(each.b), change, interval, p, *counts)
