"""The rounds of a longer clip, and the ways in which they follow on one another.

Chained in tokens, a round is given the last latent frames, and all is decoded once, in one piece.
For a window's first latent frame that is unusual: as a clip's first it would stand for one frame,
not for a stride of them, which a model learns from windows cut from the middle of longer clips.
Chained in pixels, the last frames are encoded again, as the beginning of a clip.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.clips.extension import Extension
from ursa_core.clips.given import condition
from ursa_core.clips.joins import following
from ursa_core.clips.round_store import RoundStore
from ursa_core.media import Frames
from ursa_core.sampling.conditioning import Conditioning
from ursa_core.sampling.denoise import OnStep
from ursa_core.sampling.generate import Request, Sampler, decode, encode, generate
from ursa_core.sampling.rolling import roll_on
from ursa_core.seeding import stream, stream_seed


class Rounds:
    """Makes the codes of rounds, or takes them from the store.

    Args:
        bundle: Model.
        extension: How the clip is made longer.
        request: How rounds are sampled; prompt and frames are those of the extension.
        store: Where rounds are kept; None keeps none.
        on_step: Called after each step of a round that is made.
        on_round: Called after each round, with whether it was there already.
    """

    def __init__(
        self,
        bundle: Bundle,
        extension: Extension,
        request: Request,
        store: RoundStore | None,
        on_step: OnStep | None,
        on_round: Callable[[bool], None] | None,
    ) -> None:
        self.bundle, self.extension = bundle, extension
        options = replace(request.options_for(bundle), frames=extension.window)
        self._request = replace(request, options=options)
        self.grid = bundle.grid(options.shape)
        self.resumed: list[bool] = []
        self._store, self._on_step, self._on_round = store, on_step, on_round

    def next(self, given: Callable[[], Conditioning]) -> Tensor:
        """Codes (F, H, W) of the next round's window, sampled from what it is given."""

        def sample(request: Request) -> Tensor:
            return generate(self.bundle, request, self._on_step, conditioning=given())

        return self._kept_or(sample)

    def next_on_diagonal(self, window: Callable[[], Tensor]) -> Tensor:
        """Codes (F, H, W) of the next round's window: its first new frame done, the rest noisy.

        Args:
            window: Gives the codes that the round sets out from; the frames given come first.
        """
        first, extension = len(self.resumed) == 0, self.extension

        def roll(request: Request) -> Tensor:
            noise = stream(request.seed, "given")
            return roll_on(
                Sampler(self.bundle, [request]),
                window(),
                extension.num_given,
                extension.cond_noise,
                first,
                noise,
                self._on_step,
            )

        return self._kept_or(roll)

    def _kept_or(self, make: Callable[[Request], Tensor]) -> Tensor:
        index = len(self.resumed)
        codes = None if self._store is None else self._store.load(index)
        self.resumed.append(codes is not None)
        if codes is None:
            seed = stream_seed(self._request.seed, "round", index)
            prompt = self.extension.prompt_of(index)
            codes = make(replace(self._request, prompt=prompt, seed=seed))
            if self._store is not None:
                self._store.save(index, codes)
        if self._on_round:
            self._on_round(self.resumed[-1])
        return codes


def in_tokens(rounds: Rounds, clip: Frames, codes: Tensor | None) -> Frames:
    """The new frames, chained as codes and decoded with the clip before them."""
    extension, grid, stride = rounds.extension, rounds.grid, rounds.extension.stride
    if codes is None:  # the end of the clip, as much as a round may see
        latents = min((len(clip) - 1) // stride, grid.frames - 1)
        codes = encode(rounds.bundle, clip[-1 - stride * latents :])
    chain, num_given = codes.cpu(), extension.num_given
    own = 1 + stride * (len(chain) - 1)
    window = torch.zeros(grid.frames, grid.rows, grid.columns, dtype=torch.int64)

    def given() -> Conditioning:
        codes = torch.cat([chain[-num_given:], window[num_given:]])
        mask = torch.arange(grid.frames) < num_given
        return Conditioning(codes, mask, extension.cond, extension.cond_noise)

    def moved_up() -> Tensor:
        rest = window[num_given + 1 :]
        return torch.cat([chain[-num_given:], rest, window[:1]])  # noise takes the last one's place

    for _ in range(extension.num_rounds):
        if extension.schedule == "diagonal":
            window = rounds.next_on_diagonal(moved_up).cpu()
            new = window[num_given : num_given + 1]
        else:
            new = rounds.next(given).cpu()[num_given:]
        chain = torch.cat([chain, new])
    return following(clip, decode(rounds.bundle, chain), own)


def in_pixels(rounds: Rounds, clip: Frames) -> Frames:
    """The new frames, each round encoded again; in the order in which they are made."""
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
