"""Curves of mean distance, the ranking of (alpha, c), and the linear schedule."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path import calibration
from ursa_core.path.calibration import distance_curve, evaluate, refine, search
from ursa_core.path.fast import distance_table
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import LinearSchedule, PowerSchedule
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer

# Exact figures of the published codebook, given with the published checkpoints' formulas.
PUBLISHED = {(1.0, 5.0): -0.9961, (0.9, 3.0): -0.9976, (1.0, 10.0): -0.9748, (0.5, 6.0): -0.9532}


def random_codebook(num_codes: int = 25) -> Tensor:
    return torch.randn(num_codes, 3, generator=torch.Generator().manual_seed(2))


def direct_mean(codebook: Tensor, beta: float, weights: Tensor) -> float:
    unit = torch.nn.functional.normalize(codebook.double(), dim=1)
    distances = torch.cdist(unit, unit)
    each = (torch.softmax(-beta * distances**2, dim=1) * distances).sum(1)
    return float((each * weights).sum() / weights.sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_the_curve_is_the_exact_expectation(weighted: bool) -> None:
    codebook = random_codebook()
    counts = torch.arange(25.0) if weighted else None
    curve = distance_curve(codebook, counts)
    betas = np.array([0.0, 0.03, 0.7, 3.3, 30.0, 400.0])
    weights = torch.ones(25) if counts is None else counts
    expected = [direct_mean(codebook, beta, weights.double()) for beta in betas]
    np.testing.assert_allclose(curve.at(betas), expected, rtol=1e-4, atol=1e-7)
    assert curve.error == 0


def test_a_grid_gives_the_same_curve_as_its_codes_one_by_one() -> None:
    codebook = FiniteScalarQuantizer([4, 5, 5]).codebook
    curve = distance_curve(codebook)
    expected = direct_mean(codebook, 2.0, torch.ones(100).double())
    # The zero vector is at distance 1 from all others, which cdist of normalised vectors knows too.
    assert float(curve.at(np.array([2.0]))[0]) == pytest.approx(expected, rel=1e-4)


def test_large_codebooks_are_sampled_with_their_error(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = distance_curve(random_codebook(200))
    monkeypatch.setattr(distance_table, "MAX_TABLE_ENTRIES", 100)
    sampled = distance_curve(random_codebook(200), num_samples=64)
    assert sampled.num_sampled == 64
    assert 0 < sampled.error < 0.05
    assert np.abs(sampled.mean - exact.mean).max() < 5 * sampled.error


@pytest.fixture(scope="module")
def published() -> calibration.DistanceCurve:
    return distance_curve(FiniteScalarQuantizer([8, 8, 8, 5, 5, 5]).codebook)


def test_the_published_codebooks_figures(published: calibration.DistanceCurve) -> None:
    assert published.mean[0] == pytest.approx(1.3666, abs=5e-5)
    for (alpha, c), correlation in PUBLISHED.items():
        assert evaluate(published, alpha, c).correlation == pytest.approx(correlation, abs=5e-4)


def test_the_papers_choice_ranks_near_the_top(published: calibration.DistanceCurve) -> None:
    grid = search(published, np.linspace(0.3, 2, 24), np.linspace(0.5, 12, 24))
    assert [each.score for each in grid] == sorted((e.score for e in grid), reverse=True)
    paper = evaluate(published, 1.0, 5.0)
    assert sum(each.score > paper.score for each in grid) < 0.03 * len(grid)
    assert paper.score > evaluate(published, 0.9, 3.0).score
    best = refine(published, grid[0])
    assert best.score >= grid[0].score
    for a, c in ((1.01, 1), (0.99, 1), (1, 1.02), (1, 0.98)):
        assert evaluate(published, best.alpha * a, best.c * c).score <= best.score + 1e-6


def test_used_times_are_where_the_distance_has_fallen() -> None:
    curve = distance_curve(random_codebook())
    found = evaluate(curve, 0.8, 4.0)
    for t, share in zip((found.used_from, found.used_to), (0.99, 0.01), strict=True):
        beta = 4.0 * (t / (1 - t)) ** 0.8
        assert float(curve.at(np.array([beta]))[0] / curve.mean[0]) == pytest.approx(
            share, rel=1e-3
        )


@pytest.mark.parametrize("levels", [[4, 4, 4, 4, 4], [8, 5, 5, 5]])
def test_the_linear_schedule_is_linear(levels: list[int]) -> None:
    codebook = FiniteScalarQuantizer(levels).codebook
    curve = distance_curve(codebook)
    schedule = LinearSchedule.of(curve)
    t = torch.linspace(0, 0.98, 99, dtype=torch.float64)
    mean = torch.from_numpy(curve.at(schedule.beta(t).numpy()))
    assert float(torch.corrcoef(torch.stack([t, mean]))[0, 1]) == pytest.approx(-1, abs=1e-8)
    torch.testing.assert_close(mean / mean[0], 1 - t, atol=1e-4, rtol=0)
    drawn = MetricPath(codebook, schedule)
    x_1 = torch.randint(drawn.num_codes, (20_000,), generator=torch.Generator().manual_seed(0))
    x_t = drawn.corrupt(x_1, 0.6, torch.Generator().manual_seed(1))
    distance = float(drawn.distances.pairs(x_t, x_1).sqrt().mean())
    assert distance / curve.mean[0] == pytest.approx(0.4, abs=0.015)


@pytest.mark.parametrize("schedule", ["power", "linear"])
def test_the_derivative_of_the_sharpness(schedule: str) -> None:
    curve = distance_curve(random_codebook())
    made = PowerSchedule(0.9, 4.0) if schedule == "power" else LinearSchedule.of(curve)
    t = torch.cat([torch.linspace(0.01, 0.99, 60), torch.tensor([0.9999, 0.999999])]).double()
    h = 1e-8
    slope = (made.beta(t + h) - made.beta(t - h)) / (2 * h)
    torch.testing.assert_close(made.dbeta(t), slope, rtol=2e-4, atol=1e-6)
    ends = made.beta(torch.tensor([0.0, 1.0]))
    assert ends.tolist() == [0.0, float("inf")]


def test_tables_that_do_not_rise_are_refused() -> None:
    good = {"times": (0.0, 0.5), "log_beta": (0.0, 1.0), "slopes": (1.0, 2.0)}
    LinearSchedule(**good)
    for key, bad in (
        ("times", (0.0, 1.0)),
        ("times", (0.1, 0.5)),
        ("log_beta", (0.0, 0.0)),
        ("slopes", (1.0, float("nan"))),
    ):
        with pytest.raises(UsageError, match="doesn't rise"):
            LinearSchedule(**{**good, key: bad})


def test_counts_must_belong_to_the_codebook() -> None:
    for counts in (torch.ones(7), torch.zeros(25)):
        with pytest.raises(UsageError, match="counts of codes"):
            distance_curve(random_codebook(), counts)
