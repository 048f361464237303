"""Two reports compared: differences with intervals, and the samples that changed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ursa_core.errors import UsageError
from ursa_core.evaluation.reports.intervals import Interval, mcnemar, mean, paired_share
from ursa_core.evaluation.reports.report import Report, Score


@dataclass(frozen=True)
class Difference:
    """How a score differs between two reports, B minus A.

    Attributes:
        name: Name of the score.
        unit: Unit of the score.
        a: Value in the first report.
        b: Value in the second report.
        interval: Interval of the difference over the samples that both have; None where single
            samples have no values.
        p: P-value of McNemar's exact test, for right and wrong.
        num: Number of samples that both have.
        gained: Samples right in B alone, or larger there; those that changed most first.
        lost: Samples right in A alone, or larger there; those that changed most first.
    """

    name: str
    unit: str
    a: float | None
    b: float | None
    interval: Interval | None
    p: float | None
    num: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """All differences of two reports of one suite, and samples that only one of them has."""

    suite: str
    differences: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    other_settings: Mapping[str, tuple[object, object]]


def compare(a: Report, b: Report) -> Comparison:
    """Compare two reports, sample by sample where they have the same.

    Raises:
        UsageError: They are of different suites.
    """
    if a.suite != b.suite:
        raise UsageError(
            f"a report of {a.suite} can't be compared with one of {b.suite}",
            "give two reports of one suite",
        )
    of_a = {sample.name: sample.values for sample in a.samples}
    of_b = {sample.name: sample.values for sample in b.samples}
    common = [name for name in of_a if name in of_b]
    others = {score.name: score for score in b.scores}
    differences = [
        _difference(
            score,
            others.get(score.name),
            {
                name: (of_a[name][score.name], of_b[name][score.name])
                for name in common
                if score.name in of_a[name] and score.name in of_b[name]
            },
        )
        for score in a.scores
    ]
    return Comparison(
        a.suite,
        tuple(differences),
        tuple(name for name in of_a if name not in of_b),
        tuple(name for name in of_b if name not in of_a),
        {
            key: (a.settings.get(key), b.settings.get(key))
            for key in {**a.settings, **b.settings}
            if a.settings.get(key) != b.settings.get(key)
        },
    )


def _difference(
    score: Score, other: Score | None, pairs: Mapping[str, tuple[float | bool, float | bool]]
) -> Difference:
    interval, p = None, None
    changes = {name: float(y) - float(x) for name, (x, y) in pairs.items()}
    gained = tuple(sorted((n for n, by in changes.items() if by > 0), key=lambda n: -changes[n]))
    lost = tuple(sorted((n for n, by in changes.items() if by < 0), key=lambda n: changes[n]))
    if pairs:
        a, b = np.array([[float(x), float(y)] for x, y in pairs.values()]).T
        if all(isinstance(each, bool) for pair in pairs.values() for each in pair):
            interval, p = paired_share(a > 0.5, b > 0.5), mcnemar(len(lost), len(gained))
        else:
            interval = mean(b - a)
    b_value = other.value if other else None
    return Difference(
        score.name, score.unit, score.value, b_value, interval, p, len(pairs), gained, lost
    )
