"""The masked path: a code is x_1 with probability t, otherwise the mask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.draws import Randomness
from ursa_core.path.mixture import MixturePath


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

    def initial(
        self, shape: Sequence[int], generator: Randomness, device: torch.device | str = "cpu"
    ) -> Tensor:
        """x_0: int64, the mask everywhere."""
        return torch.full(tuple(shape), self.mask_id, device=device)

    def finish(self, x_t: Tensor, x_1: Tensor) -> Tensor:
        """Codes at t = 1: revealed codes stay, masks become the draw from the posterior."""
        return torch.where(x_t == self.mask_id, x_1, x_t)

    def loss_mask(self, x_t: Tensor) -> Tensor:
        """Which codes are masked: bool, the shape of ``x_t``."""
        return x_t == self.mask_id

    @property
    def _noise_probs(self) -> Tensor:
        return self._one_hot(torch.tensor(self.mask_id))

    def _may_jump(self, x_t: Tensor, x_1: Tensor) -> Tensor:
        return x_t == self.mask_id
