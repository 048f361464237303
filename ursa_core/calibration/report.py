"""Files of `ursa calibrate-path`: curves, heat map, preview sheet and numbers as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ursa_core.bundle.bundle import load_tokenizer
from ursa_core.files import whole
from ursa_core.media import contact_sheet, read_media, resize_and_crop, to_video, write_media
from ursa_core.path.calibration import Candidate, DistanceCurve, beta_at
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.sampling.time_grid import shift_time
from ursa_core.seeding import stream
from ursa_core.tokenizers.visual import decode_frames

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREVIEW_TIMES = tuple(round(0.1 * i, 1) for i in range(11))


def draw_curves(
    file: Path, curve: DistanceCurve, candidates: Sequence[Candidate], shifts: Sequence[float]
) -> None:
    """Plot the mean distance over t for each candidate, and over shifted steps for the first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11 if shifts else 6, 4.2), layout="constrained")
    axes = figure.subplots(1, 2 if shifts else 1, squeeze=False)[0]
    fine = np.linspace(0, 0.9999, 400)
    for each in candidates:
        label = f"alpha {each.alpha:.3g}, c {each.c:.3g}: r = {each.correlation:.4f}"
        axes[0].plot(fine, curve.at(beta_at(fine, each.alpha, each.c)), label=label)
    axes[0].plot([0, 1], [curve.mean[0], 0], "k:", lw=1, label="linear")
    axes[0].set(xlabel="t", ylabel="mean distance of x_t to x_1", title="Paths")
    axes[0].legend(fontsize=8)
    for shift in shifts:
        times = shift_time(torch.from_numpy(fine), shift).numpy()
        best = candidates[0]
        label = f"shift {shift:g}"
        axes[1].plot(fine, curve.at(beta_at(times, best.alpha, best.c)), label=label)
    if shifts:
        axes[1].set(xlabel="step / steps", ylabel="mean distance", title="Time shift")
        axes[1].legend(fontsize=8)
    _save(figure, file)


def draw_heatmap(file: Path, grid: Sequence[Candidate], marked: Sequence[Candidate]) -> None:
    """Plot the score over the grid, with some candidates marked."""
    from matplotlib.figure import Figure

    alphas = sorted({each.alpha for each in grid})
    cs = sorted({each.c for each in grid})
    score = {(each.alpha, each.c): each.score for each in grid}
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    axes = figure.subplots()
    values = np.array([[score[a, c] for c in cs] for a in alphas])
    low = float(np.quantile(values, 0.2))
    drawn = axes.pcolormesh(cs, alphas, values, vmin=low, shading="nearest")
    figure.colorbar(drawn, label="score")
    for each, marker in zip(marked, "*ox^", strict=False):
        label = f"alpha {each.alpha:.3g}, c {each.c:.3g}"
        axes.plot(each.c, each.alpha, "w" + marker, mec="k", ms=10, ls="none", label=label)
    axes.set(xlabel="c", ylabel="alpha", title="Score of (alpha, c)")
    axes.legend(fontsize=8)
    _save(figure, file)


def _save(figure: "Figure", file: Path) -> None:
    with whole(file) as part:
        figure.savefig(part, format="png", dpi=120)


def draw_preview(file: Path, clip: Path, model: str, candidates: Sequence[Candidate]) -> None:
    """Draw a clip's middle frame corrupted at t = 0, 0.1 … 1, one row per candidate.

    The model gives the tokenizer and the size of the frames.
    """
    tokenizer, settings, _ = load_tokenizer(model)
    num_frames = min(settings.frames, 1 + tokenizer.strides.temporal)
    frames = read_media(clip, max_frames=num_frames).frames
    missing = np.repeat(frames[-1:], num_frames - len(frames), axis=0)
    frames = resize_and_crop(np.concatenate([frames, missing]), settings.height, settings.width)
    strips = []
    with torch.inference_mode():
        codes = tokenizer.encode(to_video(frames))
        for each in candidates:
            path = MetricPath(tokenizer.codebook, PowerSchedule(each.alpha, each.c))
            corrupted = [path.corrupt(codes, t, stream(0, "preview"))[0] for t in PREVIEW_TIMES]
            decoded = [decode_frames(tokenizer, x_t)[num_frames // 2] for x_t in corrupted]
            strips.append(np.stack(decoded))
    sheet = contact_sheet(strips, columns=1, num_shown=len(PREVIEW_TIMES))
    write_media(file, sheet[None], 1.0)
