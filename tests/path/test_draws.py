import pytest
import torch
from scipy import stats

from ursa_core.path.draws import exp2_, pick, uniforms


@pytest.mark.parametrize("num_entries", [2, 63, 64, 65, 200, 64000])
def test_picks_exactly_where_the_running_sum_passes(num_entries: int) -> None:
    weights = torch.rand(40, num_entries, generator=torch.Generator().manual_seed(0))
    weights[torch.rand_like(weights) < 0.5] = 0
    weights[:, 1] = 0.5
    uniform = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    running = weights.double().cumsum(1)
    expected = (running <= uniform[:, None] * running[:, -1:]).sum(1)
    picked = pick(weights, uniform)
    assert float(weights.gather(1, picked[:, None]).min()) > 0
    # Block sums are rounded to float32, so a target within that of a border may fall beside it.
    near = running.gather(1, torch.minimum(picked, expected)[:, None])[:, 0] / running[:, -1]
    assert bool(((picked == expected) | ((near - uniform).abs() < 1e-6)).all())
    assert float((picked == expected).double().mean()) > 0.9


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53, 1.0])
@pytest.mark.parametrize("only", [0, 63, 64, 129])
def test_never_picks_weight_zero(uniform: float, only: int) -> None:
    weights = torch.zeros(1, 130)
    weights[0, only] = 1e-38
    assert int(pick(weights, torch.tensor([uniform], dtype=torch.float64))) == only


def test_shares_are_the_weights() -> None:
    weights = torch.rand(150, generator=torch.Generator().manual_seed(0)).square()
    uniform = torch.rand(60000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    counts = torch.bincount(pick(weights.expand(60000, 150), uniform), minlength=150).double()
    expected = weights.double() / weights.double().sum() * 60000
    kept = expected > 5
    chi_square = float(((counts - expected).square() / expected)[kept].sum())
    assert stats.chi2.sf(chi_square, int(kept.sum())) > 1e-4


def test_uniforms_of_an_item_are_its_own() -> None:
    device = torch.device("cpu")
    both = uniforms((2, 5), [torch.Generator().manual_seed(s) for s in (7, 8)], device)
    assert torch.equal(both[1:], uniforms((1, 5), [torch.Generator().manual_seed(8)], device))
    with pytest.raises(ValueError, match="1 generators for 2 items"):
        uniforms((2, 5), [torch.Generator()], device)


def test_exp2_has_a_floor_of_normal_numbers() -> None:
    result = exp2_(torch.tensor([0.0, -3.0, -1e30]))
    assert result.tolist() == [1, 0.125, 2**-126]
