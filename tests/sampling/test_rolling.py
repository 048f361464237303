"""The rolling diagonal: times of its stages, and what a stage leaves as it was."""

import itertools
from dataclasses import replace

import pytest
import torch

from ursa_core.bundle.bundle import load_bundle
from ursa_core.sampling.generate import Request, Sampler
from ursa_core.sampling.rolling import roll_on, stage_steps, stage_times
from ursa_core.sampling.time_grid import time_grid
from ursa_core.seeding import stream


@pytest.mark.parametrize(("steps", "frames"), [(25, 3), (4, 3), (2, 3), (12, 4), (5, 1)])
def test_every_frame_goes_through_all_times_in_turn(steps, frames):
    times = time_grid(steps, 3.0)
    stages = [stage_times(times, frames, stage) for stage in range(frames)]
    assert all(len(stage) == 1 + stage_steps(steps, frames) for stage in stages)
    for stage in stages:
        assert (stage[1:] >= stage[:-1]).all()
        assert (stage[:, 1:] <= stage[:, :-1]).all()  # earlier frames are ahead
    passed = [stages[0][:, 0], *(stage[1:, 0] for stage in stages[1:])]
    assert torch.equal(torch.unique(torch.cat(passed)), times)
    assert stages[-1][-1, 0] == 1
    for one, following in itertools.pairwise(stages):
        assert torch.equal(one[-1], following[0])
    # From the last stage on the window moves up by one frame, and the times begin again.
    assert torch.equal(stages[-1][-1, 1:], stages[-1][0, :-1])
    assert torch.equal(stage_times(times, frames, frames + 5), stages[-1])


def test_a_stage_keeps_what_is_given_and_draws_fresh_noise_at_the_end(tiny_model):
    bundle = load_bundle(tiny_model)
    options = replace(bundle.settings.defaults, steps=4)
    clip = Sampler(bundle, [Request("a red circle moves right", 2, options=options)])
    shape = (clip.grid.frames, clip.grid.rows, clip.grid.columns)
    codes = torch.randint(bundle.path.num_codes, shape, generator=stream(0, "codes"))

    def rolled(codes, cond_noise=0.0, first=False, seed=1):
        return roll_on(clip, codes, 1, cond_noise, first, stream(seed, "noise"))

    for noise, first in itertools.product((0.0, 0.5), (False, True)):
        assert torch.equal(rolled(codes, noise, first)[0], codes[0])
    other = codes.clone()
    other[-1] = 0  # is drawn anew in any case
    assert torch.equal(rolled(codes), rolled(other))
    other[1] = 0  # on its way: counts, unless all begins
    assert not torch.equal(rolled(codes), rolled(other))
    assert torch.equal(rolled(codes, first=True), rolled(other, first=True))
    assert not torch.equal(rolled(codes)[-1], rolled(codes, seed=5)[-1])
