"""`ursa calibrate-path`: find (alpha, c) of the metric path for a codebook."""

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


_OPTIONS: options.Panels = {None: {
    "tokenizer": ("T", ("cosmos (the published video models' codebook), a model (name, folder or "
                  "Hugging Face id), or a .npy or .safetensors file of code vectors.")),
    "tokens": ("SHARDS", "Weigh codes by how often they occur in these token shards.",
               "equal weights"),
    "alpha": ("LO:HI:N", "Values of alpha to try."),
    "c": ("LO:HI:N", "Values of c to try."),
    "shift": ("L", "Time shifts to draw as curves; may be repeated."),
    "preview": ("CLIP", "Draw this clip corrupted at t = 0, 0.1 … 1 (needs a model)."),
    "write_to": ("RECIPE", "Put the best (alpha, c) into this recipe."),
    "linear": (None, "With --write-to: the exactly linear schedule instead."),
}}  # fmt: skip


@options.described(_OPTIONS)
def calibrate_path(
    tokenizer: str,
    out: Annotated[Path, options.output_path("FOLDER", "Folder of the report.")] = Path(
        "calibration"
    ),
    tokens: Path | None = None,
    alpha: str = "0.3:2:24",
    c: str = "0.5:12:24",
    shift: list[float] | None = None,
    preview: Path | None = None,
    write_to: Path | None = None,
    linear: bool = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Find the (alpha, c) whose path falls linearly in time to the data.

    For each pair: the correlation of t with the mean distance of x_t to x_1,
    the times at which that distance has fallen to 99 % and 1 % of its start,
    and its deviation from a straight line. The ranking is by -correlation x
    used share of time - deviation; the best is then refined beyond the grid.
    Writes curves.png, heatmap.png and report.json.

    Examples:
      ursa calibrate-path --tokenizer cosmos -o report
      ursa calibrate-path --tokenizer nano --shift 1 --shift 3 -o report
    """
    output.configure(as_json=as_json, quiet=quiet)
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
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder", "give another -o")
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
