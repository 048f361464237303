"""How linearly a model's path leads from noise to data, on real tokens (paper, Fig. 5)."""

import numpy as np
import torch
from torch import Tensor

from ursa_core import __version__
from ursa_core.encoding.encode import encode_clips
from ursa_core.encoding.items import Clips
from ursa_core.evaluation.reports.report import Options, Report, Sample, Score, Table
from ursa_core.path.base import ProbPath
from ursa_core.path.calibration import Array
from ursa_core.seeding import stream
from ursa_core.tokenizers.visual import VisualTokenizer

TIMES = tuple(k / 20 for k in range(20))  # at 1 the distance is 0
_SEED = 0
_NOTE = "A correlation of -1 is linear; the paper's paths have -0.995, -0.921, -0.997, -0.949."
_NUM_UNIFORM = 20_000  # codes, all equally frequent, that real tokens are compared with


@torch.inference_mode()
def distances(path: ProbPath, codebook: Tensor, codes: Tensor, index: int) -> Array:
    """Mean distance of x_t to x_1 of one clip's codes, int64 of any shape, at ``TIMES``.

    Distances are of the codebook's (K, C) normalised vectors, as the path's are; states beyond it
    (masks) count as its mean. Clip ``index`` has a stream of its own.
    """
    vectors = torch.nn.functional.normalize(codebook.double(), dim=1, eps=1e-5)
    vectors = torch.cat([vectors, vectors.mean(0, keepdim=True)])
    x_1 = codes.flatten().unsqueeze(0)
    generator = stream(_SEED, "linearity", index)
    found = []
    for t in TIMES:
        x_t = path.corrupt(x_1, torch.tensor(t, device=x_1.device), generator)
        x_t = x_t.clamp(max=len(codebook))
        found.append(float((vectors[x_t] - vectors[x_1]).norm(dim=-1).mean()))
    return np.array(found)


def report(
    tokenizer: VisualTokenizer, path: ProbPath, codebook: Tensor, clips: Clips, settings: Options
) -> tuple[Report, bytes]:
    """How linear a path is on the tokens of some clips, and the paper's Figure 5 of it as PNG.

    The path and its codebook (K, C) are on the tokenizer's device; ``settings`` say what it and the
    clips are. `DataError` is raised where no clip could be used.
    """
    names, rows = [], []
    for index, (name, clip) in enumerate(clips):
        codes = encode_clips(tokenizer, [clip]).to(codebook.device)
        names.append(name)
        rows.append(distances(path, codebook, codes, index))
    generator = torch.Generator().manual_seed(_SEED)
    uniform = torch.randint(len(codebook), (_NUM_UNIFORM,), generator=generator)
    expected = distances(path, codebook, uniform.to(codebook.device), len(rows))
    found, times = np.array(rows), np.array(TIMES)
    mean = found.mean(0)

    def correlation(values: Array) -> float:
        return float(np.corrcoef(np.tile(times, values.size // len(times)), values.ravel())[0, 1])

    deviation = float(np.sqrt(np.mean((mean / mean[0] - (1 - times)) ** 2)))
    scores = [
        Score("correlation", correlation(found), num=len(rows)),
        Score("correlation, all codes alike", correlation(expected)),
        Score("deviation from the line", deviation, unit="of its start"),
    ]
    cells = zip(TIMES, mean.tolist(), expected.tolist(), strict=True)
    lines = [(round(t, 2), round(a, 4), round(b, 4)) for t, a, b in cells]
    table = Table("Distance of x_t to x_1", ("T", "REAL TOKENS", "ALL CODES ALIKE"), lines)
    pairs = zip(names, rows, strict=True)
    samples = [Sample(name, name, {"correlation": correlation(row)}) for name, row in pairs]
    notes, settings = (_NOTE, *clips.notes), {**settings, "ursa": __version__}
    made = Report("path", settings, not clips.left_out, scores, [table], samples, notes)
    return made, _draw(found, expected, correlation(found))


def _draw(found: Array, expected: Array, correlation: float) -> bytes:
    """Distances (n, T) of clips over time, next to the line and to uniformly drawn codes (T,)."""
    from matplotlib.figure import Figure

    from ursa_core.evaluation.reports.plots import BLUE, GRAY, png_of

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    mean, (low, high) = found.mean(0), np.quantile(found, [0.05, 0.95], axis=0)
    axes.fill_between(TIMES, low, high, color=BLUE, alpha=0.2, label="90 % of the clips")
    axes.plot(TIMES, mean, "o-", color=BLUE, ms=4, label=f"real tokens: r = {correlation:.4f}")
    axes.plot(TIMES, expected, "--", color=GRAY, label="all codes alike")
    axes.plot([0, 1], [mean[0], 0], "k:", lw=1, label="linear")
    axes.set(xlabel="t", ylabel="distance of x_t to x_1", title="Linearity of the path")
    axes.legend(fontsize=8)
    return png_of(figure)
