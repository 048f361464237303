"""Paths of two outcomes: a code is x_1 with probability t, otherwise any code, or the mask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.base import ProbPath, Span, Times
from ursa_core.path.draws import Randomness, uniforms


class MixturePath(ProbPath):
    """p_t(x | x_1) = t·[x = x_1] + (1 − t)/K, K of 2 or more; jumps to x_1 have rate 1/(1 − t)."""

    def __init__(self, num_codes: int, dtype: torch.dtype = torch.float32) -> None:
        if num_codes < 2:
            raise UsageError(f"{num_codes} codes make no path", "use two codes or more")
        self.num_codes = self.num_states = num_codes
        self.dtype = dtype
        self._noise_probs = torch.full((num_codes,), 1 / num_codes, dtype=dtype)

    def corrupt(self, x_1: Tensor, t: Times, generator: Randomness) -> Tensor:
        """x_t drawn from p_t(x | x_1): int64, the shape of ``x_1``."""
        keep = uniforms(x_1.shape, generator, x_1.device) < self._times(t, x_1)
        return torch.where(keep, x_1, self.initial(x_1.shape, generator, x_1.device))

    def conditional_probs(self, x_1: Tensor, t: Times) -> Tensor:
        """p_t(x | x_1) of every state: (..., num_states), rows sum to 1."""
        times = self._times(t, x_1)[..., None]
        return times * self._one_hot(x_1) + (1 - times) * self._noise_probs.to(x_1.device)

    def jump_rates(self, x_t: Tensor, x_1: Tensor, t: Times) -> Tensor:
        """Rates per unit of t from x_t to x_1: (..., num_states), 0 at others; t < 1."""
        times = self._times(t, x_1)
        if bool((times == 1).any()):
            raise UsageError("the jump rates are infinite at t = 1", "keep t below 1")
        jumps = x_t != self.finish(x_t, x_1)
        return self._one_hot(x_1) * (jumps / (1 - times))[..., None]

    def _jump(
        self, x_t: Tensor, x_1: Tensor, span: Span, generator: Randomness, solver: str
    ) -> Tensor:
        start, end = span
        # The integral of the rate is −log((1 − end)/(1 − start)): the jump's probability is the
        # fraction itself.
        chance = torch.where(start < end, (end - start) / (1 - start), 0.0)
        if solver == "euler":
            chance = -torch.expm1(-chance)
        jumps = uniforms(x_t.shape, generator, x_t.device) < chance
        return torch.where(jumps, self.finish(x_t, x_1), x_t)

    def _one_hot(self, x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(x, self.num_states).to(self.dtype)


class MaskedPath(MixturePath):
    """p_t(x | x_1) = t·[x = x_1] + (1 − t)·[x = mask], with the mask as state K.

    The chain reveals each code once and never changes it again, unless a step corrects: then it
    becomes a mask again with probability 1 − t, so that later steps decide on it once more. A path
    of no codes is a UsageError.
    """

    solvers = ("maskgit", "integrated", "euler")

    def __init__(self, num_codes: int, dtype: torch.dtype = torch.float32) -> None:
        if num_codes < 1:
            raise UsageError(f"{num_codes} codes make no path", "use one code or more")
        super().__init__(num_codes + 1, dtype)
        self.num_codes = self.mask_id = num_codes
        self._noise_probs = self._one_hot(torch.tensor(self.mask_id))

    def initial(
        self, shape: Sequence[int], generator: Randomness, device: torch.device | str = "cpu"
    ) -> Tensor:
        """x_0: int64, the mask everywhere."""
        return torch.full(tuple(shape), self.mask_id, device=device)

    def loss_mask(self, x_t: Tensor) -> Tensor:
        """Which codes are masked: bool, the shape of ``x_t``."""
        return x_t == self.mask_id
