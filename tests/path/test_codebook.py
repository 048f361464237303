import math

import pytest
import torch

from ursa_core.path.codebook import CodebookDistances, mean_distance


def fsq_codebook(levels: tuple[int, ...]) -> torch.Tensor:
    index = torch.arange(math.prod(levels))
    digits = []
    for level in levels:
        digits.append((index % level - level // 2) / (level // 2))
        index = index // level
    return torch.stack(digits, dim=1)


def test_distances_are_those_of_normalised_vectors() -> None:
    codebook = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = codebook / codebook.norm(dim=1, keepdim=True)
    rows = CodebookDistances(codebook).rows(torch.tensor([4, 0]))
    expected = (unit[[4, 0], None] - unit[None]).square().sum(-1)
    torch.testing.assert_close(rows, expected, atol=1e-12, rtol=0)


def test_the_zero_vector_is_at_distance_one_from_all_others() -> None:
    codebook = fsq_codebook((3, 3))
    rows = CodebookDistances(codebook).rows(torch.tensor([4]))[0]
    assert codebook[4].tolist() == [0, 0]
    torch.testing.assert_close(rows, 1 - torch.eye(9)[4])


def test_twins_are_codes_in_the_same_direction() -> None:
    codebook = fsq_codebook((7, 5, 5))
    codes = torch.arange(len(codebook))
    twins = CodebookDistances(codebook).twins(codes)
    unit = torch.nn.functional.normalize(codebook.double(), dim=1)
    cosine = unit @ unit.T
    expected = (cosine > 1 - 1e-9) | torch.eye(len(codebook), dtype=torch.bool)
    assert torch.equal(twins, expected)
    assert int(twins.sum()) > len(codebook)


def test_mean_distance_is_the_exact_expectation() -> None:
    codebook = torch.randn(25, 3, generator=torch.Generator().manual_seed(2))
    unit = torch.nn.functional.normalize(codebook.double(), dim=1)
    distances = torch.cdist(unit, unit)
    betas = [0.0, 0.7, 30.0]
    expected = [
        float((torch.softmax(-beta * distances**2, dim=1) * distances).sum(1).mean())
        for beta in betas
    ]
    assert mean_distance(codebook, betas).tolist() == pytest.approx(expected, rel=1e-4)
    some = mean_distance(codebook, [0.0], torch.tensor([3]))
    assert float(some) == pytest.approx(float(distances[3].mean()), rel=1e-5)


def test_mean_distance_of_the_published_codebook_is_nearly_linear_in_t() -> None:
    codebook = fsq_codebook((8, 8, 8, 5, 5, 5))
    some = torch.randint(len(codebook), (24,), generator=torch.Generator().manual_seed(0))
    t = torch.arange(50, dtype=torch.float64) / 50
    distance = mean_distance(codebook, 5 * t / (1 - t), some)
    assert float(distance[0]) == pytest.approx(1.3666, abs=0.01)
    correlation = float(torch.corrcoef(torch.stack([t, distance]))[0, 1])
    assert correlation == pytest.approx(-0.9961, abs=0.002)
