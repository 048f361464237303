"""The masked path: a code is x_1 with probability t, otherwise the mask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.base import ProbPath, Times
from ursa_core.path.draws import Randomness, uniforms
from ursa_core.path.mixture import straight_chance, straight_rate


class MaskedPath(ProbPath):
    """p_t(x | x_1) = t·[x = x_1] + (1 − t)·[x = mask], with the mask as state K.

    The chain reveals each code once and never changes it again, unless a step corrects: then it
    becomes a mask again with probability 1 − t, so that later steps decide on it once more.

    Args:
        num_codes: K, at least 1.

    Raises:
        UsageError: There are no codes.
    """

    solvers = ("maskgit", "integrated", "euler")

    def __init__(self, num_codes: int, dtype: torch.dtype = torch.float32) -> None:
        if num_codes < 1:
            raise UsageError(f"{num_codes} codes make no path", "use one code or more")
        self.num_codes = num_codes
        self.num_states = num_codes + 1
        self.mask_id = num_codes
        self.dtype = dtype

    def initial(
        self, shape: Sequence[int], generator: Randomness, device: torch.device | str = "cpu"
    ) -> Tensor:
        """x_0: int64, the mask everywhere."""
        return torch.full(tuple(shape), self.mask_id, device=device)

    def corrupt(self, x_1: Tensor, t: Times, generator: Randomness) -> Tensor:
        """x_t drawn from p_t(x | x_1): int64, the shape of ``x_1``."""
        keep = uniforms(x_1.shape, generator, x_1.device) < self._times(t, x_1)
        return torch.where(keep, x_1, self.mask_id)

    def conditional_probs(self, x_1: Tensor, t: Times) -> Tensor:
        """p_t(x | x_1) of every state: (..., K + 1), rows sum to 1."""
        times = self._times(t, x_1)[..., None]
        probs = torch.nn.functional.one_hot(x_1, self.num_states).to(self.dtype) * times
        probs[..., self.mask_id] += 1 - times.squeeze(-1)
        return probs

    def jump_rates(self, x_t: Tensor, x_1: Tensor, t: Times) -> Tensor:
        """Rates per unit of t from the mask to x_1: (..., K + 1), 0 elsewhere; t < 1.

        Raises:
            UsageError: The rates are infinite, at t = 1.
        """
        rate = straight_rate(self._times(t, x_1)) * (x_t == self.mask_id)
        return torch.nn.functional.one_hot(x_1, self.num_states) * rate[..., None]

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
        return torch.where(jumps & (x_t == self.mask_id), x_1, x_t)

    def finish(self, x_t: Tensor, x_1: Tensor) -> Tensor:
        """Codes at t = 1: revealed codes stay, masks become the draw from the posterior."""
        return torch.where(x_t == self.mask_id, x_1, x_t)

    def loss_mask(self, x_t: Tensor) -> Tensor:
        """Which codes are masked: bool, the shape of ``x_t``."""
        return x_t == self.mask_id
