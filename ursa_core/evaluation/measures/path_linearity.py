"""How linearly a model's path leads from noise to data, on real tokens (paper, Fig. 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ursa_core import __version__
from ursa_core.encoding.encode import encode_clips
from ursa_core.evaluation.measures.clips import Clips
from ursa_core.evaluation.reports.report import Report, Sample, Score, Table
from ursa_core.path.base import Path
from ursa_core.seeding import stream
from ursa_core.tokenizers.visual import VisualTokenizer

TIMES = tuple(k / 20 for k in range(20))
"""Times at which the distance is measured; at 1 it is 0."""
_SEED = 0
_NOTE = "A correlation of -1 is linear; the paper's paths have -0.995, -0.921, -0.997, -0.949."
_NUM_UNIFORM = 20_000
"""Codes, all equally frequent, that real tokens are compared with."""


@dataclass(frozen=True)
class Linearity:
    """Distance of x_t to x_1 over time.

    Attributes:
        times: Times (T,) in [0, 1).
        clips: Mean Euclidean distance of the embeddings of each clip, (n, T).
        correlation: Pearson's correlation of time and distance over all clips; −1 is linear.
        deviation: Root mean square of the mean distance, as a share of its start, from 1 − t.
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
        path: Path; states beyond the codebook (masks) count as the codebook's mean.
        codebook: Codebook (K, C); distances are of its normalised vectors, as the path's are.
        codes: Codes int64 of any shape.
        seed: Seed of the draws.
        index: Number of the clip, which has a stream of its own.
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


def report(
    tokenizer: VisualTokenizer,
    path: Path,
    codebook: Tensor,
    clips: Clips,
    settings: Mapping[str, Any],
) -> tuple[Report, bytes]:
    """How linear a path is on the tokens of some clips.

    Args:
        tokenizer: Tokenizer of the clips.
        path: Path on the tokenizer's device.
        codebook: Codebook (K, C) of the path.
        clips: Clips to encode.
        settings: What the clips and the path are.

    Returns:
        The report, and the plot of the paper's Figure 5 as PNG.

    Raises:
        DataError: No clip could be used.
    """
    names, rows = [], []
    for index, (name, clip) in enumerate(clips):
        codes = encode_clips(tokenizer, [clip]).to(codebook.device)
        rows.append(distances(path, codebook, codes, _SEED, index))
        names.append(name)
    generator = torch.Generator().manual_seed(_SEED)
    uniform = torch.randint(len(codebook), (_NUM_UNIFORM,), generator=generator)
    expected = distances(path, codebook, uniform.to(codebook.device), _SEED, len(rows))
    found = linearity(rows)

    def correlation(row: NDArray[np.float64]) -> float:
        return float(np.corrcoef(found.times, row)[0, 1])

    scores = [
        Score("correlation", found.correlation, num=len(rows)),
        Score("correlation, all codes alike", correlation(expected)),
        Score("deviation from the line", found.deviation, unit="of its start"),
    ]
    columns = zip(found.times, found.mean, expected, strict=True)
    table = Table(
        "Distance of x_t to x_1",
        ("T", "REAL TOKENS", "ALL CODES ALIKE"),
        [(round(float(t), 2), round(float(a), 4), round(float(b), 4)) for t, a, b in columns],
    )
    made = Report(
        "path",
        {**settings, "ursa": __version__},
        not clips.left_out,
        scores,
        [table],
        [
            Sample(name, name, {"correlation": correlation(row)})
            for name, row in zip(names, found.clips, strict=True)
        ],
        (
            "A correlation of -1 is linear; the paper's paths have -0.995, -0.921, -0.997, -0.949.",
            *clips.notes,
        ),
    )
    return made, draw(found, expected)


def draw(found: Linearity, expected: NDArray[np.float64]) -> bytes:
    """The paper's figure: distance over time, next to the line and to uniformly drawn codes.

    Args:
        found: Distances of real tokens.
        expected: Mean distance at the same times if all codes are equally frequent.
    """
    from matplotlib.figure import Figure

    from ursa_core.evaluation.reports.plots import BLUE, GRAY, png_of

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    low, high = np.quantile(found.clips, [0.05, 0.95], axis=0)
    axes.fill_between(found.times, low, high, color=BLUE, alpha=0.2, label="90 % of the clips")
    label = f"real tokens: r = {found.correlation:.4f}"
    axes.plot(found.times, found.mean, "o-", color=BLUE, ms=4, label=label)
    axes.plot(found.times, expected, "--", color=GRAY, label="all codes alike")
    axes.plot([0, 1], [found.mean[0], 0], "k:", lw=1, label="linear")
    axes.set(xlabel="t", ylabel="distance of x_t to x_1", title="Linearity of the path")
    axes.legend(fontsize=8)
    return png_of(figure)
