"""A clip made longer in rounds: each is given the end of what there is and makes what follows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.clips.chains import Rounds, in_pixels, in_tokens
from ursa_core.clips.extension import Extension
from ursa_core.clips.round_store import RoundStore
from ursa_core.media import Frames
from ursa_core.sampling.denoise import OnStep
from ursa_core.sampling.generate import Request


@dataclass(frozen=True)
class Round:
    """What a round made.

    Attributes:
        index: Number of the round, from 0.
        prompt: Text that it was asked to show.
        colour_drift: Distance of its mean colour to that of the user's clip, in RGB levels, 0 to
            442.
        sharpness: Mean difference of neighbouring pixels, as a share of the user's clip's.
        join_change: Mean change of a pixel across the join, in levels, 0 to 255.
        median_change: Median of that change between its own frames.
        resumed: Whether it was there from an earlier run.
    """

    index: int
    prompt: str
    colour_drift: float
    sharpness: float
    join_change: float
    median_change: float
    resumed: bool


def extend(
    bundle: Bundle,
    clip: Frames,
    extension: Extension,
    request: Request,
    store: RoundStore | None = None,
    on_step: OnStep | None = None,
    on_round: Callable[[bool], None] | None = None,
    codes: Tensor | None = None,
) -> tuple[list[Round], Frames]:
    """Make a clip longer, round by round.

    Args:
        bundle: Model.
        clip: uint8 (own_frames, H, W, 3); its frames are in the result as they are.
        extension: How it is made longer.
        request: How rounds are sampled; prompt and frames are those of the extension.
        store: Where rounds are kept; those that it holds already aren't made again.
        on_step: Called after each step of a round that is made.
        on_round: Called after each round, with whether it was there already.
        codes: int64 (F, H, W) of the clip, where it came as codes; otherwise they are encoded.

    Returns:
        The rounds, and all frames, cut to the length that was asked for.

    Raises:
        UrsaError: A round can't be sampled, kept or read.
    """
    rounds = Rounds(bundle, extension, request, store, on_step, on_round)
    in_pieces = extension.chain == "pixels"
    new = in_pixels(rounds, clip) if in_pieces else in_tokens(rounds, clip, codes)
    # Everything grows at its end here; what comes before the clip is turned round.
    turn = slice(None, None, -1 if extension.before else 1)
    frames = np.concatenate([clip[turn], new])[: extension.frames]
    each, own = extension.frames_per_round, extension.own_frames
    reports = []
    for index, resumed in enumerate(rounds.resumed):
        part = frames[own + index * each : own + (index + 1) * each]
        join, median = _changes(frames[own + index * each - 1], part)
        drift = float(np.linalg.norm(_mean_colour(part) - _mean_colour(clip)))
        sharpness = _sharpness(part) / max(_sharpness(clip), 1e-6)
        prompt = extension.prompt_of(index)
        reports.append(Round(index, prompt, drift, sharpness, join, median, resumed))
    return reports, frames[turn]


def _changes(last: Frames, new: Frames) -> tuple[float, float]:
    """Mean change of a pixel from ``last`` (H, W, 3) to the new frames, and the median in them."""
    steps = np.abs(np.diff(np.stack([last, *new]).astype(np.float32), axis=0)).mean((1, 2, 3))
    return float(steps[0]), float(np.median(steps[1:])) if len(steps) > 1 else 0.0


def _mean_colour(frames: Frames) -> NDArray[np.float64]:
    return np.asarray(frames.mean((0, 1, 2)))


def _sharpness(frames: Frames) -> float:
    """Mean difference of neighbouring pixels, in levels."""
    values = frames.astype(np.float32)
    return float(sum(np.abs(np.diff(values, axis=axis)).mean() for axis in (1, 2)))
