"""The uniform mixture path: a code is x_1 with probability t, otherwise any code."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.base import ProbPath, Times
from ursa_core.path.draws import Randomness, uniform_codes, uniforms


class MixturePath(ProbPath):
    """p_t(x | x_1) = t·[x = x_1] + (1 − t)/K, with jumps straight to x_1 at rate 1/(1 − t).

    Args:
        num_codes: K, at least 2.

    Raises:
        UsageError: There are fewer than two codes.
    """

    def __init__(self, num_codes: int, dtype: torch.dtype = torch.float32) -> None:
        if num_codes < 2:
            raise UsageError(f"{num_codes} codes make no path", "use two codes or more")
        self.num_codes = self.num_states = num_codes
        self.dtype = dtype

    def initial(
        self, shape: Sequence[int], generator: Randomness, device: torch.device | str = "cpu"
    ) -> Tensor:
        """x_0: int64 codes, each equally likely."""
        return uniform_codes(shape, self.num_codes, generator, device)

    def corrupt(self, x_1: Tensor, t: Times, generator: Randomness) -> Tensor:
        """x_t drawn from p_t(x | x_1): int64, the shape of ``x_1``."""
        keep = uniforms(x_1.shape, generator, x_1.device) < self._times(t, x_1)
        noise = uniform_codes(x_1.shape, self.num_codes, generator, x_1.device)
        return torch.where(keep, x_1, noise)

    def conditional_probs(self, x_1: Tensor, t: Times) -> Tensor:
        """p_t(x | x_1) of every code: (..., K), rows sum to 1."""
        times = self._times(t, x_1)[..., None]
        at_x_1 = torch.nn.functional.one_hot(x_1, self.num_codes).to(self.dtype)
        return times * at_x_1 + (1 - times) / self.num_codes

    def jump_rates(self, x_t: Tensor, x_1: Tensor, t: Times) -> Tensor:
        """Rates per unit of t from x_t to x_1: (..., K), 0 at all other codes; t < 1.

        Raises:
            UsageError: The rates are infinite, at t = 1.
        """
        rate = straight_rate(self._times(t, x_1)) * (x_t != x_1)
        return torch.nn.functional.one_hot(x_1, self.num_codes) * rate[..., None]

    def _jump(
        self,
        x_t: Tensor,
        x_1: Tensor,
        start: Tensor,
        end: Tensor,
        generator: Randomness,
        solver: str,
    ) -> Tensor:
        chance = straight_chance(start, end, solver)
        jumps = uniforms(x_t.shape, generator, x_t.device) < chance
        return torch.where(jumps, x_1, x_t)


def straight_rate(t: Tensor) -> Tensor:
    """Rate 1/(1 − t) of the jump to x_1; at t = 1, where it is infinite, a UsageError."""
    if bool((t == 1).any()):
        raise UsageError("the jump rates are infinite at t = 1", "keep t below 1")
    return 1 / (1 - t)


def straight_chance(start: Tensor, end: Tensor, solver: str) -> Tensor:
    """Probability of the jump to x_1 from ``start`` to ``end``; 0 where they are equal."""
    fraction = torch.where(start < end, (end - start) / (1 - start), 0.0)
    # The integral of the rate is −log((1 − end)/(1 − start)): the jump's probability is the
    # fraction itself.
    return fraction if solver == "integrated" else -torch.expm1(-fraction)
