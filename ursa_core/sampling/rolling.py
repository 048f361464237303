"""A rolling diagonal: frames in a row of times, earlier ones ahead, one done at each stage.

Source: Rolling Diffusion Models (arXiv 2402.09470), on a path of discrete codes: with N new frames
in the window each goes through N stages, in each of them a share of the steps.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ursa_core.sampling.conditioning import Conditioning
from ursa_core.sampling.denoise import OnStep
from ursa_core.sampling.generate import Sampler
from ursa_core.sampling.time_grid import frame_times


def stage_steps(steps: int, num_frames: int) -> int:
    """Steps of a stage, where every frame goes through ``steps`` in ``num_frames`` stages."""
    return -(-steps // num_frames)


def stage_times(times: Tensor, num_frames: int, stage: int) -> Tensor:
    """Times (M + 1, num_frames) of the frames of a window in one stage.

    Every frame goes through ``times`` (N + 1,), from 0 to 1, in as many stages as there are frames,
    counted from 0. Frame j is in stage ``stage`` − j of its own: before the first it is noise. From
    stage num_frames − 1 on, each completes the first frame. Where a share of the steps is shorter
    than another's, its last time is repeated.
    """
    steps = len(times) - 1
    bounds = [k * steps // num_frames for k in range(num_frames + 1)]
    most = stage_steps(steps, num_frames)
    columns = []
    for frame in range(num_frames):
        own = min(stage, num_frames - 1) - frame
        part = times[:1] if own < 0 else times[bounds[own] : bounds[own + 1] + 1]
        columns.append(torch.cat([part, part[-1:].expand(most + 1 - len(part))]))
    return torch.stack(columns, 1)


def roll_on(
    clip: Sampler,
    codes: Tensor,
    num_cond: int,
    cond_noise: float,
    first: bool,
    noise: torch.Generator,
    on_step: OnStep | None = None,
) -> Tensor:
    """Codes int64 (F, H, W) of a window after a stage: its first new frame done, the rest noisy.

    The codes int64 (F, H, W) hold ``num_cond`` frames that stay, seen with a noise of
    ``cond_noise``, then those on their way, the last of them noise that is drawn here by ``noise``.
    With ``first`` all are still noise, and go through stages until the first is done.
    """
    path, grid = clip.bundle.path, clip.grid
    num_new, frames = grid.frames - num_cond, torch.arange(grid.frames)
    given = Conditioning(codes, frames < num_cond, "lock", cond_noise)
    is_noise = (frames >= (num_cond if first else grid.frames - 1)).to(clip.device)
    own = codes.to(clip.device).view(1, -1)
    fresh = path.initial(own.shape, [noise], clip.device)
    x_t = torch.where(is_noise.repeat_interleave(grid.codes_per_frame), fresh, own)
    start = given.start(path, x_t, clip.times, grid, [noise])
    for stage in range(num_new) if first else [num_new - 1]:
        moving = stage_times(clip.times, num_new, stage)
        still = moving.new_full((len(moving), num_cond), 1 - cond_noise)
        times = frame_times(torch.cat([still, moving], 1), grid)
        start = replace(start, x_start=x_t, times=times)
        x_t = clip.run(start, clip.generators("sample", stage), on_step)
    return given.finish(x_t).view(grid.frames, grid.rows, grid.columns)
