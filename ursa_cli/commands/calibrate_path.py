"""`ursa calibrate-path`: (alpha, c) of the metric path for a codebook, step times for a model."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ursa_cli.options import shared as options
from ursa_cli.terminal import output
from ursa_core.errors import DataError, UsageError
from ursa_core.files import check_folder_of, check_products, producing

if TYPE_CHECKING:
    from ursa_core.path.calibration import Candidate, DistanceCurve

PAPER = (1.0, 5.0)
"""(alpha, c) of the paper's video models."""
_ALPHA, _C = "0.3:2:24", "0.5:12:24"

_OPTIONS: options.Panels = {None: {
    "tokenizer": ("T", ("cosmos (the published video models' codebook), a model (name, folder or "
                  "Hugging Face id), or a .npy or .safetensors file of code vectors.")),
    "model": ("M", "Find step times for this model instead."),
    "steps": ("N", "With --model: number of steps, 1 to 100."),
    "tokens": ("SHARDS", ("Weigh codes by how often they occur in these shards. With --model: "
               "clips held out of its training, to measure on."), "equal weights"),
    "alpha": ("LO:HI:N", "Values of alpha to try."),
    "c": ("LO:HI:N", "Values of c to try."),
    "shift": ("L", "Time shifts to draw as curves; may be repeated."),
    "preview": ("CLIP", "Draw this clip corrupted at t = 0, 0.1 … 1 (needs a model)."),
    "write_to": ("FILE", ("Put the best (alpha, c) into this recipe. With --model: the times into "
                 "its ursa.json.")),
    "linear": (None, "With --write-to: the exactly linear schedule instead."),
}}  # fmt: skip


@options.described(_OPTIONS)
def calibrate_path(
    tokenizer: str | None = None,
    model: str | None = None,
    steps: int | None = None,
    *,
    out: Annotated[Path, options.output_path("FOLDER", "Folder of the report.")] = Path(
        "calibration"
    ),
    tokens: Path | None = None,
    alpha: str = _ALPHA,
    c: str = _C,
    shift: list[float] | None = None,
    preview: Path | None = None,
    write_to: Path | None = None,
    linear: bool = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Find (alpha, c) of a path for a codebook, or step times for a model.

    The (alpha, c) whose path falls linearly in time to the data. For each pair:
    the correlation of t with the mean distance of x_t to x_1, the times at
    which that distance has fallen to 99 % and 1 % of its start, and its
    deviation from a straight line. The ranking is by -correlation x
    used share of time - deviation; the best is then refined beyond the grid.
    Writes curves.png, heatmap.png and report.json.

    With --model: the entropy of its guesses over time, and the times at which
    --steps steps draw least by guesses that are out of date, next to the times
    of its shift. Writes times.png and report.json.

    Examples:
      ursa calibrate-path --tokenizer cosmos -o report
      ursa calibrate-path --tokenizer nano --shift 1 --shift 3 -o report
      ursa calibrate-path --model nano --steps 8 --tokens data/heldout
    """
    output.configure(as_json=as_json, quiet=quiet)
    if bool(tokenizer) == bool(model):
        raise UsageError("one thing is calibrated at a time", "give --tokenizer or --model")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder", "give another -o")
    if not tokenizer:
        if (alpha, c, shift, preview, linear) != (_ALPHA, _C, None, None, False):
            wrong = "--alpha, --c, --shift, --preview and --linear"
            raise UsageError(f"{wrong} are for --tokenizer", "leave them out with --model")
        _step_times(str(model), steps, tokens, out, write_to, force)
        return
    if steps is not None:
        raise UsageError("--steps is for --model", "leave it out with --tokenizer")
    # The ranges of PowerSchedule, whose module imports torch.
    alphas, cs = _values("--alpha", alpha, 0.01, 100), _values("--c", c, 1e-4, 1e4)
    for value in shift or []:
        options.require(0.001 <= value <= 1000, "--shift", value, "0.001 to 1000")
    if linear and not write_to:
        raise UsageError("--linear writes nothing by itself", "give --write-to RECIPE, too")
    if write_to is not None:
        if not write_to.is_file():
            raise UsageError(f"there is no recipe {write_to}", "give a recipe's YAML file")
        check_folder_of(write_to)
    names = ["curves.png", "heatmap.png", *(["preview.png"] if preview else []), "report.json"]
    check_products(out, names, force)
    import numpy as np

    from ursa_core.bundle.folder import write_json
    from ursa_core.calibration import codebooks
    from ursa_core.path.calibration import TIMES, beta_at, distance_curve, evaluate, refine, search
    from ursa_core.path.schedules import LinearSchedule
    from ursa_core.recipe.editing import write_path

    codebook = codebooks.load_codebook(tokenizer)
    if preview and not codebook.model:
        hint = "give a model instead"
        raise UsageError(f"--preview needs pixels, and {tokenizer} is only a codebook", hint)
    if codebook.num_twins:
        output.note(
            f"{codebook.num_twins} of {len(codebook.vectors)} codes share a direction with another"
        )
    counts = codebooks.count_codes(tokens, len(codebook.vectors)) if tokens else None
    curve = distance_curve(codebook.vectors, counts)
    if not curve.mean[0] > 0:
        raise DataError(f"the code vectors of {tokenizer} are all one", "give another codebook")
    grid = search(curve, np.array(alphas), np.array(cs))
    best, paper = refine(curve, grid[0]), evaluate(curve, *PAPER)
    if not all(math.isfinite(each.score) for each in (*grid, best, paper)):
        fault = f"the mean distance of codes of {tokenizer} doesn't fall along some of these paths"
        raise DataError(fault, "give other --alpha and --c")
    schedule = LinearSchedule.of(curve)
    report = {
        "tokenizer": tokenizer, "num_codes": len(codebook.vectors), "num_twins": codebook.num_twins,
        "exact": curve.num_sampled is None, "standard_error": curve.error, "best": asdict(best),
        "paper": asdict(paper), "grid": [asdict(each) for each in grid],
        "mean_distance": curve.at(beta_at(TIMES, best.alpha, best.c)).tolist(),
        "linear": {"times": schedule.times, "log_beta": schedule.log_beta},
        "files": [str(out / name) for name in names],
    }  # fmt: skip
    # Two more of the grid to compare with: at a quarter and half of the ranking.
    rivals = [grid[len(grid) // 4], grid[len(grid) // 2]]
    with producing(out):
        codebooks.draw_curves(out / "curves.png", curve, [best, paper, *rivals], shift or [])
        codebooks.draw_heatmap(out / "heatmap.png", grid, [best, paper])
        if preview and codebook.model:
            codebooks.draw_preview(out / "preview.png", preview, codebook.model, [best, *rivals])
        if write_to:
            path: dict[str, str | float | None] = {"kind": "linear", "alpha": None, "c": None}
            if not linear:
                path = {"kind": "metric", "alpha": best.alpha, "c": best.c}
            write_path(write_to, path)
        write_json(out / "report.json", report)  # last, as it means that all is done
    output.data(report, lines=_table(curve, grid, best, paper), paths=[out])


def _step_times(
    model: str, steps: int | None, tokens: Path | None, out: Path, into: Path | None, force: bool
) -> None:
    if steps is None or tokens is None:
        hint = "give --steps N and --tokens SHARDS, clips held out of the model's training"
        raise UsageError("step times are for a number of steps, measured on clips", hint)
    options.require(1 <= steps <= 100, "--steps", steps, "1 to 100")
    if into is not None and (into.name != "ursa.json" or not into.is_file()):
        hint = "give the ursa.json of a model folder"
        raise UsageError(f"--write-to can't put step times into {into}", hint)
    names = ["times.png", "report.json"]
    check_products(out, names, force)
    from ursa_core.bundle.folder import read_json, write_json
    from ursa_core.bundle.settings import load_settings
    from ursa_core.calibration import step_times
    from ursa_core.clips.plan import place_model

    if into:
        load_settings(into.parent)  # refuses a damaged one before all the work
    bundle = place_model(model).load()
    shift, most = bundle.settings.shift, step_times.MOST_CLIPS
    with output.progress(most, "measuring") as advance:
        entropy = step_times.measure_entropy(bundle, tokens, on_clip=advance)
        advance(most - len(entropy))  # of fewer clips
    found = step_times.propose_times(entropy, steps, shift)
    paths = [str(out / name) for name in names]
    report = {"model": bundle.name, "shift": shift, **asdict(found), "files": paths}
    low, high = (100 * each / max(found.stale_even, 1e-9) for each in found.saved)
    with producing(out):
        step_times.draw_entropy(out / "times.png", found)
        if into:
            write_json(into, {**read_json(into), "times": found.times})
        write_json(out / "report.json", report)
    rows = [
        (name, f"{nats:.4f}", ", ".join(f"{t:.3g}" for t in times))
        for name, nats, times in (
            ("proposed", found.stale, found.times),
            (f"shift {shift:g}", found.stale_even, found.even),
        )
    ]
    saved = f"nats a code that the steps guess in excess, {low:.0f} to {high:.0f} % less"
    clips = f"(95 % interval, {found.num_clips // 2} clips that chose no times)"
    lines = [*output.table(("TIMES", "OUT OF DATE", ""), rows), f"out of date: {saved} {clips}"]
    output.data(report, lines=lines, paths=[out])


def _values(option: str, text: str, least: float, most: float) -> list[float]:
    """Numbers of ``LO:HI:N``, evenly spaced, from ``least`` to ``most``."""
    try:
        first, last, count = text.split(":")
        low, high, num = float(first), float(last), int(count)
    except ValueError:
        low, high, num = 0.0, 0.0, 0
    if not (least <= low <= high <= most and 1 <= num <= 1000):
        raise UsageError(
            f"{option} can't be {text!r}",
            f"give LO:HI:N with {least:g} <= LO <= HI <= {most:g} and N of 1 to 1000, as 0.5:2:24",
        )
    return [low + (high - low) * i / max(num - 1, 1) for i in range(num)]


def _table(
    curve: "DistanceCurve", grid: list["Candidate"], best: "Candidate", paper: "Candidate"
) -> list[str]:
    rank = sum(each.score > paper.score for each in grid) + 1
    rows = []
    for each, note in (
        (best, "refined"),
        *((each, "") for each in grid[:8]),
        (paper, f"the paper's; it would rank {rank} of {len(grid) + 1}"),
    ):
        used = f"{each.used_from:.3f}–{each.used_to:.3f}"
        numbers = f"{each.alpha:.3f}", f"{each.c:.3f}", f"{each.correlation:.4f}", used
        rows.append((*numbers, f"{each.deviation:.4f}", f"{each.score:.4f}", note))
    header = ("ALPHA", "C", "CORRELATION", "USED", "DEVIATION", "SCORE", "")
    lines = output.table(header, rows)
    if curve.num_sampled is not None:
        lines.append(f"sampled over {curve.num_sampled} codes, standard error {curve.error:.1e}")
    return lines
