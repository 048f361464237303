"""Distances between the codebook's directions, which the metric path is made of."""

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.draws import precise_dtype

TWIN_DISTANCE = 1e-6
"""Squared distances up to this are 0: the rounding of vectors stored in float16 or float32."""

_NORM_EPS = 1e-5
_WIDE = 32


class CodebookDistances:
    """Squared Euclidean distances between the L2-normalised vectors of a codebook.

    They come on demand, as the table of all pairs would take 32 GB at 64,000 codes. Vectors of few
    dimensions are multiplied in float64 where the device has it: float32 leaves errors of 2e-7,
    which sharp paths multiply by beta, and takes no less time there. A vector of zeros stays zero;
    a codebook must be a finite float matrix (K, C) of at least two rows, else UsageError.
    """

    def __init__(self, codebook: Tensor) -> None:
        if codebook.ndim != 2 or codebook.shape[0] < 2 or not codebook.is_floating_point():
            raise UsageError(
                f"a {codebook.dtype} tensor of shape {tuple(codebook.shape)} isn't a codebook",
                "give a float tensor (codes, dimensions) with two codes or more",
            )
        if not bool(torch.isfinite(codebook).all()):
            raise UsageError("the codebook has infinite or NaN entries", "check its file")
        self.num_codes = len(codebook)
        self.dtype = torch.float64 if codebook.dtype == torch.float64 else torch.float32
        is_wide = codebook.shape[1] > _WIDE and self.dtype == torch.float32
        vectors = codebook.float() if is_wide else codebook.to(precise_dtype(codebook.device))
        vectors = torch.nn.functional.normalize(vectors, dim=-1, eps=_NORM_EPS)
        norms = vectors.square().sum(-1, keepdim=True)
        ones = torch.ones_like(norms)
        # One product gives |a|² − 2ab + |b|².
        self._left = torch.cat([-2 * vectors, norms, ones], dim=1)
        self._right = torch.cat([vectors, ones, norms], dim=1).T.contiguous()

    def rows(self, x_1: Tensor) -> Tensor:
        """Squared distances (n, K) in [0, 4] of codes (n,) to all codes; 0 between twins."""
        return self.block(x_1, slice(None))

    def block(self, x_1: Tensor, codes: slice) -> Tensor:
        """Squared distances (n, block) of codes (n,) to a range of codes."""
        distances = self._left[x_1] @ self._right[:, codes]
        return torch.nn.functional.threshold(distances, TWIN_DISTANCE, 0.0, inplace=True)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Squared distances (n,) between codes ``x`` and ``y``; 0 between twins."""
        distances = (self._left[x] * self._right.T[y]).sum(-1)
        return torch.nn.functional.threshold(distances, TWIN_DISTANCE, 0.0, inplace=True)
