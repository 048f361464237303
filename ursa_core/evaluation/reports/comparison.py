"""Two reports beside one another: differences with intervals, and the samples that changed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ursa_core.errors import UsageError
from ursa_core.evaluation.reports.intervals import Interval, mcnemar, paired_mean, paired_share
from ursa_core.evaluation.reports.report import Report, Score


@dataclass(frozen=True)
class Difference:
    """How a score differs between two reports, B minus A.

    Attributes:
        name: of the score.
        unit: of it.
        a: value of the first.
        b: value of the second.
        interval: of the difference over the samples that both have; None where single samples
            have no values.
        p: of McNemar's exact test, for right and wrong.
        num: samples that both have.
        gained: samples right in B alone, or larger there; those that changed most first.
        lost: likewise in A.
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
        UsageError: they are of different suites.
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
        values = np.array([[float(x), float(y)] for x, y in pairs.values()])
        if all(isinstance(x, bool) and isinstance(y, bool) for x, y in pairs.values()):
            interval = paired_share(values[:, 0] > 0.5, values[:, 1] > 0.5)
            p = mcnemar(len(lost), len(gained))
        else:
            interval = paired_mean(values[:, 0], values[:, 1])
    return Difference(
        score.name,
        score.unit,
        score.value,
        other.value if other else None,
        interval,
        p,
        len(pairs),
        gained,
        lost,
    )
