"""Two reports compared: differences with intervals, and the samples that changed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ursa_core.errors import UsageError
from ursa_core.evaluation.reports.intervals import Interval, mcnemar, mean, paired_share
from ursa_core.evaluation.reports.report import Report, Score

Values = Mapping[str, Mapping[str, float | bool]]


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
