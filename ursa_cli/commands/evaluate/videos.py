"""`ursa eval videos`: figures of any videos, without weights or references."""

from pathlib import Path
from typing import Annotated

import typer

from ursa_cli import batch_run
from ursa_cli.commands.evaluate import eval_run
from ursa_cli.options import measures
from ursa_cli.options import shared as options
from ursa_cli.options.evaluation import Out
from ursa_cli.terminal import output
from ursa_core.errors import DataError, UrsaError

_NOTES = (
    "flicker: mean change of a pixel from frame to frame, 0 to 255.",
    "motion: of the fastest 5 % of blocks, in an eighth of a second, by block matching.",
    "dynamic: VBench's rule of dynamic degree on that motion, which it takes from RAFT.",
    "colour drift: from the first eighth of the frames to the last.",
)


def videos(
    out: Out,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Folders or files of videos.", show_default=False),
    ],
    limit: measures.Num = 1_000_000,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Measure any videos, without weights or references: flicker, motion, drift, kept frames.

    Motion is by block matching; kept frames are those that the video's own metadata tell of.

    Examples:
      ursa eval videos out.mp4 -o figures

      ursa eval videos clips --limit 100 -o figures
    """
    output.configure(as_json=as_json, quiet=quiet)
    course = measures.course(out, limit, force)
    import numpy as np

    from ursa_core import __version__
    from ursa_core.encoding.sources import find_sources
    from ursa_core.evaluation.measures.videos import measure
    from ursa_core.evaluation.reports.intervals import mean, wilson
    from ursa_core.evaluation.reports.report import Report, Sample, Score

    sources = find_sources(inputs)
    samples, left_out = [], 0
    with output.progress(len(sources[:limit]), "measure") as advance:
        for source in sources[:limit]:
            try:
                found = measure(source.path)
            except UrsaError as error:
                left_out += 1
                output.warn(f"left out: {error.message}")
                continue
            finally:
                advance()
            values: dict[str, float | bool] = {
                "flicker": found.flicker,
                "motion": found.motion,
                "dynamic": found.dynamic,
                "colour drift": found.colour_drift,
            }
            if found.kept_psnr is not None:
                values["kept frames"] = found.kept_psnr
            shape = f"{found.frames} frames of {found.height}x{found.width}"
            shown = f"{shape}; motion {found.motion:.2f} %, drift {found.colour_drift:.1f}"
            caption = f"{source.name}: {shown}"
            samples.append(Sample(str(source.path.absolute()), caption, values, -found.flicker))
    if not samples:
        raise DataError("no video could be measured", "the warnings say why")
    units = {"flicker": "levels", "motion": "% of a side", "colour drift": "levels",
             "kept frames": "dB"}  # fmt: skip
    scores = []
    for name, unit in units.items():
        there = np.array([sample.values[name] for sample in samples if name in sample.values])
        if len(there):
            scores.append(Score.of(name, mean(there.astype(float)), unit, len(there)))
    dynamic = sum(bool(sample.values["dynamic"]) for sample in samples)
    scores.insert(2, Score.of("dynamic", wilson(dynamic, len(samples)), "share", len(samples)))
    report = Report(
        "videos",
        {"inputs": [str(each) for each in inputs], "limit": limit, "ursa": __version__},
        not left_out,
        scores,
        samples=samples,
        notes=(*_NOTES, *([f"{left_out} files could not be measured."] if left_out else [])),
    )
    batch_run.make_folder(course.folder)
    eval_run.finish(report, course)
