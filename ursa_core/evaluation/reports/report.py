"""The one form of all results: scores, tables, samples, and how they came about."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ursa_core import files
from ursa_core.errors import DataError, regular_file, unreadable
from ursa_core.evaluation.reports.intervals import Interval
from ursa_core.files import parse_json

FORMAT = 1
"""Of report.json; another one isn't read."""

REPORT = "report.json"
PAGE = "report.html"

Cell = str | float | int | None


@dataclass(frozen=True)
class Score:
    """One figure.

    Attributes:
        name: unique in the report; samples give their values under it.
        value: None where it is missing.
        low: end of the 95 % interval, None without one.
        high: likewise.
        unit: ``share`` is printed as per cent; else behind the number.
        num: samples behind it.
        chance: what guessing would reach.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    num: int | None = None
    chance: float | None = None

    @staticmethod
    def of(
        name: str, interval: Interval, unit: str = "", num: int | None = None,
        chance: float | None = None,
    ) -> "Score":  # fmt: skip
        """A score with its interval."""
        return Score(name, interval.value, interval.low, interval.high, unit, num, chance)

    @property
    def text(self) -> str:
        """The value as people read it; ``missing`` where there is none."""
        return number(self.value, self.unit) if self.value is not None else "missing"

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
    """Rows beside the scores: breakdowns, or the paper's rows beside ours."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One sampled file.

    Attributes:
        name: below the folder of the files.
        caption: what it should show.
        values: by the name of the score that they belong to; true and false are right and wrong.
        rank: best samples have the largest; None isn't ranked.
        verdict: what was seen, in words.
    """

    name: str
    caption: str
    values: Mapping[str, float | bool]
    rank: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Report:
    """Results of a suite.

    Attributes:
        suite: its name.
        settings: what they came of: model, seed, options, versions.
        complete: nothing that the suite asks for is missing.
        scores: the figures.
        tables: more of them.
        samples: every file.
        notes: what a reader must know, such as the judge's own error.
    """

    suite: str
    settings: Mapping[str, Any]
    complete: bool
    scores: Sequence[Score]
    tables: Sequence[Table] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The object of report.json; its keys are part of the interface."""
        return {"format": FORMAT, **asdict(self)}


def write_report(folder: Path, report: Report) -> Path:
    """Write ``report.json`` into a folder."""
    path = folder / REPORT
    files.write(path, json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n")
    return path


_FOLDER_HINT = "give the -o folder of ursa eval"


def read_report(path: Path) -> Report:
    """A report from its file, or from the folder that holds it.

    Raises:
        DataError: there is none, it is damaged, or of another version.
    """
    file = path / REPORT if path.is_dir() else path
    again = "make it again with `ursa eval SUITE -o DIR --only report`"
    try:
        content = parse_json(regular_file(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no report {file}", _FOLDER_HINT) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no report of ursa eval", _FOLDER_HINT) from error
    except (OSError, ValueError) as error:
        raise unreadable(file, error, again) from error
    if not isinstance(content, dict) or "format" not in content:
        raise DataError(f"{file} is no report of ursa eval", _FOLDER_HINT)
    if content["format"] != FORMAT:
        raise DataError(
            f"{file} has format {content['format']}, this version reads {FORMAT}", again
        )
    try:
        found = Report(
            content["suite"],
            content["settings"],
            content["complete"],
            tuple(Score(**score) for score in content["scores"]),
            tuple(Table(**table) for table in content["tables"]),
            tuple(Sample(**sample) for sample in content["samples"]),
            tuple(content["notes"]),
        )
        figures = [each for score in found.scores for each in (score.value, score.low, score.high)]
        figures += [each for sample in found.samples for each in sample.values.values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged: {error}", again) from error
    for figure in figures:
        if figure is not None and not (isinstance(figure, int | float) and math.isfinite(figure)):
            raise DataError(f"{file} is damaged: {figure!r} is no figure", again)
    return found
