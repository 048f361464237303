"""With the exact posterior in place of the network, samples are distributed as the data."""

import pytest
import torch

from ursa_core.bundle.options import SamplingOptions
from ursa_core.path.base import ProbPath
from ursa_core.path.metric import MetricPath
from ursa_core.path.mixture import MaskedPath, MixturePath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.sampling.conditioning import SamplingStart
from ursa_core.sampling.denoise import denoise
from ursa_core.sampling.time_grid import time_grid

K, SAMPLES = 5, 12000
PATHS: dict[str, ProbPath] = {
    "metric": MetricPath(
        torch.randn(K, 3, generator=torch.Generator().manual_seed(4)), PowerSchedule(1.0, 5.0)
    ),
    "metric-half": MetricPath(
        torch.randn(K, 3, generator=torch.Generator().manual_seed(4)), PowerSchedule(0.5, 6.0)
    ),
    "mixture": MixturePath(K),
    "masked": MaskedPath(K),
}


def data() -> torch.Tensor:
    """A joint distribution of two strongly dependent codes: (K, K)."""
    joint = torch.rand(K, K, generator=torch.Generator().manual_seed(0)) ** 6 + 1e-3
    return joint / joint.sum()


def total_variation(
    path: ProbPath, steps: int, solver: str, correct: float = 0.0, wrong_from: float = 0.0
) -> float:
    """Distance between the data and the samples made with the exact posterior.

    With ``wrong_from`` above 0 the chain starts at that time, from codes that are all 0 there.
    """
    joint, times = data(), time_grid(steps)
    if wrong_from:
        times = wrong_from + (1 - wrong_from) * times
    done = [0]

    def network(_: torch.Tensor, x_t: torch.Tensor) -> torch.Tensor:
        likelihood = path.conditional_probs(torch.arange(K), float(times[done[0]]))
        first, second = likelihood[:, x_t[:, 0]].T, likelihood[:, x_t[:, 1]].T
        posterior = joint * first[:, :, None] * second[:, None, :]
        marginals = torch.stack([posterior.sum(2), posterior.sum(1)], dim=1)
        if (trained := path.loss_mask(x_t)) is not None:  # elsewhere a network says anything
            marginals = torch.where(trained[..., None], marginals, 1.0)
        return (marginals / marginals.sum(-1, keepdim=True)).log()

    generator = torch.Generator().manual_seed(7)
    x_0 = path.initial((SAMPLES, 2), generator)
    start = SamplingStart(torch.zeros_like(x_0) if wrong_from else x_0, times)
    x_1 = denoise(
        network, lambda hidden: hidden, path, start,
        SamplingOptions(solver=solver, correct=correct),
        prompt_ids=torch.zeros(SAMPLES, 1, dtype=torch.int64), negative_ids=None,
        generators=generator, on_step=lambda step, _: done.__setitem__(0, step),
    )  # fmt: skip
    assert done == [steps]
    shares = torch.bincount(x_1[:, 0] * K + x_1[:, 1], minlength=K * K) / SAMPLES
    return float((shares - joint.flatten()).abs().sum()) / 2


@pytest.mark.parametrize("name", PATHS)
def test_marginal_of_the_samples_is_the_data(name: str) -> None:
    assert total_variation(PATHS[name], 64, "integrated") < 0.03
    for correct in (0.1, 0.5):
        assert total_variation(PATHS[name], 64, "integrated", correct) < 0.03


@pytest.mark.parametrize("name", ["metric", "mixture"])
def test_a_corrector_forgets_a_wrong_start(name: str) -> None:
    alone, mended = (
        total_variation(PATHS[name], 64, "integrated", correct, wrong_from=0.05)
        for correct in (0.0, 0.2)
    )
    assert mended < alone / 2


@pytest.mark.parametrize("name", ["metric", "mixture", "masked"])
def test_euler_steps_land_there_too(name: str) -> None:
    # Not so at alpha = 1/2: most of the path lies in the first step, which they lose (0.12).
    assert total_variation(PATHS[name], 64, "euler") < 0.04


def test_one_step_is_far_from_the_data() -> None:
    assert total_variation(PATHS["metric"], 1, "integrated") > 0.15


@pytest.mark.parametrize("name", ["metric", "metric-half"])
@pytest.mark.parametrize("steps", [3, 5])
def test_integrated_steps_beat_euler_steps_when_few(name: str, steps: int) -> None:
    path = PATHS[name]
    integrated = total_variation(path, steps, "integrated")
    assert integrated < total_variation(path, steps, "euler") - 0.01
