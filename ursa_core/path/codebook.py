"""Distances between the codebook's directions, which the metric path is made of."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.draws import chunks, exp2_, precise_dtype

TWIN_DISTANCE = 1e-6
"""Squared distances up to this are 0: the rounding of vectors stored in float16 or float32."""

_NORM_EPS = 1e-5
_CHUNK_BYTES = 1 << 20


class CodebookDistances:
    """Squared Euclidean distances between the L2-normalised vectors of a codebook.

    They come as rows on demand, as the table of all pairs would take 16 GB at 64,000 codes. The
    products are in float64 where the device has it: float32 would leave errors of 2e-7, which
    sharp paths multiply by beta.

    Args:
        codebook: (K, C) float; a vector of zeros stays zero.

    Raises:
        UsageError: the codebook isn't a finite matrix of at least two rows.
    """

    def __init__(self, codebook: Tensor) -> None:
        if codebook.ndim != 2 or codebook.shape[0] < 2 or not codebook.is_floating_point():
            raise UsageError(
                f"a {codebook.dtype} tensor of shape {tuple(codebook.shape)} isn't a codebook",
                "give a float tensor (codes, dimensions) with two codes or more",
            )
        if not bool(torch.isfinite(codebook).all()):
            raise UsageError("the codebook has infinite or NaN entries", "check its file")
        self.dtype = torch.float64 if codebook.dtype == torch.float64 else torch.float32
        self.device = codebook.device
        vectors = codebook.to(precise_dtype(codebook.device))
        vectors = torch.nn.functional.normalize(vectors, dim=-1, eps=_NORM_EPS)
        norms = vectors.square().sum(-1, keepdim=True)
        ones = torch.ones_like(norms)
        # One product gives |a|² − 2ab + |b|².
        self._left = torch.cat([-2 * vectors, norms, ones], dim=1)
        self._right = torch.cat([vectors, ones, norms], dim=1).T.contiguous()

    @property
    def num_codes(self) -> int:
        """Codes in the codebook."""
        return self._left.shape[0]

    def rows(self, x_1: Tensor) -> Tensor:
        """Squared distances (n, K) in [0, 4] of codes (n,) to all codes; 0 between twins."""
        distances = (self._left[x_1] @ self._right).to(self.dtype)
        return torch.nn.functional.threshold(distances, TWIN_DISTANCE, 0.0, inplace=True)

    def twins(self, x_1: Tensor) -> Tensor:
        """Mask (n, K) of the codes at distance 0 from codes (n,), themselves included."""
        return self.rows(x_1) == 0


def mean_distance(
    codebook: Tensor, betas: Sequence[float] | Tensor, x_1: Tensor | None = None
) -> Tensor:
    """Mean Euclidean distance (not squared) of x_t to x_1 at each sharpness beta.

    The expectation over x_t is exact, and so is the one over x_1 uniform on all codes, the default.
    (alpha, c) and t act through beta alone, so one table serves the choice among all of them.

    Args:
        codebook: (K, C) float.
        betas: sharpnesses, at least 0.
        x_1: (n,) codes to average over instead of all.

    Returns:
        (number of betas,) float64 on the CPU.
    """
    distances = CodebookDistances(codebook)
    if x_1 is None:
        x_1 = torch.arange(distances.num_codes, device=codebook.device)
    sums = torch.zeros(len(betas), dtype=torch.float64)
    for rows in chunks(x_1.numel(), distances.num_codes, _CHUNK_BYTES):
        squared = distances.rows(x_1[rows])
        euclidean = squared.sqrt()
        for index, beta in enumerate(betas):
            weights = exp2_(squared * (-float(beta) * math.log2(math.e)))
            means = (weights * euclidean).sum(-1) / weights.sum(-1)
            sums[index] += float(means.sum())
    return sums / x_1.numel()
