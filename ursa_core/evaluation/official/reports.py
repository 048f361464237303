"""Reports of official results: totals, what they are made of, and the paper's rows next to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ursa_core.evaluation.official import totals
from ursa_core.evaluation.official.scorer import check_current
from ursa_core.evaluation.reports.intervals import mean
from ursa_core.evaluation.reports.report import Cell, Report, Sample, Score, Table
from ursa_core.evaluation.suites import dpg, geneval, vbench
from ursa_core.evaluation.suites.suite import PlannedFile, Results, Suite

_FIRST_NOTE = {
    "geneval": "The overall score is the mean of the six tags, as the official summary has it.",
    "dpg": dpg.QUIRKS,
}


def official_report(
    suite: Suite, settings: Mapping[str, Any], scores: Path, samples_digest: str
) -> Report:
    """The report of a suite that official code has scored, from the folder ``scores``.

    ``settings`` are what the samples were made with, ``samples_digest`` that of those that are
    there.

    Raises:
        DataError: The results can't be read, or are of other samples.
    """
    check_current(scores, samples_digest)
    name = suite.name
    if name == "geneval":
        results = geneval.read_results(scores / name / geneval.RESULTS)
        found, missing, without = _geneval_scores(results)
    elif name == "dpg":
        results = dpg.read_results(scores / name / dpg.RESULTS)
        found, missing, without = _dpg_scores(results)
    else:
        is_i2v = name == "vbench-i2v"
        dimensions = vbench.I2V_DIMENSIONS if is_i2v else vbench.DIMENSIONS
        results = vbench.read_results(scores, dimensions)
        sums = totals.vbench_i2v if is_i2v else totals.vbench
        found, missing, without = _vbench_scores(results, dimensions, sums(results.scores))
    overall = results.files.get("overall")
    ranks = _mean_places(results) if overall is None else overall
    unscored = 0 if overall is None else sum(file.name not in overall for file in suite.files)
    complete = suite.is_whole and not missing and not unscored
    notes = [_FIRST_NOTE[name]] if name in _FIRST_NOTE else []
    if missing:
        lost = f"Nothing is counted as 0 for it, so there is no {', '.join(without)} score."
        notes.append(f"Not scored: {', '.join(missing)}." + (f" {lost}" if without else ""))
    notes += [f"{unscored} images have no result."] if unscored else []
    if not suite.is_whole:
        notes.append(f"A trial: {len(suite.files)} of {suite.num_full} files.")
    if name == "vbench-long":
        notes.append("The paper's rows are of VBench, not of VBench-Long.")
    samples = [
        Sample(
            file.name,
            _caption(name, file),
            {key: files[file.name] for key, files in results.files.items() if file.name in files},
            float(ranks[file.name]) if file.name in ranks else None,
            results.verdicts.get(file.name, ""),
        )
        for file in suite.files
    ]
    table = _next_to_published(name, found, complete)
    return Report(name, settings, complete, found, [table], samples, notes)


def _caption(suite: str, file: PlannedFile) -> str:
    if suite == "geneval":
        return file.prompt_id.partition(" ")[2]
    return file.prompt if suite == "dpg" else file.prompt_id


_Scores = tuple[list[Score], list[str], list[str]]
"""Scores, names of those that are missing, and names of totals that there are none of for it."""


def _vbench_scores(
    results: Results, dimensions: Sequence[str], sums: Mapping[str, float | None]
) -> _Scores:
    scores = [Score(name, value, unit="share") for name, value in sums.items()]
    for name in dimensions:
        value = results.scores.get(name)
        values = np.array([float(each) for each in results.files.get(name, {}).values()])
        score = Score(name, value, unit="share", num=len(values) or None)
        # An interval where the score is the mean of its videos; imaging quality gives per cent.
        for scaled in (values, 0.01 * values):
            if value is not None and len(values) > 1 and abs(scaled.mean() - value) < 1e-3:
                score = _with_interval(name, value, scaled)
                break
        scores.append(score)
    missing = [name for name in dimensions if name not in results.scores]
    return scores, missing, [name for name, value in sums.items() if value is None]


def _with_interval(name: str, value: float, values: NDArray[np.float64]) -> Score:
    found = mean(values)
    return Score(name, value, found.low, found.high, "share", len(values))


def _geneval_scores(results: Results) -> _Scores:
    right = {tag: [bool(v) for v in files.values()] for tag, files in results.files.items()}
    found = totals.geneval(right)
    scores = [
        Score.of(name, interval, "share", len(right[name]))
        if interval
        else Score(name, None, unit="share")
        for name, interval in found.items()
    ]
    missing = [name for name, interval in found.items() if interval is None and name != "overall"]
    return scores, missing, ["overall"]


def _dpg_scores(results: Results) -> _Scores:
    shares, values = dict(results.scores), np.array([*results.files["overall"].values()])
    value = shares.pop("overall", None)
    overall = Score("overall", value, unit="share")
    if value is not None and len(values) > 1:
        overall = _with_interval("overall", value, values)
    categories = [Score(name, share, unit="share") for name, share in shares.items()]
    return [overall, *categories], [] if value is not None else ["overall"], []


def _mean_places(results: Results) -> dict[str, float]:
    """Mean place of each file in the dimensions, from 0 (last) to 1."""
    places: dict[str, list[float]] = {}
    for files in results.files.values():
        values = list(files.values())
        for name, value in files.items():
            below = sum(other < value for other in values)
            ties = sum(other == value for other in values)
            places.setdefault(name, []).append((below + ties / 2) / len(values))
    return {name: float(np.mean(each)) for name, each in places.items()}


def _next_to_published(suite: str, scores: Sequence[Score], complete: bool) -> Table:
    """Our row above the paper's, in the paper's unit and digits."""
    rows = totals.published("vbench" if suite == "vbench-long" else suite)
    factor, digits, unit = (1, 2, "shares") if suite == "geneval" else (100, 1, "per cent")

    def shown(value: float | None, scale: int = 1) -> Cell:
        return "-" if value is None else f"{scale * value:.{digits}f}"

    ours = {score.name.lower(): score.value for score in scores}
    columns = list(next(iter(rows.values())))
    label = "this model" if complete else "this model (incomplete)"
    mine = [label, *(shown(ours.get(name), factor) for name in columns)]
    printed = [[name, *map(shown, row.values())] for name, row in rows.items()]
    header = ["MODEL", *(name.replace("_", " ").upper() for name in columns)]
    title, note = "The paper's rows, as printed there", f"In {unit}; - is not given."
    return Table(title, header, [mine, *printed], note)
