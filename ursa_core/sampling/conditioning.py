"""Conditioning frames: their start, and their times while the other frames are sampled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ursa_core.errors import ShapeError, UsageError
from ursa_core.grids import LatentGrid
from ursa_core.path.base import ProbPath
from ursa_core.path.draws import Randomness
from ursa_core.sampling.time_grid import frame_times, times_from

Cond = Literal["soft", "lock"]


@dataclass(frozen=True)
class SamplingStart:
    """Codes and times that ``denoise`` starts from."""

    x_start: Tensor  # codes at the first time, int64 (B, L)
    times: Tensor  # time grid (N + 1,), or (N + 1, L) where frames have times of their own
    locked: tuple[Tensor, Tensor] | None = None  # mask (1, L), codes (B, L) that stay


def joined(starts: Sequence[SamplingStart]) -> SamplingStart:
    """The start of several clips in one pass of the network; times and mask are the same."""
    first, x_start = starts[0], torch.cat([each.x_start for each in starts])
    if first.locked is None:
        return SamplingStart(x_start, first.times)
    codes = torch.cat([each.locked[1] for each in starts if each.locked is not None])
    return SamplingStart(x_start, first.times, (first.locked[0], codes))


@dataclass(frozen=True)
class Conditioning:
    """Latent frames that a clip is given (Sec. 3.2.2 of the paper).

    They are first corrupted along the path to t = 1 − ``cond_noise``. With ``soft`` they wait
    until the other frames reach that time and are refined with them from there; without noise that
    never happens. With ``lock`` the network sees them so throughout, and the result has them as
    they were given.
    """

    codes: Tensor  # int64 (F, H, W); those of other frames don't matter
    cond_frames: Tensor  # mask of the conditioning frames, bool (F,)
    cond: Cond = "lock"
    cond_noise: float = 0.0  # noise level in [0, 1]

    def start(
        self, path: ProbPath, x_0: Tensor, times: Tensor, grid: LatentGrid, generator: Randomness
    ) -> SamplingStart:
        """The start of a clip whose other frames start at noise ``x_0``, int64 (B, L).

        ``times`` (N + 1,) are those of the other frames; ``generator`` draws the corruption. Errors
        are those of ``check``.
        """
        self.check(grid)
        t_0 = 1 - self.cond_noise
        mask, codes = self._flat(x_0)
        if self.cond_noise > 0:  # at t = 1 a code may turn into one at distance 0
            codes = path.corrupt(codes, torch.tensor(t_0, device=codes.device), generator)
        x_0 = torch.where(mask, codes, x_0)
        if self.cond == "lock":
            return SamplingStart(x_0, times, (mask, codes))
        starts = torch.where(self.cond_frames.cpu(), t_0, float(times[0]))
        times = times_from(times, float(starts.min()))
        if bool((starts == starts[0]).all()):
            return SamplingStart(x_0, times)
        return SamplingStart(x_0, frame_times(torch.maximum(times[:, None], starts), grid))

    def finish(self, x_1: Tensor) -> Tensor:
        """The sampled codes (B, L) with locked frames as they were given."""
        return torch.where(*self._flat(x_1), x_1) if self.cond == "lock" else x_1

    def _flat(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mask (1, L) and codes (B, L) on the device of ``like`` (B, L)."""
        codes = self.codes.to(like.device).view(1, -1).expand_as(like)
        per_frame = self.codes[0].numel()
        return self.cond_frames.to(like.device).repeat_interleave(per_frame)[None], codes

    def check(self, grid: LatentGrid) -> None:
        """`ShapeError` if codes don't fit; `UsageError` for noise, no frame given or none left."""
        if self.codes.shape != (grid.frames, grid.rows, grid.columns):
            shape = "×".join(map(str, self.codes.shape))
            raise ShapeError(
                f"given codes of {shape} don't fit a grid of {grid}", "encode a clip of its size"
            )
        if not 0 <= self.cond_noise <= 1:
            raise UsageError(
                f"given frames can't have a noise level of {self.cond_noise:g}", "give 0 to 1"
            )
        if not bool(self.cond_frames.any()):
            raise UsageError("no frame is given", "give one, or sample without")
        if bool(self.cond_frames.all()) and (self.cond == "lock" or self.cond_noise == 0):
            hint = "ask for more frames, or give the frames noise and take them as soft"
            raise UsageError("every frame is given, so there is nothing to make", hint)
