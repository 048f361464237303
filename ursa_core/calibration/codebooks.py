"""Choosing the sharpness of a path for a codebook: where its vectors come from, and the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ursa_core.bundle.bundle import load_tokenizer, resolve_model
from ursa_core.bundle.folder import read_json
from ursa_core.configs import PUBLISHED_LEVELS, VIDEO_CLASS
from ursa_core.errors import CheckpointError, DataError, unreadable
from ursa_core.files import whole
from ursa_core.media import contact_sheet, read_media, resize_and_crop, to_video, write_media
from ursa_core.path.calibration import Candidate, DistanceCurve, beta_at
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.places import regular_file
from ursa_core.sampling.time_grid import shift_time
from ursa_core.seeding import stream
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer
from ursa_core.tokenizers.video_fsq import VideoTokenizerConfig
from ursa_core.tokenizers.visual import decode_frames
from ursa_core.tokens.shards import read_shards

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSMOS = "cosmos"
"""Name of the FSQ codebook of the published video models, which its levels define."""
PREVIEW_TIMES = tuple(round(0.1 * i, 1) for i in range(11))


@dataclass(frozen=True)
class Codebook:
    """Vectors of codes, float32 (K, C), and the name of the model that they are of, if any."""

    vectors: Tensor
    model: str | None
    num_twins: int  # codes with the direction of another one, which the path can't distinguish


def load_codebook(source: str) -> Codebook:
    """The codebook of ``cosmos``, of a model, or of a ``.npy`` or ``.safetensors`` file.

    `CheckpointError` without such a source, or if the file is damaged or isn't one matrix.
    """
    model = None
    if source == COSMOS:
        vectors = FiniteScalarQuantizer(list(PUBLISHED_LEVELS)).codebook
    elif Path(source).suffix.lower() in (".npy", ".safetensors"):
        vectors = _read_vectors(Path(source))
    else:
        model, vectors = source, _vectors_of_model(source)
    return Codebook(vectors, model, _num_twins(vectors))


def _vectors_of_model(model: str) -> Tensor:
    """Codebook of a model folder; an FSQ one without reading any weights."""
    config = read_json(resolve_model(model) / "vae" / "config.json")
    if config.get("_class_name") == VIDEO_CLASS:
        levels = VideoTokenizerConfig.from_json(config).levels
        return FiniteScalarQuantizer(list(levels)).codebook
    return load_tokenizer(model)[0].codebook.detach()


def _read_vectors(file: Path) -> Tensor:
    try:
        if file.suffix.lower() == ".npy":
            arrays = [torch.from_numpy(np.load(regular_file(file), allow_pickle=False))]
        else:
            arrays = [t for t in load_file(regular_file(file)).values() if t.ndim == 2]
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {file}", "give the codebook's file") from error
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        hint = "give a .npy or .safetensors file of numbers"
        raise unreadable(file, error, hint, CheckpointError) from error
    if len(arrays) != 1 or arrays[0].ndim != 2:
        fault = f"{file} holds {len(arrays)} matrices of shape {[tuple(a.shape) for a in arrays]}"
        raise CheckpointError(fault, "give a file with one matrix (codes, dimensions)")
    return arrays[0].float()


def _num_twins(vectors: Tensor) -> int:
    """Number of codes whose normalised vector equals another's to 1e-5 per component."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=1, eps=1e-5)
    if not bool(unit.isfinite().all()):
        return 0  # refused where the path is made
    # Sorting one random projection brings equal directions together; near ones are compared.
    direction = torch.randn(unit.shape[1], generator=torch.Generator().manual_seed(0)).double()
    order = (unit @ direction).argsort()
    ordered = unit[order]
    same = (ordered.diff(dim=0).abs() < 1e-5).all(1)
    before, after = (torch.nn.functional.pad(same, sides) for sides in ((1, 0), (0, 1)))
    return int((before | after).sum())


def count_codes(shards: str | Path, num_codes: int) -> Tensor:
    """Counts (K,) of codes in token shards; `DataError` if of another size, or if empty."""
    table = read_shards(shards)
    theirs = table.identity.num_codes
    if theirs != num_codes:
        fault = f"the shards in {shards} have {theirs} codes, the codebook {num_codes}"
        raise DataError(fault, "give shards of the same tokenizer")
    counts = torch.zeros(num_codes, dtype=torch.float64)
    for grid in table.grids:
        for rows in np.array_split(table.rows(grid), len(table) // 1000 + 1):
            if len(rows):
                counts += table.codes(rows).flatten().bincount(minlength=num_codes)
    return counts


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
    save_figure(figure, file)


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
    save_figure(figure, file)


def save_figure(figure: "Figure", file: Path) -> None:
    """Write a plot as a PNG."""
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
