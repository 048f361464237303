"""VBench, VBench-I2V and VBench-Long: their files, and what the scorer's results say.

Layout and commands are those of the official code (Vchitect/VBench). All files lie in one folder,
``{prompt}-{sample}.mp4``, and nothing else may: the scorer takes its suffix from any name there.
"""

import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ursa_core.errors import DataError, UsageError
from ursa_core.evaluation.suites.suite import LISTS, PlannedFile, Results, Suite, read_rows, thinned
from ursa_core.files import parse_json

FLICKERING = "temporal_flickering"
QUALITY = (
    "subject_consistency", "background_consistency", FLICKERING, "motion_smoothness",
    "dynamic_degree", "aesthetic_quality", "imaging_quality",
)  # fmt: skip
SEMANTIC = (
    "object_class", "multiple_objects", "human_action", "color", "spatial_relationship", "scene",
    "appearance_style", "temporal_style", "overall_consistency",
)  # fmt: skip
DIMENSIONS = (*QUALITY, *SEMANTIC)
I2V = ("camera_motion", "i2v_subject", "i2v_background")
I2V_QUALITY = tuple(name for name in QUALITY if name != FLICKERING)
I2V_DIMENSIONS = (*I2V, *I2V_QUALITY)
NEED_DETECTRON2 = ("object_class", "multiple_objects", "color", "spatial_relationship")
_SAMPLES, _FLICKERING_SAMPLES = 5, 25  # the official filter looks for five still ones among 25


def plan(prompts: str = "raw", limit: int | None = None, *, long: bool = False) -> Suite:
    """VBench, or VBench-Long: 944 prompts, five samples each, of flickering 25; 6,220 files.

    The model is given ``raw`` or ``rewritten`` prompts; files are named by the raw ones. A trial
    has ``limit`` prompts. The scorer of ``long`` is for clips of five seconds and more.
    """
    entries: dict[str, dict[str, Any]] = {}
    for row in read_rows(LISTS / "vbench.jsonl", ("prompt", "rewritten", "dimensions")):
        entry = entries.setdefault(row["prompt"], {**row, "dimensions": [], "num": _SAMPLES})
        entry["dimensions"] += row["dimensions"]
        if FLICKERING in row["dimensions"]:
            entry["num"] = _FLICKERING_SAMPLES
    every = list(entries.values())
    chosen = [every[place] for place in thinned(len(every), limit)]
    given = "prompt" if prompts == "raw" else "rewritten"
    files = [file for row in chosen for file in _files_of(row, row[given], row["num"])]
    # The long scorer cuts its clips into the folder that it reads.
    scratch = ("split_clip", "split_scene", "temporal_filtered_cilps") if long else ()
    num_full = sum(entry["num"] for entry in every)
    return Suite("vbench-long" if long else "vbench", files, num_full, scratch=scratch)


def _files_of(row: Any, given: str, num: int, image: Path | None = None) -> list[PlannedFile]:
    prompt, groups = row["prompt"], tuple(row["dimensions"])
    names = [f"{prompt}-{sample}.mp4" for sample in range(num)]
    return [PlannedFile(name, prompt, given, k, image, groups) for k, name in enumerate(names)]


def images_in(repo: Path | None, ratio: str) -> Path:
    """Folder of the official cropped images of a ratio; raises `UsageError` without a checkout."""
    if repo is None:
        raise UsageError(
            "the images of VBench-I2V are in its checkout, and none is given",
            "git clone https://github.com/Vchitect/VBench, run "
            "vbench2_beta_i2v/download_data.sh there, and give --scorer-repo",
        )
    return repo / "vbench2_beta_i2v" / "data" / "crop" / ratio


def plan_i2v(images: Path, limit: int | None = None) -> Suite:
    """VBench-I2V: 1,118 prompts over 355 images, five samples each; 5,590 files.

    ``images`` is the folder of the official cropped images of one ratio; raises `DataError` where
    some of a trial of ``limit`` prompts, or of all, are missing.
    """
    rows = read_rows(LISTS / "vbench_i2v.jsonl", ("prompt", "dimensions", "image"))
    chosen = [rows[place] for place in thinned(len(rows), limit)]
    missing = sorted({row["image"] for row in chosen if not (images / row["image"]).is_file()})
    if missing:
        raise DataError(
            f"{len(missing)} of the suite's images aren't in {images}, as {missing[0]}",
            "run vbench2_beta_i2v/download_data.sh in the checkout of VBench, or give --images",
        )
    files = (_files_of(r, r["prompt"], _SAMPLES, images / r["image"]) for r in chosen)
    return Suite("vbench-i2v", [*chain.from_iterable(files)], _SAMPLES * len(rows))


def read_results(folder: Path, dimensions: Sequence[str]) -> Results:
    """Latest results of dimensions in ``*_eval_results.json``; `DataError` if of another form."""
    scores: dict[str, float] = {}
    videos: dict[str, dict[str, float | bool]] = {}
    hint = "move it away, and run --only score"
    for file in sorted(folder.rglob("*_eval_results.json"), key=lambda path: path.name):
        try:
            content = parse_json(file.read_text(encoding="utf-8"), finite=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{file} can't be read: {error}", hint) from error
        if not isinstance(content, dict):
            continue  # the official script reads only objects
        for name in [name for name in content if name in dimensions]:
            match content[name]:
                case [int() | float() as score, *rows] if (
                    type(score) is not bool and 0 <= score <= 1
                ):
                    scores[name], videos[name] = float(score), _videos(*rows[:1])
                case _:
                    raise DataError(
                        f"{file} gives no [score of 0 to 1, videos] for {name}: it is of another "
                        "version",
                        hint,
                    )
    there = [name for name in dimensions if name in scores]  # files of one second are in any order
    return Results({name: scores[name] for name in there}, {name: videos[name] for name in there})


def _videos(rows: object = ()) -> dict[str, float | bool]:
    found: dict[str, float | bool] = {}
    for row in rows if isinstance(rows, list) else []:
        match row:
            case {"video_path": str(path), "video_results": int() | float() as value}:
                if math.isfinite(value):
                    found[Path(path).name] = value
    return found
