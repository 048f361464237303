"""Plots of a report, as PNG bytes."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ursa_core.evaluation.reports.intervals import Interval
from ursa_core.evaluation.reports.report import Sample, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GRAY, RED = "#2563a8", "#8a8f98", "#b3372f"
_MAX_HISTOGRAMS = 6


def png_of(figure: "Figure") -> bytes:
    """A figure's picture, the same bytes for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def _lines(names: Sequence[str], label: str) -> "tuple[Figure, Axes]":
    """A figure with a line for each name, the first at the top, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.9 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names[::-1])
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    return figure, axes


def scores_plot(scores: Sequence[Score]) -> bytes:
    """Scores of one unit with their intervals, one per line; chance as a gray mark."""
    from matplotlib.ticker import MaxNLocator

    there = [score for score in scores if score.value is not None]
    is_share = all(score.unit == "share" for score in there)
    factor, label = (100, "%") if is_share else (1, there[0].unit or "score")
    figure, axes = _lines([score.name for score in there], label)
    for place, score in enumerate(reversed(there)):
        if score.low is not None and score.high is not None:
            axes.plot([factor * score.low, factor * score.high], [place] * 2, color=BLUE, lw=3)
        axes.plot(factor * (score.value or 0), place, "o", color=BLUE, ms=6, zorder=3)
        if score.chance is not None:
            axes.plot(factor * score.chance, place, "|", color=GRAY, ms=12, mew=2)
    axes.set_ylim(-0.6, len(there) - 0.4)
    if is_share:
        axes.set_xlim(-2, 102)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines[["top", "right", "left"]].set_visible(False)
    return png_of(figure)


def histograms(samples: Sequence[Sample], scores: Sequence[Score]) -> bytes | None:
    """Distributions of single samples' scores; None where they are only right or wrong."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    shown = []
    for score in scores:
        values = [sample.values[score.name] for sample in samples if score.name in sample.values]
        if len(values) > 1 and not any(isinstance(value, bool) for value in values):
            shown.append((score, values))
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
    factor = 100 if unit == "share" else 1
    label = "B − A in % points" if unit == "share" else f"B − A {unit}".rstrip()
    figure, axes = _lines([name for name, _ in named], label)
    for place, (_, each) in enumerate(reversed(named)):
        colour = GRAY if each.low <= 0 <= each.high else RED if each.high < 0 else BLUE
        axes.plot([factor * each.low, factor * each.high], [place] * 2, color=colour, lw=3)
        axes.plot(factor * each.value, place, "o", color=colour, ms=6)
    axes.axvline(0, color="black", lw=0.8)
    return png_of(figure)
