"""Given frames in the sampler: what stays, what starts where, and what can't be given."""

import itertools

import pytest
import torch

from ursa_core.bundle.options import SamplingOptions
from ursa_core.errors import ShapeError, UsageError
from ursa_core.grids import LatentGrid
from ursa_core.path.metric import MetricPath
from ursa_core.path.mixture import MaskedPath, MixturePath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.sampling.conditioning import Conditioning
from ursa_core.sampling.denoise import denoise
from ursa_core.sampling.time_grid import time_grid, times_from

K, GRID = 20, LatentGrid(4, 2, 3)
DRAWS = torch.Generator().manual_seed(0)
PATH = MetricPath(torch.randn(K, 3, generator=DRAWS), PowerSchedule(1.0, 5.0))
CODES = torch.randint(0, K, (4, 2, 3), generator=DRAWS)
FIRST = torch.tensor([True, False, False, False])
ENDS = torch.tensor([True, False, False, True])
EVERY = torch.ones(4, dtype=torch.bool)
WEIGHT = torch.randn(8, K, generator=DRAWS)
STATES = torch.randn(K + 1, 8, generator=DRAWS)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sampled(
    conditioning: Conditioning,
    steps: int = 8,
    path: MetricPath | MixturePath | MaskedPath = PATH,
    solver: str | None = None,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """x_t after each step, the start first, and the finished codes, all (F, H, W)."""
    x_0 = path.initial((1, GRID.num_codes), seeded(1))
    start = conditioning.start(path, x_0, time_grid(steps), GRID, seeded(2))
    seen = [start.x_start]

    def network(_: torch.Tensor, x_t: torch.Tensor) -> torch.Tensor:
        states = STATES[x_t]
        return states + states.mean(1, keepdim=True)

    x_1 = denoise(
        network, lambda hidden: hidden @ WEIGHT, path, start, SamplingOptions(solver=solver),
        negative_ids=None, prompt_ids=torch.zeros(1, 1).long(), generators=[seeded(3)],
        on_step=lambda _, x_t: seen.append(x_t),
    )  # fmt: skip
    return [x_t.view(CODES.shape) for x_t in seen], conditioning.finish(x_1).view(CODES.shape)


@pytest.mark.parametrize("noise", [0.0, 0.4])
@pytest.mark.parametrize("frames", [FIRST, ENDS])
def test_locked_frames_come_back_exactly_and_never_move(frames, noise):
    seen, x_1 = sampled(Conditioning(CODES, frames, "lock", noise))
    assert torch.equal(x_1[frames], CODES[frames])
    assert all(torch.equal(x_t[frames], seen[0][frames]) for x_t in seen)
    assert torch.equal(seen[0][frames], CODES[frames]) == (noise == 0)
    assert not torch.equal(x_1[~frames], CODES[~frames])


def test_what_is_given_changes_the_other_frames():
    _, one = sampled(Conditioning(CODES, FIRST))
    _, two = sampled(Conditioning((CODES + 1) % K, FIRST))
    assert not torch.equal(one[1:], two[1:])


def test_codes_at_frames_that_are_not_given_change_nothing():
    other = torch.where(FIRST[:, None, None], CODES, (CODES + 7) % K)
    for cond in ("soft", "lock"):
        _, one = sampled(Conditioning(CODES, FIRST, cond, 0.3))
        _, two = sampled(Conditioning(other, FIRST, cond, 0.3))
        assert torch.equal(one, two)


@pytest.mark.parametrize("path", [PATH, MixturePath(K), MaskedPath(K)])
@pytest.mark.parametrize("solver", ["integrated", "euler"])
def test_soft_frames_without_noise_stay_as_locked_ones_do(path, solver):
    _, soft = sampled(Conditioning(CODES, ENDS, "soft"), path=path, solver=solver)
    _, lock = sampled(Conditioning(CODES, ENDS, "lock"), path=path, solver=solver)
    assert torch.equal(soft, lock)


def test_soft_frames_stand_until_the_rest_has_come_to_their_time_and_move_from_there():
    conditioning = Conditioning(CODES, FIRST, "soft", 0.5)
    x_0 = PATH.initial((1, GRID.num_codes), seeded(1))
    start = conditioning.start(PATH, x_0, time_grid(8), GRID, seeded(2))
    times = start.times.view(9, 4, 6)
    assert torch.equal(times[:, 1], time_grid(8)[:, None].expand(-1, 6))
    assert torch.equal(times[:, 0], time_grid(8).clamp(min=0.5)[:, None].expand(-1, 6))
    seen, x_1 = sampled(conditioning)
    assert all(torch.equal(x_t[0], seen[0][0]) for x_t in seen[:5])
    assert not torch.equal(x_1[0], seen[0][0])
    assert all(not torch.equal(a[1:], b[1:]) for a, b in itertools.pairwise(seen[:5]))


def test_less_noise_keeps_more_of_what_is_given():
    shares = []
    for noise in (0.9, 0.5, 0.1, 0.0):
        x_0 = torch.zeros(1, GRID.num_codes).long()
        alike = [
            Conditioning(CODES, FIRST, "soft", noise)
            .start(PATH, x_0, time_grid(4), GRID, seeded(seed))
            .x_start.view(CODES.shape)[0]
            == CODES[0]
            for seed in range(100)
        ]
        shares.append(torch.stack(alike).float().mean().item())
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] == 1.0


def test_a_whole_clip_starts_at_its_time_and_takes_the_steps_after_it():
    start = Conditioning(CODES, EVERY, "soft", 0.3).start(
        PATH, torch.zeros(1, GRID.num_codes).long(), time_grid(10), GRID, seeded(2)
    )
    torch.testing.assert_close(start.times, torch.tensor([0.7, 0.8, 0.9, 1.0]))
    assert start.locked is None
    seen, x_1 = sampled(Conditioning(CODES, EVERY, "soft", 0.3), steps=10)
    assert len(seen) == 4
    assert x_1.max() < K


def test_a_start_between_two_steps_shortens_the_first():
    times = times_from(time_grid(4), 0.6)
    torch.testing.assert_close(times, torch.tensor([0.6, 0.75, 1.0]))
    assert torch.equal(times_from(time_grid(4), 0.0), time_grid(4))


def test_the_masked_path_takes_locked_frames():
    path = MaskedPath(K)
    for noise in (0.0, 0.5):
        seen, x_1 = sampled(Conditioning(CODES, ENDS, "lock", noise), path=path)
        assert torch.equal(x_1[ENDS], CODES[ENDS])
        assert bool((seen[0][ENDS] == path.mask_id).any()) == (noise > 0)
        assert x_1.max() < K


@pytest.mark.parametrize(
    ("conditioning", "error", "named"),
    [
        (Conditioning(CODES[:3], FIRST[:3]), ShapeError, "3×2×3"),
        (Conditioning(CODES, ~EVERY), UsageError, "no frame"),
        (Conditioning(CODES, EVERY), UsageError, "nothing to make"),
        (Conditioning(CODES, EVERY, "soft"), UsageError, "nothing to make"),
        (Conditioning(CODES, FIRST, "soft", 1.5), UsageError, "1.5"),
        (Conditioning(CODES, FIRST, "soft", float("nan")), UsageError, "nan"),
    ],
)
def test_what_cannot_be_given_is_refused(conditioning, error, named):
    with pytest.raises(error, match=named):
        sampled(conditioning)
