"""Official totals of official results, None where a part is missing, and the paper's tables.

Tables 1 (VBench), 2 (VBench-I2V) and 3 (DPG-Bench, GenEval) of Deng et al., "Uniform Discrete
Diffusion with Metric Path for Video Generation", in per cent; GenEval in shares, † rewritten.
The rows of the 0.6B are of README.md of github.com/baaivision/URSA (29284bb).
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ursa_core.evaluation.reports.intervals import Interval, Z, wilson
from ursa_core.evaluation.suites.vbench import I2V, I2V_QUALITY, QUALITY, SEMANTIC

RANGES = {
    "subject_consistency": (0.1462, 1.0), "background_consistency": (0.2615, 1.0),
    "temporal_flickering": (0.6293, 1.0), "motion_smoothness": (0.706, 0.9975),
    "scene": (0.0, 0.8222), "appearance_style": (0.0009, 0.2855),
    "temporal_style": (0.0, 0.364), "overall_consistency": (0.0, 0.364),
    "i2v_subject": (0.1462, 1.0), "i2v_background": (0.2615, 1.0),
}  # fmt: skip
"""Lowest and highest value that VBench scales a dimension by; others lie in [0, 1]."""

WEIGHTS = {"dynamic_degree": 0.5, "camera_motion": 0.1}  # others are 1

GENEVAL_TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


def _weighted(scores: Mapping[str, float], names: Sequence[str]) -> float | None:
    if any(name not in scores for name in names):
        return None
    weights = [WEIGHTS.get(name, 1.0) for name in names]
    ranges = [RANGES.get(name, (0.0, 1.0)) for name in names]
    pairs = zip(names, ranges, strict=True)
    values = [(scores[name] - low) / (high - low) for name, (low, high) in pairs]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def vbench(scores: Mapping[str, float], is_i2v: bool = False) -> dict[str, float | None]:
    """Total, quality and semantic (or I2V) score of VBench, in [0, 1], of raw ones by dimension.

    Total = (4 quality + semantic) / 5, as in ``scripts/cal_final_score.py``; of I2V the mean.
    """
    name, names, weight = ("i2v", I2V, 1) if is_i2v else ("semantic", SEMANTIC, 4)
    quality, other = _weighted(scores, I2V_QUALITY if is_i2v else QUALITY), _weighted(scores, names)
    total = None if quality is None or other is None else (weight * quality + other) / (weight + 1)
    return {"total": total, "quality": quality, name: other}


def geneval(correct: Mapping[str, Sequence[bool]]) -> dict[str, Interval | None]:
    """GenEval's six tags and their mean, the overall score, by whether each image is correct."""
    tags: dict[str, Interval | None] = {
        tag: wilson(sum(correct[tag]), len(correct[tag])) if correct.get(tag) else None
        for tag in GENEVAL_TAGS
    }
    there = [(interval, len(correct[tag])) for tag, interval in tags.items() if interval]
    if len(there) < len(GENEVAL_TAGS):
        return {"overall": None, **tags}
    value = sum(interval.value for interval, _ in there) / len(there)
    variance = sum(each.value * (1 - each.value) / num for each, num in there)
    reach = Z * math.sqrt(variance) / len(there)
    return {"overall": Interval(value, max(0.0, value - reach), min(1.0, value + reach)), **tags}


def published(suite: str) -> dict[str, dict[str, float | None]]:
    """Published rows of a suite by model, each by column; None is what isn't given."""
    file = Path(__file__).parent / "published" / f"{suite}.csv"
    with file.open(encoding="utf-8", newline="") as opened:
        return {
            row.pop("model"): {name: float(v) if v else None for name, v in row.items()}
            for row in csv.DictReader(opened)
        }
