"""Official totals against published ones, recomputed from the published parts."""

import numpy as np
import pytest

from ursa_core.evaluation.official import totals
from ursa_core.evaluation.suites.vbench import DIMENSIONS, I2V, QUALITY, SEMANTIC

ORDER = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness",
    "dynamic_degree", "aesthetic_quality", "imaging_quality", "object_class", "multiple_objects",
    "human_action", "color", "spatial_relationship", "scene", "appearance_style",
    "temporal_style", "overall_consistency",
)  # fmt: skip

# Table 1 of FlashVideo (arXiv 2502.05179): total, quality, semantic, then the 16 dimensions.
FLASH_VIDEO = {
    "Vchitect": "82.24 83.54 77.06 96.83 96.66 98.57 98.98 63.89 60.41 65.35 86.61 68.84 97.20"
    " 87.04 57.55 56.57 23.73 25.01 27.57",
    "CogVideoX-1.5": "82.17 82.78 79.76 96.87 97.35 98.88 98.31 50.93 62.79 65.02 87.47 69.65 97.20"
    " 87.55 80.25 52.91 24.89 25.19 27.30",
    "CogVideoX-5B": "81.61 82.75 77.04 96.23 96.52 98.66 96.92 70.97 61.98 62.90 85.23 62.11 99.40"
    " 82.81 66.35 53.20 24.91 25.38 27.59",
    "CogVideoX-2B": "81.57 82.51 77.79 96.42 96.53 98.45 97.76 58.33 61.47 65.60 87.81 69.35 97.00"
    " 86.87 54.64 57.51 24.93 25.56 28.01",
    "Mochi-1": "80.13 82.64 70.08 96.99 97.28 99.40 99.02 61.85 56.94 60.64 86.51 50.47 94.60"
    " 79.73 69.24 36.99 20.33 23.65 25.15",
    "LTX-Video": "80.00 82.30 70.79 96.56 97.20 99.34 98.96 54.35 59.81 60.28 83.45 45.43 92.80"
    " 81.45 65.43 51.07 21.47 22.62 25.19",
    "OpenSoraPlan-V1.1": "78.00 80.91 66.38 95.73 96.73 99.03 98.28 47.72 56.85 62.28 76.30 40.35"
    " 86.80 89.19 53.11 27.17 22.90 23.87 26.52",
    "FlashVideo 8 fps": "82.49 82.58 82.10 96.96 96.82 98.43 97.01 59.58 62.29 66.21 89.87 80.67"
    " 99.20 85.81 83.02 57.17 24.39 25.46 27.81",
    "FlashVideo 24 fps": "82.99 83.35 81.56 97.19 97.09 98.52 98.89 56.88 62.11 65.40 88.38 78.93"
    " 99.40 84.84 82.16 57.43 24.36 25.26 27.59",
}

# The paper's rows that its own columns don't give, by table and model.
OUTSIDE = {
    # Printed 82.10, its parts give 82.20; the total follows from the printed one.
    "flash video": {("FlashVideo 8 fps", "semantic"), ("FlashVideo 8 fps", "total")},
    "vbench": set(),
    "i2v": set(),
    "i2v total": set(),
    "geneval": {"SDXL"},  # printed 0.55, its tags give 0.51
}


def rounding(names: tuple[str, ...], unit: float) -> float:
    """How far a weighted mean is off at most where parts and result are rounded to a unit."""
    weights = {name: totals.WEIGHTS.get(name, 1.0) for name in names}
    spans = {name: np.ptp(totals.RANGES.get(name, (0.0, 1.0))) for name in names}
    of_parts = sum(weights[name] * unit / 2 / spans[name] for name in names)
    return float(of_parts / sum(weights.values()) + unit / 2 + 1e-9)


@pytest.mark.parametrize("model", FLASH_VIDEO)
def test_vbench_totals_follow_from_published_dimensions(model: str) -> None:
    total, quality, semantic, *parts = (float(value) / 100 for value in FLASH_VIDEO[model].split())
    found = totals.vbench(dict(zip(ORDER, parts, strict=True)))
    reach = {"quality": rounding(QUALITY, 1e-4), "semantic": rounding(SEMANTIC, 1e-4)}
    reach["total"] = (4 * reach["quality"] + reach["semantic"]) / 5
    for name, value in (("total", total), ("quality", quality), ("semantic", semantic)):
        off = abs((found[name] or 0) - value)
        assert off <= reach[name] or (model, name) in OUTSIDE["flash video"], (name, off)


@pytest.mark.parametrize("missing", DIMENSIONS)
def test_a_missing_dimension_is_never_counted_as_zero(missing: str) -> None:
    parts = dict.fromkeys(DIMENSIONS, 0.5)
    del parts[missing]
    found = totals.vbench(parts)
    assert found["total"] is None
    assert (found["quality"] is None) != (found["semantic"] is None)


def printed_rows(suite: str) -> dict[str, dict[str, float]]:
    """The paper's rows without what isn't given."""
    return {
        model: {name: value for name, value in row.items() if value is not None}
        for model, row in totals.published(suite).items()
        if "README" not in model
    }


@pytest.mark.parametrize(
    ("suite", "score", "column"),
    [("geneval", 0.79, "overall"), ("dpg", 85.6, "overall"), ("vbench", 81.4, "total"),
     ("vbench-i2v", 86.0, "total")],
)  # fmt: skip
def test_rows_of_the_smaller_model_are_the_readmes(suite: str, score: float, column: str) -> None:
    row = totals.published(suite)["URSA 0.6B (README)"]
    assert row.pop(column) == score
    assert set(row.values()) == {None}


def outside(found: dict[str, float], printed: dict[str, float], reach: float) -> set[str]:
    return {model for model, value in found.items() if abs(value - printed[model]) > reach}


def test_the_papers_vbench_totals_follow_from_quality_and_semantic() -> None:
    rows = printed_rows("vbench")
    found = {name: (4 * row["quality"] + row["semantic"]) / 5 for name, row in rows.items()}
    printed = {name: row["total"] for name, row in rows.items()}
    assert outside(found, printed, 0.1 + 1e-9) == OUTSIDE["vbench"]
    # The table gives 8 of 16 dimensions, too few for quality and semantic themselves.
    for row in rows.values():
        parts = {name: value / 100 for name, value in row.items() if name in DIMENSIONS}
        assert totals.vbench(parts)["quality"] is None


def test_the_papers_i2v_scores_follow_from_their_dimensions() -> None:
    rows = printed_rows("vbench-i2v")
    whole = {name: row for name, row in rows.items() if "camera_motion" in row}
    assert set(rows) - set(whole) == {"Lumos-1"}
    found = {
        name: 100 * (totals.vbench({k: v / 100 for k, v in row.items()}, True)["i2v"] or 0)
        for name, row in whole.items()
    }
    reach = 100 * rounding(I2V, 1e-3)
    assert outside(found, {n: r["i2v"] for n, r in rows.items()}, reach) == OUTSIDE["i2v"]
    mean = {name: (row["quality"] + row["i2v"]) / 2 for name, row in rows.items()}
    printed = {name: row["total"] for name, row in rows.items()}
    assert outside(mean, printed, 0.1 + 1e-9) == OUTSIDE["i2v total"]


def test_the_papers_geneval_scores_are_means_of_their_tags() -> None:
    rows = printed_rows("geneval")
    found = {
        name: sum(row[tag] for tag in totals.GENEVAL_TAGS) / 6
        for name, row in rows.items()
        if all(tag in row for tag in totals.GENEVAL_TAGS)
    }
    assert set(found) == set(rows)
    # The mean of parts rounded to 0.005 is off by as much at most, and rounded again.
    printed = {name: row["overall"] for name, row in rows.items()}
    assert outside(found, printed, 0.01 + 1e-9) == OUTSIDE["geneval"]


def test_geneval_weighs_tags_and_not_images() -> None:
    correct = {tag: [True] * 10 for tag in totals.GENEVAL_TAGS}
    correct["position"] = [False] * 90 + [True] * 10
    found = totals.geneval(correct)
    assert found["overall"] is not None
    assert found["overall"].value == pytest.approx((5 + 0.1) / 6)
    assert found["position"] is not None
    assert found["position"].low < 0.1 < found["position"].high
    del correct["counting"]
    assert totals.geneval(correct)["overall"] is None
    assert totals.geneval(correct)["counting"] is None
