"""DPG-Bench: 1,065 dense prompts, a 2×2 grid of images each, in one folder.

Prompts are read from a checkout of ELLA, since their sources have licences of their own. The scorer
cuts squares of R pixels out of ``{id}.png``: top left, top right, bottom left, bottom right.
"""

import math
import re
from pathlib import Path

import numpy as np

from ursa_core.errors import DataError, UsageError
from ursa_core.evaluation.suites.suite import PlannedFile, Results, Suite, thinned
from ursa_core.media import Frames

RESULTS = "results.txt"
NUM_PROMPTS = 1065
GRID = 4
QUIRKS = (
    "The official scorer leaves out the first row of its list of questions, and counts only the "
    "last image of each grid in the categories (ELLA#60); the score counts all four."
)


def plan(repo: Path | None, limit: int | None = None) -> Suite:
    """DPG-Bench's grids; `UsageError` without a checkout, `DataError` without prompts in it."""
    hint = "git clone https://github.com/TencentQQGYLab/ELLA, and give it with --scorer-repo"
    if repo is None:
        raise UsageError("the prompts of DPG-Bench are in its checkout, and none is given", hint)
    folder = repo / "dpg_bench" / "prompts"
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise DataError(f"there are no prompts in {folder}", hint)
    files = []
    for path in (paths[place] for place in thinned(len(paths), limit)):
        try:
            prompt = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise DataError(f"{path} can't be read: {error}", hint) from error
        files.append(PlannedFile(f"{path.stem}.png", path.stem, prompt))
    return Suite("dpg", files, NUM_PROMPTS)


def grid(images: list[Frames]) -> Frames:
    """Four square images (1, R, R, 3) as one (1, 2R, 2R, 3), row by row."""
    return np.concatenate([np.concatenate(images[k : k + 2], axis=2) for k in (0, 2)], axis=1)


def read_results(path: Path) -> Results:
    """The scorer's score, its categories of level 1, and the mean of each grid; maybe none."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}", "run --only score again") from error
    lines = re.findall(r"^(.+?\.png)(?:, [\d.e-]+)*, ([\d.e-]+)$", text, re.MULTILINE)
    images = {Path(name).name: float(value) for name, value in lines}
    level_1 = re.search(r"L1 category scores:\n((?:\t.*\n)*)", text)
    rows = re.findall(r"\t(.+?): ([\d.]+)", level_1[1]) if level_1 else []
    scores = {name: float(percent) / 100 for name, percent in rows}
    score = re.search(r"^DPG-Bench score: ([\d.]+)", text, re.MULTILINE)
    if score and math.isfinite(float(score[1])):
        scores["overall"] = float(score[1]) / 100
    return Results(scores, {"overall": images})
