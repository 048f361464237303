"""Plots and tables of benchmarks/comparisons.py, from the lines of its results."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from comparison_arms import ALL_STEPS, CORRECTS, SOME_STEPS, Arm

from ursa_core.evaluation.reports.intervals import Interval, wilson
from ursa_core.evaluation.reports.plots import BLUE, GRAY, RED, png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = dict[str, Any]
"""Of results.jsonl: the scores of one run at some steps, or how linear a path is."""

CEILING = "tokenizer"
"""In the results: rendered stills that only went through the tokenizer and back."""
ATTRIBUTES = ("colour", "shape", "background")
ALL = "all three"
COLOURS = (BLUE, RED, "#3f8f4f")
AXES = {"linearity": "(alpha, c)", "size": "parameters", "shift": "shift"}


class Results:
    """Counts of right images by run and steps.

    Args:
        lines: of results.jsonl; later ones win.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        scored = [line for line in lines if "images" in line]
        self._lines = {
            (line["run"], line.get("steps"), line.get("correct", 0.0)): line for line in scored
        }
        self.paths = {line["path"]: line for line in lines if "path" in line}

    def there(self, arm: Arm, steps: int, correct: float = 0.0) -> list[Line]:
        """The lines of an arm's runs that are done."""
        found = [self._lines.get((run.name, steps, correct)) for run in arm.runs]
        return [line for line in found if line is not None]

    def share(
        self, arm: Arm, steps: int, attribute: str = ALL, correct: float = 0.0
    ) -> Interval | None:
        """Share of right images over all seeds of an arm, None before any is done."""
        lines = self.there(arm, steps, correct)
        if not lines:
            return None
        return wilson(
            sum(line["right"][attribute] for line in lines), sum(line["images"] for line in lines)
        )

    def by_seed(
        self, arm: Arm, steps: int, attribute: str = ALL, correct: float = 0.0
    ) -> list[float]:
        """Share of right images of each seed."""
        lines = self.there(arm, steps, correct)
        return [line["right"][attribute] / line["images"] for line in lines]

    def ceiling(self, attribute: str = ALL) -> Interval | None:
        """Share of right images of what only went through the tokenizer."""
        line = self._lines.get((CEILING, None, 0.0))
        return line and wilson(line["right"][attribute], line["images"])


def write_report(
    out: Path, comparisons: Mapping[str, Sequence[Arm]], lines: Sequence[Line]
) -> Path:
    """Write OUT/tables.md, OUT/methods.png and OUT/one_seed.png; the path of the first."""
    results = Results(lines)
    (out / "methods.png").write_bytes(methods_plot(results, comparisons))
    (out / "one_seed.png").write_bytes(one_seed_plot(results, comparisons))
    page = out / "tables.md"
    page.write_text(tables(results, comparisons), encoding="utf-8")
    return page


# --- tables ---------------------------------------------------------------------------------------


def tables(results: Results, comparisons: Mapping[str, Sequence[Arm]]) -> str:
    """All figures in Markdown."""
    parts = [_ceiling_row(results), *_method_tables(results, comparisons)]
    parts += [_one_seed_table(results, name, comparisons) for name in AXES]
    return "\n\n".join(parts) + "\n"


def _ceiling_row(results: Results) -> str:
    found = {name: results.ceiling(name) for name in (*ATTRIBUTES, ALL)}
    cells = [f"{name} {_percent(share)}" for name, share in found.items() if share]
    return "Rendered, through the tokenizer alone: " + ", ".join(cells)


def _method_tables(results: Results, comparisons: Mapping[str, Sequence[Arm]]) -> list[str]:
    made = []
    for attribute in (ALL, *ATTRIBUTES):
        rows = []
        for name, more in (("methods", ""), ("longer", ", trained longer")):
            for arm, correct in product(comparisons[name], CORRECTS):
                at = [(arm, steps, attribute, correct) for steps in ALL_STEPS]
                label = f"{arm.label}{more}" + (f", corrected at {correct:g}" if correct else "")
                rows.append([label, *(_percent(results.share(*each)) for each in at)])
                rows.append(["each seed", *(_seeds(results.by_seed(*each)) for each in at)])
        made.append(_table([attribute, *(f"{steps} steps" for steps in ALL_STEPS)], rows))
    return made


def _one_seed_table(results: Results, name: str, comparisons: Mapping[str, Sequence[Arm]]) -> str:
    last = SOME_STEPS[-1]
    header = [AXES[name], *(f"{ALL}, {steps} steps" for steps in SOME_STEPS)]
    header += [f"{attribute}, {last}" for attribute in ATTRIBUTES]
    if name == "linearity":
        header[1:1] = ["correlation", "off the line"]
    rows = []
    for arm in comparisons[name]:
        path = results.paths.get(arm.label) if name == "linearity" else None
        about = [f"{path[key]:.3f}" for key in ("correlation", "deviation")] if path else []
        cells = [_percent(results.share(arm, steps)) for steps in SOME_STEPS]
        cells += [_percent(results.share(arm, last, each)) for each in ATTRIBUTES]
        rows.append([arm.label, *about, *cells])
        equals = _equals(arm, comparisons)
        if equals is not None:
            cells = [_seeds(results.by_seed(equals, steps)) for steps in SOME_STEPS]
            cells += [_seeds(results.by_seed(equals, last, each)) for each in ATTRIBUTES]
            rows.append(["its other seeds", *[""] * len(about), *cells])
    return _table(header, rows)


def _equals(arm: Arm, comparisons: Mapping[str, Sequence[Arm]]) -> Arm | None:
    """The trainings that differ from an arm's first one by their seed alone."""
    for method in comparisons["methods"]:
        if arm.runs[0] == method.runs[0]:
            return Arm(arm.label, method.runs[1:])
    return None


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: Interval | None) -> str:
    """``81.2 (77.9–84.1)``, in per cent."""
    if share is None:
        return ""
    return f"{100 * share.value:.1f} ({100 * share.low:.1f}–{100 * share.high:.1f})"


def _seeds(shares: Sequence[float]) -> str:
    return ", ".join(f"{100 * share:.1f}" for share in shares)


# --- plots ----------------------------------------------------------------------------------------


def methods_plot(results: Results, comparisons: Mapping[str, Sequence[Arm]]) -> bytes:
    """Scores by sampling steps, with intervals and all seeds as dots: by training and corrector."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    places = list(product(("methods", "longer"), CORRECTS))
    for axes, (name, correct) in zip(figure.subplots(1, len(places)), places, strict=True):
        for arm, colour in zip(comparisons[name], COLOURS, strict=True):
            at = {steps: (arm, steps, ALL, correct) for steps in ALL_STEPS}
            shares = {steps: results.share(*each) for steps, each in at.items()}
            points = {steps: share for steps, share in shares.items() if share is not None}
            values, lows, highs = (
                [100 * getattr(share, part) for share in points.values()]
                for part in ("value", "low", "high")
            )
            axes.plot(list(points), values, color=colour, label=arm.label)
            axes.fill_between(list(points), lows, highs, color=colour, alpha=0.12, lw=0)
            for steps in points:
                seeds = results.by_seed(*at[steps])
                axes.plot([steps] * len(seeds), np.multiply(100, seeds), ".", color=colour)
        axes.set_xlim(ALL_STEPS[0] / 1.1, ALL_STEPS[-1] * 1.1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ALL_STEPS, [str(steps) for steps in ALL_STEPS])
        axes.set_xlabel("sampling steps")
        _finish(axes, results, ALL)
        trained = "trained longer" if name == "longer" else "short training"
        axes.set_title(f"{trained}, correct {correct:g}: right, %", fontsize=10)
    figure.axes[0].legend(frameon=False, fontsize=9, loc="lower left")
    return png_of(figure)


def one_seed_plot(results: Results, comparisons: Mapping[str, Sequence[Arm]]) -> bytes:
    """Mean distance over time of each path, and scores of the comparisons with one seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4), layout="constrained")
    first, *rest = figure.subplots(1, 1 + len(AXES))
    for label, path in results.paths.items():
        times = np.linspace(0, 1, len(path["distance"]), endpoint=False)
        first.plot(times, path["distance"], label=f"{label}: {path['correlation']:.3f}")
    first.plot([0, 1], [1, 0], ":", color=GRAY)
    first.set_xlabel("t")
    first.set_title("distance to the data, share", fontsize=10)
    first.legend(frameon=False, fontsize=8)
    for axes, name in zip(rest, AXES, strict=True):
        arms = comparisons[name]
        for steps, colour, offset in zip(SOME_STEPS, (GRAY, BLUE), (-0.08, 0.08), strict=True):
            for place, arm in enumerate(arms):
                share, x = results.share(arm, steps), place + offset
                if share is None:
                    continue
                axes.plot([x, x], [100 * share.low, 100 * share.high], color=colour, lw=2)
                axes.plot(x, 100 * share.value, "o", color=colour, label=_once(place, steps))
                # How far apart equal trainings lie.
                equals = _equals(arm, comparisons)
                others = results.by_seed(equals, steps) if equals else []
                axes.plot([x] * len(others), np.multiply(100, others), "x", color=colour)
        axes.set_xticks(range(len(arms)), [arm.label for arm in arms])
        axes.set_xlim(-0.5, len(arms) - 0.5)
        axes.set_xlabel(AXES[name])
        _finish(axes, results, ALL)
    rest[0].legend(frameon=False, fontsize=9)
    return png_of(figure)


def _once(place: int, steps: int) -> str | None:
    """Label of the first of several points that look alike."""
    return f"{steps} steps" if place == 0 else None


def _finish(axes: "Axes", results: Results, attribute: str) -> None:
    top = results.ceiling(attribute)
    if top is not None:
        axes.axhline(100 * top.value, ls="--", color=GRAY, lw=1)
    axes.set_ylim(0, 102)
    axes.set_title(f"{attribute} right, %", fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
