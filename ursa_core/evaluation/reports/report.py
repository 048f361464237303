"""The one form of all results: scores, tables, samples, what they were made with; comparisons.

What evaluations keep is JSON: objects with a format number, which pydantic checks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ursa_core import files
from ursa_core.errors import DataError, UsageError, unreadable
from ursa_core.evaluation.reports.intervals import Interval, mcnemar, mean, paired_share
from ursa_core.places import regular_file

T = TypeVar("T")

FORMAT = 1  # that this version writes and reads
Options = Mapping[str, Any]  # what results were made with
REPORT, PAGE = "report.json", "report.html"

Cell = str | float | int | None
Values = Mapping[str, Mapping[str, float | bool]]


@dataclass(frozen=True)
class Score:
    """A score, with the ends of its 95 % interval where there is one."""

    name: str  # unique in the report; samples give their values under it
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""  # printed behind the number; ``share`` is printed as per cent
    num: int | None = None
    chance: float | None = None  # value that guessing would reach

    @staticmethod
    def of(
        name: str, interval: Interval, unit: str = "", num: int | None = None,
        chance: float | None = None,
    ) -> "Score":  # fmt: skip
        """A score with its interval."""
        return Score(name, interval.value, interval.low, interval.high, unit, num, chance)

    @staticmethod
    def mean_of(name: str, samples: "Sequence[Sample]", unit: str = "") -> "Score":
        """The mean of the samples that have a value of the score, with its interval."""
        values = [sample.values[name] for sample in samples if name in sample.values]
        return Score.of(name, mean(np.array(values, float)), unit, len(values))

    @property
    def text(self) -> str:
        """The value as people read it; ``missing`` where there is none."""
        return number(self.value, self.unit) if self.value is not None else "missing"

    @property
    def chance_text(self) -> str:
        """What guessing would reach, as people read it."""
        return "" if self.chance is None else f"{100 * self.chance:.1f} %"

    @property
    def interval_text(self) -> str:
        """The interval as people read it, empty without one."""
        if self.low is None or self.high is None:
            return ""
        low = number(self.low, self.unit if self.unit == "share" else "")
        return f"{low} – {number(self.high, self.unit)}"


def number(value: float, unit: str) -> str:
    """A value with its unit, in four digits."""
    if unit == "share":
        return f"{100 * value:.1f} %"
    shown = f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return f"{shown} {unit}".rstrip()


@dataclass(frozen=True)
class Table:
    """Rows next to the scores: breakdowns, or the paper's rows next to ours."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One sampled file, by its path below the folder of the files."""

    name: str
    caption: str  # what it should show
    values: Mapping[str, float | bool]  # by score; true and false are right and wrong
    rank: float | None = None  # largest for the best samples; None isn't ranked
    verdict: str = ""  # what was seen


@dataclass(frozen=True)
class Report:
    """Results of a suite."""

    suite: str
    settings: Options  # what made them: model, seed, options, versions
    complete: bool  # nothing that the suite asks for is missing
    scores: Sequence[Score]
    tables: Sequence[Table] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()  # what a reader must know, such as the judge's own error

    def to_json(self) -> dict[str, Any]:
        """The object of report.json; its keys are part of the interface."""
        return {"format": FORMAT, **asdict(self)}


def write_report(folder: Path, report: Report) -> Path:
    """Write ``report.json`` into a folder."""
    write_record(folder / REPORT, asdict(report))
    return folder / REPORT


def read_report(path: Path) -> Report:
    """A report from its file or folder; `DataError` if missing, damaged or of another version."""
    hint = "give the -o folder of ursa eval; `--only report` makes the report of a suite again"
    return read_record(path / REPORT if path.is_dir() else path, Report, "report", hint)


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object with the format number, and its folder where there is none."""
    text = json.dumps({"format": FORMAT, **content}, ensure_ascii=False, indent=1)
    files.write(files.make_folder(path.parent) / path.name, text + "\n")


def read_record(path: Path, kind: type[T], what: str, hint: str) -> T:
    """A dataclass of what ``write_record`` wrote; keys beyond its fields are ignored.

    Messages call the record ``what``; ``hint`` is what to do about one that can't be used. Raises
    `DataError` where the file is missing, damaged, another one or of another version.
    """
    no_record = DataError(f"{path} is no {what} of ursa eval", hint)
    try:
        text = regular_file(path).read_text(encoding="utf-8")
        content = files.parse_json(text)
    except FileNotFoundError as error:
        raise DataError(f"there is no {what} {path}", hint) from error
    except UnicodeDecodeError as error:
        raise no_record from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error, hint) from error
    if not isinstance(content, dict) or "format" not in content:
        raise no_record
    found = content["format"]
    if found != FORMAT:
        raise DataError(f"{path} has format {found}, this version reads {FORMAT}", hint)
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise DataError(f"{path} is damaged: {place}: {fault['msg']}", hint) from error


@dataclass(frozen=True)
class Difference:
    """How a score differs between two reports, B minus A."""

    name: str
    unit: str
    a: float | None
    b: float | None
    interval: Interval | None  # over the ``num`` samples that both have; None without
    p: float | None  # P-value of McNemar's exact test, for right and wrong
    num: int
    gained: tuple[str, ...]  # right in B alone, or larger there; most changed first
    lost: tuple[str, ...]  # right in A alone, or larger there; most changed first


@dataclass(frozen=True)
class Comparison:
    """All differences of two reports of one suite, and samples that only one of them has."""

    suite: str
    differences: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    other_settings: Mapping[str, tuple[object, object]]


def compare(a: Report, b: Report) -> Comparison:
    """Compare two reports, sample by sample; raises `UsageError` if of different suites."""
    if a.suite != b.suite:
        hint = "give two reports of one suite"
        raise UsageError(f"a report of {a.suite} can't be compared with one of {b.suite}", hint)
    of_a, of_b = ({sample.name: sample.values for sample in each.samples} for each in (a, b))
    others = {score.name: score.value for score in b.scores}
    differences = (_difference(score, others.get(score.name), of_a, of_b) for score in a.scores)
    only_a, only_b = (name for name in of_a if name not in of_b), (n for n in of_b if n not in of_a)
    both = ((key, a.settings.get(key), b.settings.get(key)) for key in {**a.settings, **b.settings})
    other = {key: (of_one, of_other) for key, of_one, of_other in both if of_one != of_other}
    return Comparison(a.suite, tuple(differences), tuple(only_a), tuple(only_b), other)


def _difference(score: Score, other: float | None, of_a: Values, of_b: Values) -> Difference:
    name, interval, p = score.name, None, None
    both = [k for k in of_a if k in of_b and name in of_a[k] and name in of_b[k]]
    before, after = ([values[k][name] for k in both] for values in (of_a, of_b))
    a, b = np.array(before, float), np.array(after, float)
    changes = dict(zip(both, (b - a).tolist(), strict=True))
    gained = tuple(sorted((k for k, by in changes.items() if by > 0), key=lambda k: -changes[k]))
    lost = tuple(sorted((k for k, by in changes.items() if by < 0), key=lambda k: changes[k]))
    if both and all(isinstance(value, bool) for value in (*before, *after)):
        interval, p = paired_share(a > 0.5, b > 0.5), mcnemar(len(lost), len(gained))
    elif both:
        interval = mean(b - a)
    return Difference(name, score.unit, score.value, other, interval, p, len(both), gained, lost)
