"""How linearly codes leave noise for data along a model's path, on real tokens (paper, Fig. 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ursa_core.path.base import Path
from ursa_core.seeding import stream

TIMES = tuple(k / 20 for k in range(20))
"""Times at which the distance is measured; at 1 nothing is left of it."""


@dataclass(frozen=True)
class Linearity:
    """Distance of x_t to x_1 over time.

    Attributes:
        times: (T,) in [0, 1).
        clips: (n, T) mean Euclidean distance of the embeddings of each clip.
        correlation: Pearson's, of time and distance over all clips; −1 is linear.
        deviation: root mean square of the mean distance, as a share of its start, from 1 − t.
    """

    times: NDArray[np.float64]
    clips: NDArray[np.float64]
    correlation: float
    deviation: float

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean distance over the clips, (T,)."""
        return np.asarray(self.clips.mean(0))


@torch.inference_mode()
def distances(
    path: Path, codebook: Tensor, codes: Tensor, seed: int, index: int
) -> NDArray[np.float64]:
    """Mean distance of x_t to x_1 of one clip at ``TIMES``.

    Args:
        path: that corrupts; states beyond the codebook (masks) count as the codebook's mean.
        codebook: (K, C) of the tokenizer; distances are of its normalised vectors, as the path's.
        codes: int64, any shape.
        seed: of the draws.
        index: of the clip, for a stream of its own.
    """
    vectors = torch.nn.functional.normalize(codebook.double(), dim=1, eps=1e-5)
    vectors = torch.cat([vectors, vectors.mean(0, keepdim=True)])
    x_1 = codes.flatten().unsqueeze(0)
    generator = stream(seed, "linearity", index)
    found = []
    for t in TIMES:
        x_t = path.corrupt(x_1, torch.tensor(t, device=x_1.device), generator)
        x_t = x_t.clamp(max=len(codebook))
        found.append(float((vectors[x_t] - vectors[x_1]).norm(dim=-1).mean()))
    return np.array(found)


def linearity(clips: Sequence[NDArray[np.float64]]) -> Linearity:
    """How linear the distances of some clips are."""
    values, times = np.array(clips), np.array(TIMES)
    mean = values.mean(0)
    correlation = float(np.corrcoef(np.tile(times, len(values)), values.ravel())[0, 1])
    deviation = float(np.sqrt(np.mean((mean / mean[0] - (1 - times)) ** 2)))
    return Linearity(times, values, correlation, deviation)


def draw(found: Linearity, expected: NDArray[np.float64] | None) -> bytes:
    """The paper's figure: distance over time, beside the line and what the codebook lets expect.

    Args:
        found: on real tokens.
        expected: mean distance at the same times where all codes occur alike; None leaves it out.
    """
    from matplotlib.figure import Figure

    from ursa_core.evaluation.reports.plots import BLUE, GRAY, png_of

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    low, high = np.quantile(found.clips, [0.05, 0.95], axis=0)
    axes.fill_between(found.times, low, high, color=BLUE, alpha=0.2, label="90 % of the clips")
    label = f"real tokens: r = {found.correlation:.4f}"
    axes.plot(found.times, found.mean, "o-", color=BLUE, ms=4, label=label)
    if expected is not None:
        axes.plot(found.times, expected, "--", color=GRAY, label="all codes alike")
    axes.plot([0, 1], [found.mean[0], 0], "k:", lw=1, label="linear")
    axes.set(xlabel="t", ylabel="distance of x_t to x_1", title="Linearity of the path")
    axes.legend(fontsize=8)
    return png_of(figure)
