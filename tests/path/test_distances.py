import math

import torch

from ursa_core.path.distances import CodebookDistances


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
    torch.testing.assert_close(rows, 1 - torch.eye(9, dtype=torch.float64)[4])


def test_twins_are_codes_in_the_same_direction() -> None:
    codebook = fsq_codebook((7, 5, 5))
    codes = torch.arange(len(codebook))
    twins = CodebookDistances(codebook).rows(codes) == 0
    unit = torch.nn.functional.normalize(codebook.double(), dim=1)
    cosine = unit @ unit.T
    expected = (cosine > 1 - 1e-9) | torch.eye(len(codebook), dtype=torch.bool)
    assert torch.equal(twins, expected)
    assert int(twins.sum()) > len(codebook)
