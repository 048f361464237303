"""Draws by a table or streamed over blocks follow p_t and the jump rates exactly."""

import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import Tensor

from ursa_core.path.distances import CodebookDistances
from ursa_core.path.draws import uniforms
from ursa_core.path.fast import distance_table
from ursa_core.path.fast import streamed as streamed_draws
from ursa_core.path.fast.distance_table import CodeGrid, DistanceTable
from ursa_core.path.fast.streamed import StreamedDraws
from ursa_core.path.fast.table import TableDraws, bisect
from ursa_core.path.metric import MetricPath, num_nodes, one_node, quadrature
from ursa_core.path.schedules import PowerSchedule
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer

DRAWS = 60_000


def fsq(*levels: int) -> Tensor:
    return FiniteScalarQuantizer(list(levels)).codebook


def random_codebook() -> Tensor:
    return torch.randn(50, 3, generator=torch.Generator().manual_seed(0))


# Grids with equal and with mirrored channels, with both, and a codebook that is none.
CODEBOOKS = {
    "4-4-4": fsq(4, 4, 4),
    "5-3-5": fsq(5, 3, 5),
    "4-5-5-4": fsq(4, 5, 5, 4),
    "random": random_codebook(),
}


def draws_of(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> TableDraws | StreamedDraws:
    distances = CodebookDistances(CODEBOOKS[name])
    if kind == "streamed":
        monkeypatch.setattr(streamed_draws, "_BLOCK", 16)
        return StreamedDraws(distances, 1 << 18)
    monkeypatch.setattr(distance_table, "_BLOCK_ENTRIES", 1000)
    table = DistanceTable.of(CODEBOOKS[name])
    assert table is not None
    return TableDraws(distances, table, 1 << 12)


def check_shares(drawn: Tensor, probs: Tensor) -> None:
    """Chi-square test of draws against probabilities (K,), and nothing impossible."""
    counts = torch.bincount(drawn, minlength=len(probs)).double()
    expected = probs * len(drawn)
    assert float(counts[expected < 1e-7].sum()) == 0
    likely = expected > 5
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    wanted = torch.cat([expected[likely], expected[~likely].sum()[None]])
    chi_square = float(((observed - wanted).square() / wanted.clamp(min=1)).sum())
    assert stats.chi2.sf(chi_square, int(likely.sum())) > 1e-4


@pytest.mark.parametrize("kind", ["table", "streamed"])
@pytest.mark.parametrize("name", CODEBOOKS)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_corruption_is_exact(
    name: str, kind: str, t: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = MetricPath(CODEBOOKS[name], PowerSchedule(1.0, 4.0))
    draws = draws_of(name, kind, monkeypatch)
    for x_1 in (0, 7, len(CODEBOOKS[name]) - 2):
        codes = torch.full((DRAWS,), x_1)
        beta = path.schedule.beta(torch.full((DRAWS,), t))
        noise = uniforms((DRAWS,), torch.Generator().manual_seed(x_1), torch.device("cpu"))
        probs = path.conditional_probs(codes[:1], t)[0].double()
        check_shares(draws.corrupt(codes, beta, noise), probs)


@pytest.mark.parametrize("kind", ["table", "streamed"])
@pytest.mark.parametrize("name", CODEBOOKS)
@pytest.mark.parametrize("solver", ["integrated", "euler"])
def test_jumps_are_exact(
    name: str, kind: str, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = MetricPath(CODEBOOKS[name].double(), PowerSchedule(1.0, 4.0))
    draws = draws_of(name, kind, monkeypatch)
    start, end = 0.3, 0.55
    for x_t, x_1 in ((1, 0), (30, 7), (5, 44)):
        times = torch.linspace(start, end, 1 if solver == "euler" else 2001)
        rates = path.jump_rates(*(torch.full((len(times),), code) for code in (x_t, x_1)), times)
        rule = one_node
        ends = [torch.tensor(start), (end - start) * path.schedule.dbeta(torch.tensor(start))]
        total = rates[0] * (end - start)
        if solver == "integrated":
            total = torch.trapezoid(rates, dx=(end - start) / 2000, dim=0)
            ends[1] = path.schedule.beta(torch.tensor(end))
        ends[0] = path.schedule.beta(ends[0])
        pair = (ends[0].double().repeat(DRAWS), ends[1].double().repeat(DRAWS))
        if solver == "integrated":
            rule = partial(quadrature, nodes=int(num_nodes(*(e[:1] for e in pair))))
        chance = 1 - math.exp(-float(total.sum()))
        probs = total / total.sum() * chance
        probs[x_t] = 1 - chance
        noise = uniforms((DRAWS, 3), torch.Generator().manual_seed(x_t), torch.device("cpu"))
        codes = torch.full((DRAWS,), x_t), torch.full((DRAWS,), x_1)
        check_shares(draws.jump(*codes, pair, rule, noise), probs)


def plain_step(
    path: MetricPath, x_t: Tensor, x_1: Tensor, t: float, t_next: float, generator: torch.Generator
) -> Tensor:
    """Codes (n,) after an Euler step, as the formulas say it, with tensors over all K."""
    rates = path.jump_rates(x_t, x_1, t)  # (n, K)
    total = rates.sum(-1)
    jumps = torch.rand(total.shape, generator=generator) < 1 - torch.exp(-(t_next - t) * total)
    rates[~jumps] = 1.0  # the draw below is then not used, and total may be 0
    destination = torch.multinomial(rates, 1, generator=generator).squeeze(-1)
    return torch.where(jumps, destination, x_t)


@pytest.mark.parametrize("name", CODEBOOKS)
def test_the_fast_step_draws_what_the_plain_step_draws(name: str) -> None:
    path = MetricPath(CODEBOOKS[name], PowerSchedule(1.0, 4.0))
    for x_t, x_1 in ((1, 0), (30, 7), (5, 44)):
        codes = torch.full((DRAWS,), x_t), torch.full((DRAWS,), x_1)
        generator = torch.Generator().manual_seed(x_t)
        plain = plain_step(path, *codes, 0.3, 0.55, generator)
        fast = path.step(*codes, 0.3, 0.55, generator, "euler")
        counts = torch.stack([each.bincount(minlength=path.num_codes) for each in (plain, fast)])
        often = counts.sum(0) > 20
        table = torch.cat([counts[:, often], counts[:, ~often].sum(1, keepdim=True)], dim=1)
        assert stats.chi2_contingency(table[:, table.sum(0) > 0].numpy()).pvalue > 1e-4


@pytest.mark.parametrize("name", CODEBOOKS)
def test_table_and_codebook_agree(name: str) -> None:
    distances = CodebookDistances(CODEBOOKS[name])
    table = DistanceTable.of(CODEBOOKS[name])
    assert table is not None
    assert (table.count.sum(1) == distances.num_codes).all()
    for x_1 in range(distances.num_codes):
        classes = int(table.class_of[x_1])
        row = distances.rows(torch.tensor([x_1]))[0]
        size = table.count[classes].long()
        level = torch.arange(len(size)).repeat_interleave(size)
        place = torch.arange(len(level)) - (size.cumsum(0) - size)[level]
        every = (place + 0.5) / size[level]
        codes = table.member(torch.full_like(level, x_1), level, every)
        torch.testing.assert_close(
            row[codes], table.distance[classes, level], atol=1e-6, rtol=0, check_dtype=False
        )
        assert torch.equal(codes.sort().values, torch.arange(distances.num_codes))


def test_the_published_codebook_has_1200_classes() -> None:
    grid = CodeGrid.of(fsq(8, 8, 8, 5, 5, 5))
    assert grid is not None
    assert len(grid.canonical.unique()) == 1200


def test_large_learned_codebooks_have_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distance_table, "MAX_TABLE_ENTRIES", 2000)
    codebook = random_codebook()
    assert CodeGrid.of(codebook) is None
    assert DistanceTable.of(codebook) is None
    assert DistanceTable.of(fsq(4, 4, 4)) is not None


def test_bisection_finds_the_first_index_beyond() -> None:
    values = torch.tensor([0.0, 1.0, 1.0, 2.0, 5.0])
    target = torch.tensor([-1.0, 0.0, 1.0, 1.5, 5.0])
    beyond = bisect(lambda i: values[i], 5, target)
    assert beyond.tolist() == [0, 1, 3, 3, 5]
    assert bisect(lambda i: values[i], 5, target, or_equal=True).tolist() == [0, 0, 1, 3, 4]
