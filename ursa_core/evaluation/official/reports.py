"""Reports of official results: totals, what they are made of, and the paper's rows beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ursa_core.evaluation.official import published, totals
from ursa_core.evaluation.reports.intervals import mean
from ursa_core.evaluation.reports.report import Cell, Report, Sample, Score, Table
from ursa_core.evaluation.suites import dpg, geneval, vbench
from ursa_core.evaluation.suites.suite import Suite

_BESIDE = "The paper's rows, as printed there"


def vbench_report(suite: Suite, settings: Mapping[str, Any], scores: Path) -> Report:
    """The report of VBench, VBench-I2V or VBench-Long.

    Args:
        suite: that was scored.
        settings: what the samples came of.
        scores: folder with the scorer's results.

    Raises:
        DataError: results can't be read.
    """
    is_i2v = suite.name == "vbench-i2v"
    dimensions = vbench.I2V_DIMENSIONS if is_i2v else vbench.DIMENSIONS
    results = vbench.read_results(scores, dimensions)
    raw = {name: result.score for name, result in results.items()}
    sums = totals.vbench_i2v(raw) if is_i2v else totals.vbench(raw)
    missing = [name for name in dimensions if name not in results]
    all_scores = [Score(name, value, unit="share") for name, value in sums.items()]
    all_scores += [_dimension(name, results.get(name)) for name in dimensions]
    columns = published.I2V_COLUMNS if is_i2v else published.VBENCH_COLUMNS
    rows = published.VBENCH_I2V if is_i2v else published.VBENCH
    ours = {score.name: score.value for score in all_scores}
    notes = [_missing_note(missing, sums)] if missing else []
    if not suite.is_whole:
        notes.append(_part_note(suite))
    if suite.name == "vbench-long":
        notes.append("The paper's rows are of VBench, not of VBench-Long.")
    return Report(
        suite.name,
        settings,
        suite.is_whole and not missing,
        all_scores,
        [_beside(columns, rows, ours, 100, not (missing or not suite.is_whole))],
        _video_samples(suite, results),
        notes,
    )


def _dimension(name: str, result: vbench.Result | None) -> Score:
    """A dimension, with an interval where its score is the mean of its videos."""
    if result is None:
        return Score(name, None, unit="share")
    values = np.array([float(value) for value in result.videos.values()])
    for factor in (1.0, 0.01):  # imaging quality is told in per cent of each video
        if len(values) > 1 and abs(factor * values.mean() - result.score) < 1e-3:
            found = mean(factor * values)
            return Score(name, result.score, found.low, found.high, "share", len(values))
    return Score(name, result.score, unit="share", num=len(values) or None)


def _video_samples(suite: Suite, results: Mapping[str, vbench.Result]) -> list[Sample]:
    """Every file with what the scorer found; ranked by its mean place in the dimensions."""
    places: dict[str, list[float]] = {}
    for result in results.values():
        values = list(result.videos.values())
        for name, value in result.videos.items():
            below = sum(other < value for other in values)
            ties = sum(other == value for other in values)
            places.setdefault(name, []).append((below + ties / 2) / len(values))
    return [
        Sample(
            file.name,
            file.prompt_id,
            {
                name: result.videos[file.name]
                for name, result in results.items()
                if file.name in result.videos
            },
            float(np.mean(places[file.name])) if file.name in places else None,
        )
        for file in suite.files
    ]


def geneval_report(suite: Suite, settings: Mapping[str, Any], scores: Path) -> Report:
    """The report of GenEval; raises ``DataError`` where its results can't be read."""
    images = geneval.read_results(scores / suite.name / geneval.RESULTS)
    found = totals.geneval(geneval.by_tag(images))
    counts = {tag: len(values) for tag, values in geneval.by_tag(images).items()}
    all_scores = [
        Score(name, None, unit="share")
        if interval is None
        else Score.of(name, interval, "share", counts.get(name, len(images)))
        for name, interval in found.items()
    ]
    unscored = [file.name for file in suite.files if file.name not in images]
    missing = [name for name, interval in found.items() if interval is None and name != "overall"]
    notes = ["The overall score is the mean of the six tags, as the official summary has it."]
    notes += [_missing_note(missing, {"overall": None})] if missing else []
    notes += [f"{len(unscored)} images have no result."] if unscored else []
    notes += [] if suite.is_whole else [_part_note(suite)]
    complete = suite.is_whole and not unscored and not missing
    ours = {score.name: score.value for score in all_scores}
    samples = [
        Sample(
            file.name,
            file.prompt_id.partition(" ")[2],
            {file.groups[0]: images[file.name].correct, "overall": images[file.name].correct}
            if file.name in images
            else {},
            float(images[file.name].correct) if file.name in images else None,
            _verdict(images.get(file.name)),
        )
        for file in suite.files
    ]
    table = _beside(published.GENEVAL_COLUMNS, published.GENEVAL, ours, 1, complete)
    return Report(suite.name, settings, complete, all_scores, [table], samples, notes)


def _verdict(image: geneval.Image | None) -> str:
    if image is None:
        return ""
    return "right" if image.correct else " ".join(image.reason.split()) or "wrong"


def dpg_report(suite: Suite, settings: Mapping[str, Any], scores: Path) -> Report:
    """The report of DPG-Bench; raises ``DataError`` where its results can't be read."""
    results = dpg.read_results(scores / suite.name / dpg.RESULTS)
    unscored = [file.name for file in suite.files if file.name not in results.images]
    overall = Score("overall", results.score, unit="share")
    values = np.array(list(results.images.values()))
    if results.score is not None and len(values) > 1:
        found = mean(values)
        overall = Score("overall", results.score, found.low, found.high, "share", len(values))
    complete = suite.is_whole and not unscored and results.score is not None
    all_scores = [overall]
    all_scores += [Score(name, value, unit="share") for name, value in results.categories.items()]
    notes = [dpg.QUIRKS]
    notes += [_missing_note(["overall"], {})] if results.score is None else []
    notes += [f"{len(unscored)} images have no result."] if unscored else []
    notes += [] if suite.is_whole else [_part_note(suite)]
    samples = [
        Sample(
            file.name,
            file.prompt,
            {"overall": results.images[file.name]} if file.name in results.images else {},
            results.images.get(file.name),
        )
        for file in suite.files
    ]
    ours = {score.name.lower(): score.value for score in all_scores}
    table = _beside(published.DPG_COLUMNS, published.DPG, ours, 100, complete)
    return Report(suite.name, settings, complete, all_scores, [table], samples, notes)


def _beside(
    columns: Sequence[str],
    rows: Mapping[str, published.Row],
    ours: Mapping[str, float | None],
    factor: int,
    complete: bool,
) -> Table:
    """Our row above the paper's, in the paper's unit and digits; a dash is what there isn't."""
    digits = 1 if factor == 100 else 2

    def shown(value: float | None, scale: float) -> Cell:
        return "-" if value is None else f"{scale * value:.{digits}f}"

    mine = [shown(ours.get(name), factor) for name in columns]
    label = "this model" if complete else "this model (incomplete)"
    printed = [[name, *(shown(value, 1) for value in row)] for name, row in rows.items()]
    header = ["MODEL", *(name.replace("_", " ").upper() for name in columns)]
    unit = "per cent" if factor == 100 else "shares"
    return Table(_BESIDE, header, [[label, *mine], *printed], f"In {unit}; - is not given.")


def _missing_note(missing: Sequence[str], sums: Mapping[str, float | None]) -> str:
    without = [name for name, value in sums.items() if value is None]
    sentence = f"Not scored: {', '.join(missing)}."
    if without:
        sentence += f" Nothing is counted as 0 for it, so there is no {', '.join(without)} score."
    return sentence


def _part_note(suite: Suite) -> str:
    return f"A trial: {len(suite.files)} of {suite.num_full} files."
