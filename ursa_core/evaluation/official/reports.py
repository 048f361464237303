"""Reports of official results: totals, what they are made of, and the paper's rows next to them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ursa_core.evaluation.official import totals
from ursa_core.evaluation.official.scorer import check_current
from ursa_core.evaluation.reports.intervals import Array, mean
from ursa_core.evaluation.reports.report import Cell, Options, Report, Sample, Score, Table
from ursa_core.evaluation.suites import dpg, geneval, vbench
from ursa_core.evaluation.suites.suite import PlannedFile, Results, Suite

_FIRST_NOTE = {
    "geneval": "The overall score is the mean of the six tags, as the official summary has it.",
    "dpg": dpg.QUIRKS,
}


def official_report(suite: Suite, settings: Options, scores: Path, samples_digest: str) -> Report:
    """The report of a suite scored in ``scores``; `DataError` if unreadable or of other samples."""
    check_current(scores, samples_digest)
    name = suite.name
    sums: Collection[str] = ("overall",)
    if name == "geneval":
        results = geneval.read_results(scores / name / geneval.RESULTS)
        found = _geneval_scores(results)
    elif name == "dpg":
        results = dpg.read_results(scores / name / dpg.RESULTS)
        found, sums = _dpg_scores(results), ()
    else:
        is_i2v = name == "vbench-i2v"
        dimensions = vbench.I2V_DIMENSIONS if is_i2v else vbench.DIMENSIONS
        results = vbench.read_results(scores, dimensions)
        sums = totals.vbench(results.scores, is_i2v)
        found = _vbench_scores(results, dimensions, sums)
    lost = [score.name for score in found if score.value is None]
    missing, without = ([n for n in lost if (n in sums) == is_sum] for is_sum in (False, True))
    overall = results.files.get("overall")
    ranks = _mean_places(results) if overall is None else overall
    unscored = 0 if overall is None else sum(file.name not in overall for file in suite.files)
    complete = suite.is_whole and not missing and not unscored
    notes = [_FIRST_NOTE[name]] if name in _FIRST_NOTE else []
    if missing:
        nothing = f" Nothing is counted as 0 for it, so there is no {', '.join(without)} score."
        notes.append(f"Not scored: {', '.join(missing)}." + (nothing if without else ""))
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


def _vbench_scores(
    results: Results, dimensions: Sequence[str], sums: Mapping[str, float | None]
) -> list[Score]:
    scores = [Score(name, value, unit="share") for name, value in sums.items()]
    for name in dimensions:
        value = results.scores.get(name)
        values = np.array([float(each) for each in results.files.get(name, {}).values()])
        score = Score(name, value, unit="share", num=len(values) or None)
        # An interval where the score is the mean of its videos; imaging quality gives per cent.
        for scaled in (values, 0.01 * values):
            if value is not None and len(values) > 1 and abs(scaled.mean() - value) < 1e-3:
                score = _with_interval(score, scaled)
                break
        scores.append(score)
    return scores


def _with_interval(score: Score, values: Array) -> Score:
    found = mean(values)
    return replace(score, low=found.low, high=found.high, num=len(values))


def _geneval_scores(results: Results) -> list[Score]:
    right = {tag: [bool(v) for v in files.values()] for tag, files in results.files.items()}
    return [
        Score.of(name, each, "share", len(right[name])) if each else Score(name, None, unit="share")
        for name, each in totals.geneval(right).items()
    ]


def _dpg_scores(results: Results) -> list[Score]:
    shares, values = dict(results.scores), np.array([*results.files["overall"].values()])
    overall = Score("overall", shares.pop("overall", None), unit="share")
    if overall.value is not None and len(values) > 1:
        overall = _with_interval(overall, values)
    return [overall, *(Score(name, share, unit="share") for name, share in shares.items())]


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
    note += " (README): by README.md of github.com/baaivision/URSA (29284bb), not in the paper."
    return Table(title, header, [mine, *printed], note)
