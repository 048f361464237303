"""What benchmarks/comparisons.py compares: each variant of recipes/compare.yaml, and its seeds."""

from dataclasses import dataclass, replace
from itertools import zip_longest

ALL_STEPS = (2, 4, 8, 16, 25, 50)
CORRECTS = (0.0, 1.0)
"""Probabilities of the corrector that methods are compared with."""
SOME_STEPS = (8, 25)
LONGER_STEPS = 1500
"""Of training, to see what of the methods' differences is of the recipe's short one."""


@dataclass(frozen=True)
class Run:
    """One training: its folder's name, what differs from the recipe, the ways to sample.

    A way has each of the numbers of steps with each of the probabilities of the corrector.
    """

    name: str
    overrides: tuple[str, ...] = ()
    steps: tuple[int, ...] = SOME_STEPS
    corrects: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class Arm:
    """One of what a comparison compares, with a run for each seed."""

    label: str
    runs: tuple[Run, ...]


def _of_method(label: str, *overrides: str) -> Arm:
    named = {f"{label}-{seed}": (*overrides, f"seed={seed}") for seed in (1, 2, 3)}
    return Arm(label, tuple(Run(*each, ALL_STEPS, CORRECTS) for each in named.items()))


METHODS = (
    _of_method("metric"),
    _of_method("mixture", "path={kind: mixture}"),
    _of_method("masked", "path={kind: masked}"),
)
BASE = METHODS[0].runs[0]
"""Seed 1 of the recipe as it stands, one arm of each comparison."""


def _of_path(alpha: float, c: float) -> Arm:
    run = Run(f"path-{alpha:g}-{c:g}", (f"path.alpha={alpha}", f"path.c={c}"))
    return Arm(f"({alpha:g}, {c:g})", (run,))


def _of_size(label: str, *overrides: str) -> Arm:
    return Arm(label, (Run(f"size-{label}", tuple(f"model.{each}" for each in overrides)),))


def _of_shift(shift: float) -> Arm:
    overrides = (f"objective.shift={shift}", f"sampling.shift={shift}")
    return Arm(f"{shift:g}", (Run(f"shift-{shift:g}", overrides),))


def _of_longer(method: Arm) -> Arm:
    longer = f"train.steps={LONGER_STEPS}"
    runs = [
        replace(run, name=f"{run.name}-longer", overrides=(*run.overrides, longer))
        for run in method.runs
    ]
    return Arm(method.label, tuple(runs))


COMPARISONS: dict[str, tuple[Arm, ...]] = {
    "methods": METHODS,
    "longer": tuple(_of_longer(method) for method in METHODS),
    "linearity": (
        Arm("(1, 4)", (BASE,)),
        _of_path(0.5, 6.0),
        _of_path(1.0, 1.0),
        _of_path(1.0, 20.0),
    ),
    "size": (
        _of_size(
            "0.8M", "hidden_size=128", "intermediate_size=256", "num_hidden_layers=3",
            "num_attention_heads=2", "num_key_value_heads=2",
        ),
        Arm("2.2M", (BASE,)),
        _of_size(
            "4.5M", "hidden_size=256", "intermediate_size=704", "num_hidden_layers=5",
            "num_attention_heads=4", "num_key_value_heads=4",
        ),
    ),
    "shift": (_of_shift(0.33), Arm("1", (BASE,)), _of_shift(3.0), _of_shift(9.0)),
}  # fmt: skip


def all_runs() -> list[Run]:
    """Every training once, the first seeds first."""
    seeds = zip_longest(*(arm.runs for arms in COMPARISONS.values() for arm in arms))
    return list(dict.fromkeys(run for runs in seeds for run in runs if run is not None))
