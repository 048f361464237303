"""A clip made longer in rounds: each is given the end of what there is and makes what follows.

Chained in tokens, a round is given the last latent frames, and all is decoded once, in one piece.
For a window's first latent frame that is unusual: as a clip's first it would stand for one frame,
not for a stride of them, which a model learns from windows cut from the middle of longer clips.
Chained in pixels, the last frames are encoded anew, as the beginning of a clip.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ursa_core.bundle import Bundle
from ursa_core.errors import DataError, ShapeError, UsageError
from ursa_core.grids import Strides
from ursa_core.media import Frames
from ursa_core.sampling.conditioning import Cond, Conditioning
from ursa_core.sampling.denoise import OnStep
from ursa_core.sampling.generate import GenerateOptions, decode, encode, generate, pixel_shape
from ursa_core.seeding import stream_seed
from ursa_core.tasks.given_media import condition
from ursa_core.tasks.round_store import RoundStore

Chain = Literal["tokens", "pixels"]
FADE_FRAMES = 8
"""Frames over which the difference at a join fades out."""


@dataclass(frozen=True)
class Extension:
    """How a clip is made longer.

    Attributes:
        own_frames: of the clip.
        frames: of the result.
        window: frames that a round makes, those that it is given among them.
        overlap: frames that a round is given, 1 + a multiple of the temporal stride.
        prompts: one a segment; segments take even shares of the rounds.
        before: make what comes before the clip instead of what follows.
        chain: rounds in ``tokens`` or in ``pixels``.
        cond: ``soft`` or ``lock``.
        cond_noise: in [0, 1].
    """

    own_frames: int
    frames: int
    window: int
    overlap: int
    prompts: tuple[str, ...]
    before: bool
    chain: Chain
    cond: Cond
    cond_noise: float

    def check(self, strides: Strides) -> None:
        """Refuse what can't be made.

        Raises:
            UsageError: the result isn't longer than the clip, the prompts outnumber the rounds, or
                what comes before is to chain in tokens.
            ShapeError: the overlap doesn't fit the stride or leaves nothing to make.
            DataError: the clip is shorter than the overlap.
        """
        if (self.overlap - 1) % strides.temporal or not 1 <= self.overlap < self.window:
            fitting = range(1, self.window, strides.temporal)
            raise ShapeError(
                f"an overlap of {self.overlap} frames can't be used",
                f"use one of {', '.join(map(str, fitting))}" if fitting else "use a video model",
            )
        if self.before and self.chain == "tokens":
            raise UsageError(
                "what comes before a clip can't chain in tokens: its first latent frame would have"
                " to stand for more than one frame",
                "add --chain pixels",
            )
        if self.before and self.overlap == 1:
            raise ShapeError(
                "an overlap of 1 frame gives nothing to make what comes before it",
                f"use {1 + strides.temporal} or more",
            )
        if self.own_frames < self.overlap:
            raise DataError(
                f"the clip has {self.own_frames} frames, fewer than the overlap of {self.overlap}",
                "give a longer clip or a smaller --overlap",
            )
        if self.frames <= self.own_frames:
            raise UsageError(
                f"the clip has {self.own_frames} frames, so {self.frames} don't extend it",
                "ask for more frames or seconds; they count the clip's own",
            )
        if len(self.prompts) > self.num_rounds:
            raise UsageError(
                f"{len(self.prompts)} prompts can't share {self.num_rounds} rounds",
                "give fewer prompts, or make the video longer",
            )

    @property
    def frames_per_round(self) -> int:
        """New frames of a round."""
        return self.window - self.overlap

    @property
    def num_rounds(self) -> int:
        """Rounds that the result takes; the last one's surplus is cut off."""
        return -(-(self.frames - self.own_frames) // self.frames_per_round)

    def prompt_of(self, index: int) -> str:
        """What round ``index`` shows."""
        return self.prompts[index * len(self.prompts) // self.num_rounds]


def default_overlap(window: int, stride: int) -> int:
    """About a quarter of the window, as the paper's 13 of 49; at least one stride of frames."""
    return 1 + stride * max(1, round((window * 13 / 49 - 1) / stride))


@dataclass(frozen=True)
class Round:
    """What a round made.

    Attributes:
        index: from 0.
        prompt: what it was asked to show.
        colour_drift: distance of its mean colour to that of the user's clip, in RGB levels, 0 to
            442.
        sharpness: mean difference of neighbouring pixels, as a share of the user's clip's.
        join_change: mean change of a pixel across the join, in levels, 0 to 255.
        median_change: the median of that between its own frames.
        resumed: it was there from an earlier run.
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
    options: GenerateOptions,
    store: RoundStore,
    on_step: OnStep | None = None,
    on_round: Callable[[bool], None] | None = None,
    codes: Tensor | None = None,
) -> tuple[list[Round], Frames]:
    """Make a clip longer, round by round.

    Args:
        bundle: the model.
        clip: uint8 (own_frames, H, W, 3); its frames are in the result as they are.
        extension: how.
        options: of sampling; prompt, number and frames are those of the extension.
        store: keeps the rounds; those it holds already aren't made again.
        on_step: called after each step of a round that is made.
        on_round: called after each round, with whether it was there already.
        codes: int64 (F, H, W) of the clip, where it came as codes; else they are encoded.

    Returns:
        The rounds, and all frames, cut to the length that was asked for.

    Raises:
        UrsaError: as ``generate`` and the store do.
    """
    rounds = _Rounds(bundle, extension, options, store, on_step, on_round)
    if extension.chain == "tokens":
        new = _in_tokens(rounds, clip, codes)
    else:
        new = _in_pixels(rounds, clip)
    # Everything grows at its end here; what comes before the clip is turned round.
    turn = slice(None, None, -1 if extension.before else 1)
    frames = np.concatenate([clip[turn], new])[: extension.frames]
    each, own = extension.frames_per_round, extension.own_frames
    told = []
    for index, resumed in enumerate(rounds.resumed):
        part = frames[own + index * each : own + (index + 1) * each]
        join, median = _changes(frames[own + index * each - 1], part)
        drift = float(np.linalg.norm(_mean_colour(part) - _mean_colour(clip)))
        sharpness = _sharpness(part) / max(_sharpness(clip), 1e-6)
        prompt = extension.prompt_of(index)
        told.append(Round(index, prompt, drift, sharpness, join, median, resumed))
    return told, frames[turn]


class _Rounds:
    """Makes the rounds' codes, or takes them from the store."""

    def __init__(
        self,
        bundle: Bundle,
        extension: Extension,
        options: GenerateOptions,
        store: RoundStore,
        on_step: OnStep | None,
        on_round: Callable[[bool], None] | None,
    ) -> None:
        self.bundle, self.extension = bundle, extension
        self.options = replace(options, frames=extension.window, num=1)
        self.grid = bundle.grid(pixel_shape(bundle, self.options))
        self.resumed: list[bool] = []
        self._store, self._on_step, self._on_round = store, on_step, on_round

    def next(self, given: Callable[[], Conditioning]) -> Tensor:
        """Codes (F, H, W) of the next round's window."""
        index = len(self.resumed)
        codes = self._store.load(index)
        self.resumed.append(codes is not None)
        if codes is None:
            options = replace(
                self.options,
                prompt=self.extension.prompt_of(index),
                seed=stream_seed(self.options.seed, "round", index),
            )
            (made,) = generate(self.bundle, options, self._on_step, conditioning=given())
            codes = made.codes
            self._store.save(index, codes)
        if self._on_round:
            self._on_round(self.resumed[-1])
        return codes


def _in_tokens(rounds: _Rounds, clip: Frames, codes: Tensor | None) -> Frames:
    """The new frames, chained as codes and decoded with the clip before them."""
    extension, grid = rounds.extension, rounds.grid
    stride = rounds.bundle.video_tokenizer.strides.temporal
    if codes is None:  # the end of the clip, as much as a round may see
        latents = min((len(clip) - 1) // stride, grid.frames - 1)
        codes = encode(rounds.bundle, clip[-1 - stride * latents :])
    chain = codes.cpu()
    own = 1 + stride * (len(chain) - 1)
    num_given = 1 + (extension.overlap - 1) // stride

    def given() -> Conditioning:
        window = torch.zeros(grid.frames, grid.rows, grid.columns, dtype=torch.int64)
        window[:num_given] = chain[-num_given:]
        mask = torch.arange(grid.frames) < num_given
        return Conditioning(window, mask, extension.cond, extension.cond_noise)

    for _ in range(extension.num_rounds):
        chain = torch.cat([chain, rounds.next(given).cpu()[num_given:]])
    return following(clip, decode(rounds.bundle, chain), own)


def _in_pixels(rounds: _Rounds, clip: Frames) -> Frames:
    """The new frames, each round encoded anew; in the order in which they are made."""
    extension, bundle, grid = rounds.extension, rounds.bundle, rounds.grid
    overlap = extension.overlap
    turn = slice(None, None, -1 if extension.before else 1)
    # At the window's end all of the piece but its first frame is given.
    num_given = (overlap - 1) // bundle.video_tokenizer.strides.temporal
    place = grid.frames - num_given if extension.before else 0
    frames = clip[turn]

    def given() -> Conditioning:
        piece = {place: frames[-overlap:][turn]}
        return condition(bundle, grid, piece, extension.cond, extension.cond_noise)

    for _ in range(extension.num_rounds):
        window = decode(bundle, rounds.next(given))[turn]
        frames = np.concatenate([frames, following(frames, window, overlap)])
    return frames[len(clip) :]


def following(frames: Frames, window: Frames, overlap: int) -> Frames:
    """The window's frames behind the overlap, joined to the last of ``frames`` without a seam.

    The window shows the last frame anew, and differs from it as the tokenizer's codes do from
    pixels. That difference goes on over the join and fades out.

    Args:
        frames: uint8 (F, H, W, 3), what there is.
        window: uint8 (N, H, W, 3), whose frame ``overlap − 1`` shows the last of them.
        overlap: frames that both show.
    """
    difference = frames[-1].astype(np.float32) - window[overlap - 1]
    new = window[overlap:].astype(np.float32)
    weights = np.clip(1 - np.arange(1, len(new) + 1) / (FADE_FRAMES + 1), 0, 1)
    faded = new + weights[:, None, None, None].astype(np.float32) * difference
    return np.asarray(faded.round().clip(0, 255), np.uint8)


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
