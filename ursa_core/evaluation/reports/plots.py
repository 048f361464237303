"""Plots of a report, as PNG bytes."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ursa_core.evaluation.reports.intervals import Interval
from ursa_core.evaluation.reports.report import Sample, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GRAY, RED = "#2563a8", "#8a8f98", "#b3372f"
_MAX_HISTOGRAMS = 6


def png_of(figure: "Figure") -> bytes:
    """A figure's picture, the same bytes for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def scores_plot(scores: Sequence[Score]) -> bytes:
    """Scores of one unit with their intervals, one per line; chance as a gray mark."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    there = [score for score in scores if score.value is not None]
    figure = Figure(figsize=(7, 0.9 + 0.32 * len(there)), layout="constrained")
    axes = figure.subplots()
    is_share = all(score.unit == "share" for score in there)
    factor = 100 if is_share else 1
    for place, score in enumerate(reversed(there)):
        value = factor * (score.value or 0)
        if score.low is not None and score.high is not None:
            axes.plot([factor * score.low, factor * score.high], [place] * 2, color=BLUE, lw=3)
        axes.plot(value, place, "o", color=BLUE, ms=6, zorder=3)
        if score.chance is not None:
            axes.plot(factor * score.chance, place, "|", color=GRAY, ms=12, mew=2)
    axes.set_yticks(range(len(there)), [score.name for score in reversed(there)])
    axes.set_ylim(-0.6, len(there) - 0.4)
    if is_share:
        axes.set_xlim(-2, 102)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("%" if is_share else there[0].unit or "score")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return png_of(figure)


def histograms(samples: Sequence[Sample], scores: Sequence[Score]) -> bytes | None:
    """Distributions of single samples' scores; None where they are only right or wrong."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    spread = {
        score: [
            float(sample.values[score.name]) for sample in samples if score.name in sample.values
        ]
        for score in scores
        if not any(isinstance(sample.values.get(score.name), bool) for sample in samples)
    }
    shown = [(score, values) for score, values in spread.items() if len(values) > 1]
    shown = shown[:_MAX_HISTOGRAMS]
    if not shown:
        return None
    rows = -(-len(shown) // 3)
    figure = Figure(figsize=(9, 2.4 * rows), layout="constrained")
    cells = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes in cells[len(shown) :]:
        axes.set_visible(False)
    for axes, (score, values) in zip(cells, shown, strict=False):
        axes.hist(values, bins=min(20, max(4, len(values) // 2)), color=BLUE)
        axes.axvline(float(np.median(values)), color=RED, lw=1)
        axes.set_title(score.name, fontsize=9)
        axes.set_xlabel(score.unit, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return png_of(figure)


def differences_plot(named: Sequence[tuple[str, Interval]], unit: str) -> bytes:
    """Differences with their intervals; those without zero in colour."""
    from matplotlib.figure import Figure

    factor = 100 if unit == "share" else 1
    figure = Figure(figsize=(7, 0.9 + 0.32 * len(named)), layout="constrained")
    axes = figure.subplots()
    for place, (_, each) in enumerate(reversed(named)):
        colour = GRAY if each.low <= 0 <= each.high else RED if each.high < 0 else BLUE
        axes.plot([factor * each.low, factor * each.high], [place] * 2, color=colour, lw=3)
        axes.plot(factor * each.value, place, "o", color=colour, ms=6)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(named)), [name for name, _ in reversed(named)])
    axes.set_xlabel("B − A in % points" if unit == "share" else f"B − A {unit}".rstrip())
    axes.grid(axis="x", alpha=0.3)
    return png_of(figure)
