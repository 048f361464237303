import itertools
import math

import pytest
import torch

from ursa_core.bundle.options import SamplingOptions
from ursa_core.path.mixture import MaskedPath
from ursa_core.sampling.conditioning import SamplingStart
from ursa_core.sampling.denoise import denoise
from ursa_core.sampling.time_grid import time_grid

K, L = 12, 40
PATH = MaskedPath(K)
PROMPT = torch.zeros(1, 1, dtype=torch.int64)
SHARPNESS = torch.randn(L, generator=torch.Generator().manual_seed(0)).exp()


def network(_: torch.Tensor, x_t: torch.Tensor) -> torch.Tensor:
    """Surer of some positions than of others: each wants code (position mod K)."""
    wanted = torch.nn.functional.one_hot(torch.arange(L) % K, K)
    return (SHARPNESS[:, None] * wanted).expand(len(x_t), L, K)


def run(steps: int, x_t: torch.Tensor, **options: float) -> list[torch.Tensor]:
    states, start = [x_t], SamplingStart(x_t, time_grid(steps))
    denoise(
        network, lambda hidden: hidden, PATH, start, SamplingOptions(**options),
        prompt_ids=PROMPT, negative_ids=None, generators=[torch.Generator().manual_seed(1)],
        on_step=lambda _, x: states.append(x),
    )  # fmt: skip
    return states


def all_masks() -> torch.Tensor:
    return PATH.initial((1, L), torch.Generator())


def test_masks_follow_the_cosine_schedule_and_codes_stay() -> None:
    states = run(8, all_masks())
    left = [int((x == PATH.mask_id).sum()) for x in states]
    assert left == [math.floor(L * math.cos(math.pi / 2 * i / 8) + 1e-9) for i in range(9)]
    for before, after in itertools.pairwise(states):
        shown = before != PATH.mask_id
        assert torch.equal(after[shown], before[shown])


def test_the_surest_come_first_without_choice_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ursa_core.sampling.denoise.CHOICE_TEMPERATURE", 0.0)
    states = run(8, all_masks(), temperature=0.0)
    shown_first = states[3][0] != PATH.mask_id
    assert 0 < int(shown_first.sum()) < L
    assert float(SHARPNESS[shown_first].min()) > float(SHARPNESS[~shown_first].max())
    monkeypatch.setattr("ursa_core.sampling.denoise.CHOICE_TEMPERATURE", 50.0)
    noisy = run(8, all_masks(), temperature=0.0)
    assert not torch.equal(noisy[3], states[3])


def test_more_steps_than_masks_end_early_and_each_reveals_one() -> None:
    x_t = all_masks()
    x_t[:, 5:] = 3
    states = run(30, x_t)
    assert [int((x == PATH.mask_id).sum()) for x in states] == [5, 4, 3, 2, 1, 0]
    assert torch.equal(states[-1][:, 5:], x_t[:, 5:])


def test_all_are_revealed_in_one_step() -> None:
    assert int((run(1, all_masks())[-1] == PATH.mask_id).sum()) == 0
