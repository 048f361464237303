"""What makes a path a path, checked in float64 on small codebooks for all three of them."""

import math

import pytest
import torch
from scipy import stats

from ursa_core.errors import UsageError
from ursa_core.path.base import ProbPath
from ursa_core.path.calibration import distance_curve
from ursa_core.path.metric import MetricPath, num_nodes, quadrature
from ursa_core.path.mixture import MaskedPath, MixturePath
from ursa_core.path.schedules import LinearSchedule, PowerSchedule

K = 14
TWIN_OF_3 = 11


def small_codebook(num_codes: int = K) -> torch.Tensor:
    codebook = torch.randn(
        num_codes, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    codebook[TWIN_OF_3] = 2 * codebook[3]
    return codebook


POWERS = {"metric": (1.0, 5.0), "metric-half": (0.5, 6.0), "metric-steep": (1.7, 3.0)}
PATHS = {
    **{name: MetricPath(small_codebook(), PowerSchedule(*at)) for name, at in POWERS.items()},
    "metric-linear": MetricPath(
        small_codebook(), LinearSchedule.of(distance_curve(small_codebook()))
    ),
    "mixture": MixturePath(K, torch.float64),
    "masked": MaskedPath(K, torch.float64),
}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> ProbPath:
    return PATHS[request.param]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rate_matrix(path: ProbPath, x_1: int, t: float) -> torch.Tensor:
    """Rates [from, to], with the outflow on the diagonal."""
    states = torch.arange(path.num_states)
    rates = path.jump_rates(states, torch.full_like(states, x_1), t)
    return rates - torch.diag(rates.sum(-1))


def probs(path: ProbPath, x_1: int, t: float | torch.Tensor) -> torch.Tensor:
    return path.conditional_probs(torch.tensor([x_1]), t)[0]


@pytest.mark.parametrize("t", [0.0, 0.03, 0.4, 0.8, 0.999, 1.0])
def test_rows_sum_to_one(path: ProbPath, t: float) -> None:
    rows = path.conditional_probs(torch.arange(K), t)
    assert rows.shape == (K, path.num_states)
    assert float(rows.min()) >= 0
    torch.testing.assert_close(rows.sum(-1), torch.ones(K, dtype=torch.float64))


def test_noise_at_zero(path: ProbPath) -> None:
    expected = torch.full((K, path.num_states), 1 / K, dtype=torch.float64)
    if isinstance(path, MaskedPath):
        expected = torch.zeros(K, K + 1, dtype=torch.float64)
        expected[:, K] = 1
    torch.testing.assert_close(path.conditional_probs(torch.arange(K), 0.0), expected)
    x_0 = path.initial((4000,), generator())
    shares = torch.bincount(x_0, minlength=path.num_states) / 4000
    assert float((shares - expected[0]).abs().max()) < 0.02


@pytest.mark.parametrize("t", [1 - 1e-9, 1.0])
def test_data_or_its_twins_evenly_at_one(path: ProbPath, t: float) -> None:
    expected = torch.eye(K, path.num_states, dtype=torch.float64)
    # At alpha = 1/2, beta is still 2e5 here, and that is sharp enough for this codebook.
    if isinstance(path, MetricPath):
        for a, b in ((3, TWIN_OF_3), (TWIN_OF_3, 3)):
            expected[a, a] = expected[a, b] = 0.5
    rows = path.conditional_probs(torch.arange(K), t)
    torch.testing.assert_close(rows, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("t", [0.01, 0.3, 0.97])
def test_rates_are_never_negative_and_lead_nearer(path: ProbPath, t: float) -> None:
    states = torch.arange(path.num_states)
    for x_1 in range(K):
        rates = path.jump_rates(states, torch.full_like(states, x_1), t)
        assert float(rates.min()) >= 0
        assert float(rates.diagonal().abs().max()) == 0
        assert float(rates[x_1].sum()) == 0
        # Where the chain leads, probability grows faster than where it comes from.
        now, soon = probs(path, x_1, t), probs(path, x_1, t + 1e-4)
        likely = soon > 1e-250
        rates, growth = rates[likely][:, likely], (soon / now.clamp(min=1e-300))[likely]
        assert bool((growth[None, :] > growth[:, None])[rates > 0].all())


@pytest.mark.parametrize("t", [0.02, 0.25, 0.6, 0.93])
def test_kolmogorov_equation_holds(path: ProbPath, t: float) -> None:
    at, h = torch.tensor(t, dtype=torch.float64), 1e-5
    for x_1 in (0, 3, 9):
        change = torch.autograd.functional.jacobian(lambda s, x=x_1: probs(path, x, s), at)
        flow = probs(path, x_1, t) @ rate_matrix(path, x_1, t)
        scale = float(change.abs().max())
        torch.testing.assert_close(flow, change, atol=1e-9 * scale, rtol=0)
        difference = (probs(path, x_1, t + h) - probs(path, x_1, t - h)) / (2 * h)
        torch.testing.assert_close(flow, difference, atol=1e-5 * scale + 1e-10, rtol=0)


@pytest.mark.parametrize("name", ["metric", "metric-steep", "mixture", "masked"])
def test_many_small_euler_steps_land_on_the_marginal(name: str) -> None:
    path = PATHS[name]
    marginal, steps, end = probs(path, 5, 0.0), 1000, 0.9
    for i in range(steps):
        rates = rate_matrix(path, 5, end * (i + 0.5) / steps)
        marginal = marginal + end / steps * (marginal @ rates)
    torch.testing.assert_close(marginal, probs(path, 5, end), atol=1e-3, rtol=0)


@pytest.mark.parametrize("solver", ["integrated", "euler"])
def test_drawn_steps_follow_the_marginal(path: ProbPath, solver: str) -> None:
    draws = generator(3)
    x_1 = torch.full((8000,), 5)
    x_t = path.corrupt(x_1, 0.1, draws)
    for t in torch.arange(0.1, 0.799, 0.02):
        x_t = path.step(x_t, x_1, float(t), min(float(t) + 0.02, 0.8), draws, solver)
    shares = torch.bincount(x_t, minlength=path.num_states) / len(x_t)
    assert float((shares - probs(path, 5, 0.8)).abs().sum()) / 2 < 0.03


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9])
def test_corruption_matches_the_probabilities(path: ProbPath, t: float) -> None:
    draws = path.corrupt(torch.full((200, 100), 3), t, generator(5)).flatten()
    expected = probs(path, 3, t) * len(draws)
    likely = expected > 5
    counts = torch.bincount(draws, minlength=path.num_states).double()
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    wanted = torch.cat([expected[likely], expected[~likely].sum()[None]])
    assert float(counts[expected < 1e-6].sum()) == 0
    if int(likely.sum()) > 1:
        chi_square = float(((observed - wanted).square() / wanted.clamp(min=1)).sum())
        assert stats.chi2.sf(chi_square, int(likely.sum())) > 1e-4


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize(
    ("start", "end"), [(0.0, 0.04), (0.0, 0.5), (0.5, 0.54), (0.9, 0.96), (0.96, 0.998)]
)
def test_integrated_rates_equal_a_fine_integral(name: str, start: float, end: float) -> None:
    path = PATHS[name]
    assert isinstance(path, MetricPath)
    x_t, x_1 = torch.tensor([0]), torch.tensor([9])

    def total(t: torch.Tensor) -> torch.Tensor:
        return path.jump_rates(x_t.expand_as(t), x_1.expand_as(t), t).sum(-1)

    # In s = t^alpha the rates stay finite at 0 for every alpha.
    alpha, c = POWERS[name]
    edges = torch.linspace(start**alpha, end**alpha, 20001, dtype=torch.float64)
    s, power = (edges[1:] + edges[:-1]) / 2, 1 / alpha
    exact = float((total(s**power) * power * s ** (power - 1) * edges.diff()).sum())
    ends = torch.tensor([[start], [end]], dtype=torch.float64)
    betas = path.schedule.beta(ends)
    nodes, measures = quadrature(*betas, int(num_nodes(*betas)))
    odds = (nodes / c) ** power
    times = (odds / (1 + odds)).flatten()
    summed = float((total(times) / path.schedule.dbeta(times) * measures[:, 0]).sum())
    assert summed == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(("name", "end"), [("metric", 0.3), ("metric-half", 0.1)])
def test_integrated_step_jumps_with_the_probability_of_the_integral(name: str, end: float) -> None:
    path = PATHS[name]
    x_t, x_1 = torch.zeros(40000, dtype=torch.int64), torch.full((40000,), 9)
    fine = torch.linspace(0, 1, 4001, dtype=torch.float64)[1:].sub(1 / 8000).square() * end
    widths = torch.linspace(0, 1, 4001, dtype=torch.float64).square().diff() * end
    rates = path.jump_rates(x_t[:4000], x_1[:4000], fine) * widths[:, None]
    moved = path.step(x_t, x_1, 0.0, end, generator(2))
    chance = 1 - math.exp(-float(rates.sum()))
    share = float((moved != 0).double().mean())
    assert 0.1 < chance < 0.95
    assert share == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / 40000))
    landed = torch.bincount(moved[moved != 0], minlength=K) / (moved != 0).sum()
    assert float((landed - rates.sum(0) / rates.sum()).abs().sum()) / 2 < 0.02


def test_euler_at_zero_never_jumps_on_the_metric_path() -> None:
    path = PATHS["metric"]
    x_0, x_1 = path.initial((500,), generator()), torch.full((500,), 5)
    assert torch.equal(path.step(x_0, x_1, 0.0, 0.3, generator(1), "euler"), x_0)
    assert not torch.equal(path.step(x_0, x_1, 0.0, 0.3, generator(1)), x_0)


def test_a_step_to_one_ends_at_data(path: ProbPath) -> None:
    x_1 = torch.full((3000,), 3)
    x_t = path.initial((3000,), generator())
    done = path.step(x_t, x_1, 0.5, 1.0, generator(1))
    ends = {3, TWIN_OF_3} if isinstance(path, MetricPath) else {3}
    assert set(done.tolist()) == ends
    if isinstance(path, MetricPath):
        assert float((done == 3).double().mean()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("solver", ["integrated", "euler"])
def test_a_step_of_no_length_changes_nothing(path: ProbPath, t: float, solver: str) -> None:
    x_t = path.initial((300,), generator())
    assert torch.equal(path.step(x_t, torch.full((300,), 2), t, t, generator(), solver), x_t)


def test_each_position_may_have_its_own_time(path: ProbPath) -> None:
    x_1 = torch.randint(K, (2, 6), generator=generator())
    t = torch.tensor([[0.1], [0.7]])
    both = path.conditional_probs(x_1, t)
    torch.testing.assert_close(both[1], path.conditional_probs(x_1[1], 0.7))
    still = torch.tensor([True, False] * 3)
    x_t = path.initial((2, 6), generator(4))
    moved = path.step(x_t, x_1, 0.2, torch.where(still, 0.2, 0.999999999), generator(5))
    assert torch.equal(moved[:, still], x_t[:, still])
    assert not torch.equal(moved[:, ~still], x_t[:, ~still])


@pytest.mark.parametrize("chunk_bytes", [1, 4 * K * 7])
def test_chunks_change_nothing(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = MetricPath(small_codebook().float(), PowerSchedule(1.0, 5.0))
    x_1 = torch.randint(K, (3, 20), generator=generator())
    x_t = whole.corrupt(x_1, 0.4, generator(1))
    stepped = whole.step(x_t, x_1, 0.4, 0.6, generator(2))
    monkeypatch.setattr("ursa_core.path.metric._CHUNK_BYTES", {"cpu": chunk_bytes})
    pieces = MetricPath(small_codebook().float(), PowerSchedule(1.0, 5.0))
    assert torch.equal(pieces.corrupt(x_1, 0.4, generator(1)), x_t)
    assert torch.equal(pieces.step(x_t, x_1, 0.4, 0.6, generator(2)), stepped)


def test_one_generator_an_item_ties_nothing_to_the_batch(path: ProbPath) -> None:
    x_1 = torch.randint(K, (3, 20), generator=generator())
    x_t = path.corrupt(x_1, 0.4, [generator(seed) for seed in range(3)])
    assert torch.equal(path.corrupt(x_1[1:2], 0.4, [generator(1)])[0], x_t[1])
    stepped = path.step(x_t, x_1, 0.4, 0.6, [generator(seed) for seed in range(3)])
    alone = path.step(x_t[2:], x_1[2:], 0.4, 0.6, [generator(2)])
    assert torch.equal(alone[0], stepped[2])


def drawn_shares(
    path: ProbPath, start: float, end: float, correct: float, from_path: bool
) -> torch.Tensor:
    """Shares of the states after one step towards code 3, from p_start or the last state."""
    draws, x_1 = generator(6), torch.full((60_000,), 3)
    x_t = path.corrupt(x_1, start, draws) if from_path else x_1 * 0 + path.num_states - 1
    moved = path.step(x_t, x_1, start, end, draws, correct=correct)
    return torch.bincount(moved, minlength=path.num_states).double() / len(x_1)


@pytest.mark.parametrize("end", [0.3, 0.7])
def test_codes_that_are_all_drawn_again_follow_the_path(path: ProbPath, end: float) -> None:
    shares, expected = drawn_shares(path, 0.1, end, 1.0, from_path=False), probs(path, 3, end)
    likely = expected * 60_000 > 5
    chi_square = ((shares - expected).square() / expected)[likely].sum() * 60_000
    assert stats.chi2.sf(float(chi_square), int(likely.sum()) - 1) > 1e-4
    assert float(shares[expected < 1e-12].sum()) == 0


@pytest.mark.parametrize("name", ["metric", "metric-steep"])
def test_a_redraw_leaves_its_share_of_the_jump_s_error(name: str) -> None:
    path, start, end = PATHS[name], 0.05, 0.5
    expected = probs(path, 3, end)

    def error(correct: float) -> float:
        shares = drawn_shares(path, start, end, correct, from_path=True)
        return float((shares - expected).abs().sum()) / 2

    alone = error(0.0)
    assert alone > 0.05  # one jump for a long step
    for correct in (0.3, 0.7):
        assert error(correct) < (1 - correct) * alone + 0.008


def test_without_a_redraw_no_numbers_are_drawn_for_it(path: ProbPath) -> None:
    x_1 = torch.full((50,), 3)
    plain, off = generator(1), generator(1)
    x_t = path.initial((50,), generator())
    first = path.step(x_t, x_1, 0.2, 0.5, plain)
    assert torch.equal(path.step(x_t, x_1, 0.2, 0.5, off, correct=0.0), first)
    assert torch.equal(plain.get_state(), off.get_state())


def test_a_position_whose_time_stands_still_is_never_drawn_again(path: ProbPath) -> None:
    x_t, x_1 = path.initial((400,), generator()), torch.full((400,), 3)
    still = torch.arange(400) < 200
    moved = path.step(x_t, x_1, 0.25, torch.where(still, 0.25, 0.9), generator(1), correct=1.0)
    assert torch.equal(moved[still], x_t[still])
    assert not torch.equal(moved[~still], x_t[~still])


def test_a_bridge_has_the_marginal_of_the_path_and_remembers_its_noise(path: ProbPath) -> None:
    x_1 = torch.full((40_000,), 3)
    x_0 = path.initial(x_1.shape, generator())
    x_t = path.bridge(x_0, x_1, 0.4, generator(1))
    shares = torch.bincount(x_t, minlength=path.num_states).double() / len(x_1)
    expected = probs(path, 3, 0.4)
    sampling_error = float((expected * (1 - expected) / len(x_1)).sqrt().sum()) / 2
    assert float((shares - expected).abs().sum()) / 2 < 0.006 + sampling_error
    if path.num_states == K:  # the masked path has one noise only
        early, others = path.bridge(x_0, x_1, 0.1, generator(1)), x_0 != 3
        kept, at_random = (early == x_0)[others], (early == x_0.roll(1))[others]
        assert float(kept.double().mean()) > 3 * float(at_random.double().mean())
    assert torch.equal(path.bridge(x_0, x_1, 0.0, generator()), x_0)
    ends = path.bridge(x_0, x_1, 1.0, generator()).unique().tolist()
    assert set(ends) <= {3, TWIN_OF_3}


def test_what_cannot_be_is_refused(path: ProbPath) -> None:
    x = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        path.corrupt(x, 1.5, generator())
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        path.corrupt(x, float("nan"), generator())
    with pytest.raises(UsageError, match="infinite"):
        path.jump_rates(x, x + 1, 1.0)
    with pytest.raises(UsageError, match="back in time"):
        path.step(x, x, 0.5, 0.4, generator())
    with pytest.raises(UsageError, match="'heun'"):
        path.step(x, x, 0.5, 0.6, generator(), "heun")
    for correct in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="corrected"):
            path.step(x, x, 0.5, 0.6, generator(), correct=correct)


def test_impossible_paths_are_refused() -> None:
    for alpha, c in ((0.0, 5.0), (-1.0, 5.0), (1.0, 0.0), (1.0, float("inf"))):
        with pytest.raises(UsageError, match="can't shape a path"):
            MetricPath(small_codebook(), PowerSchedule(alpha, c))
    with pytest.raises(UsageError, match="isn't a codebook"):
        MetricPath(torch.zeros(5), PowerSchedule(1.0, 5.0))
    with pytest.raises(UsageError, match="NaN"):
        MetricPath(torch.full((5, 2), float("nan")), PowerSchedule(1.0, 5.0))
    with pytest.raises(UsageError):
        MixturePath(1)
    with pytest.raises(UsageError):
        MaskedPath(0)
