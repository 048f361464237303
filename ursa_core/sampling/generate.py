"""Prompt in, codes out: one call that prepares noise, prompts and times for the denoising loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.bundle.options import SamplingOptions
from ursa_core.bundle.settings import motion_prompt
from ursa_core.bundle.subjects import name_emoji
from ursa_core.media import Frames, to_video
from ursa_core.sampling.conditioning import Conditioning, SamplingStart, joined
from ursa_core.sampling.denoise import OnStep, denoise
from ursa_core.sampling.guidance import Guidance
from ursa_core.sampling.time_grid import time_grid
from ursa_core.seeding import stream
from ursa_core.tokenizers.visual import decode_frames


@dataclass(frozen=True)
class Request:
    """What one clip shows, and how it is sampled."""

    prompt: str  # an empty one is unconditional
    seed: int = 0
    index: int = 0  # number among the clips of its seed, each of which has streams of its own
    options: SamplingOptions | None = None  # None takes the model's own

    def options_for(self, bundle: Bundle) -> SamplingOptions:
        """The options, the model's own where none are given."""
        return bundle.settings.defaults if self.options is None else self.options


def full_prompt(bundle: Bundle, request: Request) -> str:
    """The prompt as the model reads it.

    Emoji of subjects become their names, and a motion prefix stands before the prompt of a video
    where the model was trained with one.
    """
    prompt, options = name_emoji(request.prompt, bundle.subjects), request.options_for(bundle)
    if not bundle.settings.motion_prefix or not prompt or options.frames == 1:
        return prompt
    return motion_prompt(options.motion, prompt)


def full_negative(bundle: Bundle, request: Request) -> str:
    """The prompt of guidance's other half as the model reads it."""
    return name_emoji(request.options_for(bundle).negative, bundle.subjects)


def generate(
    bundle: Bundle,
    request: Request,
    on_step: OnStep | None = None,
    on_estimate: OnStep | None = None,
    conditioning: Conditioning | None = None,
) -> Tensor:
    """Codes int64 (F, H, W) of one clip, which depends on the model and the request alone.

    After each step ``on_step`` is called with its number, from 1, and x_t (1, L), and
    ``on_estimate`` with the x_1 (1, L) drawn. Errors are those of `Sampler`.
    """
    given = () if conditioning is None else [conditioning]
    (codes,) = Sampler(bundle, [request]).sample(on_step, on_estimate, given)
    return codes


class Sampler:
    """Clips whose codes go through the network together; only negative and motion may differ.

    `ShapeError` if the size doesn't fit the strides, `UsageError` for an interval out of order.
    """

    def __init__(self, bundle: Bundle, requests: Sequence[Request]) -> None:
        self.bundle, self.requests = bundle, requests
        self.device = bundle.device
        self._options = options = requests[0].options_for(bundle)
        self.grid = bundle.grid(options.shape)
        self.guidance = Guidance(options.guidance, options.guidance_interval)
        stored = bundle.settings.times_for(options)
        self.times = time_grid(options.steps, options.shift, stored)
        negatives = [full_negative(bundle, each) for each in requests]
        prompts = [full_prompt(bundle, each) for each in requests]
        ids = bundle.text_tokenizer.encode([*prompts, *negatives]).to(self.device)
        self.prompt_ids, self.negative_ids = ids.chunk(2)
        self.is_unguided = (self.prompt_ids == self.negative_ids).all(1).tolist()
        if all(self.is_unguided):
            self.guidance = Guidance()  # both halves would be the same

    def __len__(self) -> int:
        return len(self.requests)

    def network(self, prompt_ids: Tensor, x_t: Tensor) -> Tensor:
        """Hidden states (B, L, D) of prompts (B, S) and codes (B, L)."""
        self.bundle.take_turn(self.bundle.transformer)
        rows = 1 if self.bundle.offload else len(x_t)
        parts = zip(prompt_ids.split(rows), x_t.split(rows), strict=True)
        return torch.cat([self.bundle.transformer(ids, x, self.grid) for ids, x in parts])

    def _head(self, hidden: Tensor) -> Tensor:
        # A path with a mask state has one embedding more than there are codes to predict.
        return self.bundle.transformer.head(hidden)[..., : self.bundle.path.num_codes]

    def generators(self, name: str, index: int | None = None) -> list[torch.Generator]:
        """One per clip, of its own index or of a stage's."""
        of = [(each.seed, each.index if index is None else index) for each in self.requests]
        return [stream(seed, name, own) for seed, own in of]

    @torch.inference_mode()
    def sample(
        self,
        on_step: OnStep | None = None,
        on_estimate: OnStep | None = None,
        conditionings: Sequence[Conditioning] = (),
    ) -> list[Tensor]:
        """Codes int64 (F, H, W) of each clip.

        After each step ``on_estimate`` is called with the x_1 drawn, locked frames as given. Each
        clip may be given latent frames: the same ones of the grid, held the same way and with the
        same noise. Errors are those of `Conditioning.start`.
        """
        path, grid = self.bundle.path, self.grid
        generators = self.generators("sample")
        x_0 = path.initial((len(generators), grid.num_codes), generators, self.device)
        start = SamplingStart(x_0, self.times)
        if conditionings:
            noise = self.generators("given")
            given = zip(conditionings, x_0.split(1), noise, strict=True)
            start = joined([one.start(path, x, self.times, grid, [own]) for one, x, own in given])

        def finished(x_1: Tensor) -> Tensor:
            pairs = zip(conditionings, x_1.split(1), strict=True)
            return torch.cat([one.finish(x) for one, x in pairs]) if conditionings else x_1

        with_fixed = on_estimate and (lambda step, x_1: on_estimate(step, finished(x_1)))
        x_1 = self.run(start, generators, on_step, with_fixed)
        return list(finished(x_1).view(-1, grid.frames, grid.rows, grid.columns))

    @torch.inference_mode()
    def run(
        self,
        start: SamplingStart,
        generators: Sequence[torch.Generator],
        on_step: OnStep | None = None,
        on_estimate: OnStep | None = None,
    ) -> Tensor:
        """Codes int64 (B, L) at the last of a start's times."""
        return denoise(
            self.network, self._head, self.bundle.path, start, self._options,
            prompt_ids=self.prompt_ids, negative_ids=self.negative_ids, generators=generators,
            guidance=self.guidance, on_step=on_step, on_estimate=on_estimate,
        )  # fmt: skip


@torch.inference_mode()
def encode(bundle: Bundle, frames: Frames) -> Tensor:
    """Codes int64 (F, H, W) of frames uint8 (F', height, width, 3) that fit the strides."""
    bundle.take_turn(bundle.video_tokenizer)
    return bundle.video_tokenizer.encode(to_video(frames).to(bundle.device))[0]


def decode(bundle: Bundle, codes: Tensor) -> Frames:
    """Frames uint8 (F, height, width, 3) of codes (F, H, W)."""
    bundle.take_turn(bundle.video_tokenizer)
    return decode_frames(bundle.video_tokenizer, codes)
