"""Path and time grid against outputs of the reference implementation (tests/golden/README.md)."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.sampling.time_grid import time_grid

GOLDEN = Path(__file__).parents[1] / "golden" / "path_reference.safetensors"
FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
SETTINGS = {"ibq": (0.5, 6.0, 2.0), "fsq": (1.0, 5.0, 3.0)}
"""Exponent and factor of the path, and time shift, of each checkpoint."""


def cosmos_codebook() -> torch.Tensor:
    """Vectors of the FSQ codes with levels (8, 8, 8, 5, 5, 5), the first fastest."""
    levels = (8, 8, 8, 5, 5, 5)
    index = torch.arange(math.prod(levels))
    digits = []
    for level in levels:
        digits.append((index % level - level // 2) / (level // 2))
        index = index // level
    return torch.stack(digits, dim=1)


def codebook(kind: str) -> torch.Tensor:
    return cosmos_codebook() if kind == "fsq" else load_file(GOLDEN)["ibq.codebook"].float()


@pytest.fixture(params=SETTINGS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def of_the_rows_largest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(((ours - theirs).abs() / theirs.amax(-1, keepdim=True)).max())


def test_probabilities_and_rates_are_the_references(kind: str) -> None:
    expected = {
        key.removeprefix(f"{kind}."): value
        for key, value in load_file(GOLDEN).items()
        if key.startswith(f"{kind}.")
    }
    alpha, c, _ = SETTINGS[kind]
    path = MetricPath(codebook(kind), PowerSchedule(alpha, c))
    x_1, x_t = expected["path_x1"].long(), expected["path_xt"].long()
    kept = expected["path_prob"].shape[-1]
    assert len(expected["path_t"]) == 5
    for i, t in enumerate(expected["path_t"].tolist()):
        probs = path.conditional_probs(x_1, t)
        rates = path.jump_rates(x_t, x_1, t)
        total = rates.sum(-1)
        # The reference's were stored without x_t's own entry, which is 0 in ours.
        torch.testing.assert_close(total, expected["path_rate_total"][i], rtol=1e-5, atol=0)
        if kept < path.num_codes:
            probs, rates = probs.topk(kept).values, rates.topk(kept).values
        assert of_the_rows_largest(probs, expected["path_prob"][i]) < 1e-5
        assert of_the_rows_largest(rates, expected["path_rate"][i]) < 1e-5


def test_time_grid_is_the_references(kind: str) -> None:
    expected = load_file(GOLDEN)[f"{kind}.timesteps_25"]
    ours = time_grid(25, SETTINGS[kind][2])
    torch.testing.assert_close(ours[:-1], expected, atol=1e-6, rtol=0)
    assert float(ours[-1]) == 1


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the reference's checkpoints aren't here")
def test_codebooks_are_those_of_the_checkpoints(kind: str) -> None:
    file = FIXTURES / f"ursa-tiny-random-{kind}" / "scheduler" / "scheduler_model.pth"
    stored = torch.load(file, weights_only=True)["path.emb"]
    assert torch.equal(codebook(kind), stored.float())
