"""Schedules: the sharpness beta of the metric path over time."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.grids import ALPHA_RANGE, C_RANGE
from ursa_core.path.calibration import DistanceCurve


@dataclass(frozen=True)
class PowerSchedule:
    """beta_t = c·(t/(1 − t))^alpha, the paper's: alpha from 0.01 to 100, c from 0.0001 to 10000."""

    alpha: float
    c: float

    def __post_init__(self) -> None:
        for name, (low, high) in {"alpha": ALPHA_RANGE, "c": C_RANGE}.items():
            value = getattr(self, name)
            if not low <= value <= high:
                hint = f"use {low:g} to {high:g}"
                raise UsageError(f"{name} = {value:g} can't shape a path", hint)

    def beta(self, t: Tensor) -> Tensor:
        """Sharpness at times in [0, 1], of their shape."""
        return self.c * (t / (1 - t)) ** self.alpha

    def dbeta(self, t: Tensor) -> Tensor:
        """Derivative in t; infinite at 1, and at 0 if alpha < 1."""
        return self.c * self.alpha * t ** (self.alpha - 1) / (1 - t) ** (self.alpha + 1)


@dataclass(frozen=True)
class LinearSchedule:
    """The sharpness at which the mean distance is (1 − t) of its start, from a table.

    Between the table's times log(1 + beta) is a cubic; beyond the last one beta grows by
    −slope·log(1 − t), as it does if only one distance is left.
    """

    times: tuple[float, ...]  # (M,) times rising from 0, the last below 1
    log_beta: tuple[float, ...]  # (M,) log(1 + beta) at these times, rising from 0
    slopes: tuple[float, ...]  # (M,) derivative of ``log_beta`` in t; another table is a UsageError

    def __post_init__(self) -> None:
        table = torch.tensor([self.times, self.log_beta, self.slopes], dtype=torch.float64)
        rises = bool((table[:2].diff(dim=1) > 0).all()) and bool((table[2] > 0).all())
        starts = table.shape[1] > 1 and table[:2, 0].tolist() == [0.0, 0.0]
        if not (bool(table.isfinite().all()) and rises and starts and self.times[-1] < 1):
            hint = "make it again with: ursa calibrate-path"
            raise UsageError("the path's table of sharpness doesn't rise from 0", hint)

    @staticmethod
    def of(curve: DistanceCurve) -> "LinearSchedule":
        """Inverse of a curve of mean distance, down to a ten-thousandth of its start."""
        kept = curve.mean > 1e-4 * curve.mean[0]
        times = 1 - curve.mean[kept] / curve.mean[0]
        slopes = -curve.mean[0] / curve.slope[kept]
        return LinearSchedule(*(tuple(v.tolist()) for v in (times, curve.log_beta[kept], slopes)))

    def beta(self, t: Tensor) -> Tensor:
        """Sharpness at times in [0, 1], of their shape."""
        cubic, _, beyond = self._parts(t)
        return torch.where(t > self.times[-1], beyond, torch.expm1(cubic)).to(t.dtype)

    def dbeta(self, t: Tensor) -> Tensor:
        """Derivative in t; infinite at 1."""
        cubic, slope, _ = self._parts(t)
        last = self.slopes[-1] * math.exp(self.log_beta[-1]) * (1 - self.times[-1])
        inside = torch.exp(cubic) * slope
        return torch.where(t > self.times[-1], last / (1 - t.double()), inside).to(t.dtype)

    def _parts(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log(1 + beta) and its slope in the table, and beta beyond it."""
        times, values, slopes = (
            torch.tensor(v, dtype=torch.float64, device=t.device)
            for v in (self.times, self.log_beta, self.slopes)
        )
        t = t.double()
        place = (torch.searchsorted(times, t.contiguous(), right=True) - 1).clamp(
            0, len(self.times) - 2
        )
        step = times[place + 1] - times[place]
        u = ((t - times[place]) / step).clamp(0, 1)
        y0, y1 = values[place], values[place + 1]
        m0, m1 = slopes[place] * step, slopes[place + 1] * step
        a, b = 2 * (y0 - y1) + m0 + m1, 3 * (y1 - y0) - 2 * m0 - m1
        cubic = y0 + u * (m0 + u * (b + u * a))
        slope = (m0 + u * (2 * b + u * 3 * a)) / step
        rate = slopes[-1] * torch.exp(values[-1]) * (1 - times[-1])
        beyond = torch.expm1(values[-1]) - rate * torch.log((1 - t) / (1 - times[-1]))
        return cubic, slope, beyond


Schedule = PowerSchedule | LinearSchedule
"""Sharpness over time: 0 at t = 0, infinite at t = 1."""
