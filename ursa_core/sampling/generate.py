"""Prompt in, codes out: one call that prepares noise, prompts and times for the denoising loop."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.bundle.settings import motion_prompt
from ursa_core.bundle.subjects import name_emoji
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.media import Frames, to_video
from ursa_core.sampling.conditioning import Conditioning, Start, joined
from ursa_core.sampling.denoise import OnStep, denoise
from ursa_core.sampling.guidance import Guidance
from ursa_core.sampling.time_grid import time_grid
from ursa_core.seeding import stream
from ursa_core.tokenizers.visual import decode_frames

T = TypeVar("T")


@dataclass(frozen=True)
class GenerateOptions:
    """What to sample and how; None takes the model's own default.

    Args:
        prompt: what the clip shows; empty is unconditional.
        seed: of every random draw.
        num: clips to make; clip k is the same whatever the number is.
        negative: what guidance leads away from.
        steps: network calls along the path.
        guidance: scale of classifier-free guidance; 1 is off.
        guidance_interval: times (low, high) between which it acts.
        solver: ``integrated`` or ``euler`` (``maskgit`` where the path is masked).
        shift: time shift of the steps.
        frames: of each clip.
        height: of its frames, in pixels.
        width: of its frames, in pixels.
        temperature: of the draws of x_1.
        top_p: nucleus of these draws.
        motion: score of the prompt's motion prefix, for models that take one.
    """

    prompt: str
    seed: int = 0
    num: int = 1
    negative: str | None = None
    steps: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] | None = None
    solver: str | None = None
    shift: float | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    motion: float | None = None


@dataclass(frozen=True)
class Generated:
    """One sampled clip: its place in the run, the seed, and codes int64 (F, H, W)."""

    index: int
    seed: int
    codes: Tensor
    grid: LatentGrid


def full_prompt(bundle: Bundle, options: GenerateOptions) -> str:
    """The prompt as the model reads it.

    Emoji of subjects become their names, and a motion prefix stands before the prompt where the
    model was trained with one.
    """
    prompt = name_emoji(options.prompt, bundle.subjects)
    if not bundle.settings.motion_prefix or not prompt:
        return prompt
    return motion_prompt(_given(options.motion, bundle.settings.motion), prompt)


def full_negative(bundle: Bundle, options: GenerateOptions) -> str:
    """The prompt of guidance's other half as the model reads it."""
    return name_emoji(_given(options.negative, bundle.settings.negative), bundle.subjects)


def pixel_shape(bundle: Bundle, options: GenerateOptions) -> PixelShape:
    """Pixel shape of the clips, the model's own where none is asked for."""
    settings = bundle.settings
    return PixelShape(
        _given(options.frames, settings.frames),
        _given(options.height, settings.height),
        _given(options.width, settings.width),
    )


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def generate(
    bundle: Bundle,
    options: GenerateOptions,
    on_step: OnStep | None = None,
    on_estimate: OnStep | None = None,
    indices: Iterable[int] | None = None,
    conditioning: Conditioning | None = None,
) -> Iterator[Generated]:
    """Sample clips one after another; each depends on (seed, its index) and the options alone.

    Args:
        bundle: the model.
        options: what and how.
        on_step: called after each step with its number (from 1) and x_t (1, L).
        on_estimate: called likewise with the x_1 (1, L) drawn.
        indices: of the clips to make; None makes all.
        conditioning: latent frames that every clip is given.

    Yields:
        The clips, as soon as each is done.

    Raises:
        ShapeError: the size doesn't fit the model's strides.
        UsageError: an option out of range.
    """
    for index in range(options.num) if indices is None else indices:
        pass_ = Pass(bundle, [options])
        given = () if conditioning is None else [conditioning]
        (codes,) = pass_.sample([index], on_step, on_estimate, given)
        yield Generated(index, options.seed, codes, pass_.grid)


class Pass:
    """Clips whose codes go through the network together.

    Args:
        bundle: the model.
        options: of each clip; they agree but for prompt, negative, seed and motion.

    Raises:
        ShapeError: the size doesn't fit the model's strides.
        UsageError: an option out of range.
    """

    def __init__(self, bundle: Bundle, options: Sequence[GenerateOptions]) -> None:
        settings, one = bundle.settings, options[0]
        self.bundle, self._options = bundle, options
        self.device = bundle.device
        self.grid = bundle.grid(pixel_shape(bundle, one))
        self.guidance = Guidance(
            _given(one.guidance, settings.guidance),
            _given(one.guidance_interval, settings.guidance_interval),
        )
        self.times = time_grid(_given(one.steps, settings.steps), _given(one.shift, settings.shift))
        negatives = [full_negative(bundle, each) for each in options]
        prompts = [full_prompt(bundle, each) for each in options]
        ids = bundle.text_tokenizer.encode([*prompts, *negatives]).to(self.device)
        self.prompt_ids, self.negative_ids = ids.chunk(2)
        self.is_unguided = (self.prompt_ids == self.negative_ids).all(1).tolist()
        if all(self.is_unguided):
            self.guidance = Guidance()  # both halves would be the same

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._options)

    def network(self, prompt_ids: Tensor, x_t: Tensor) -> Tensor:
        """Hidden states (B, L, D) of prompts (B, S) and codes (B, L)."""
        self.bundle.take_turn(self.bundle.transformer)
        rows = 1 if self.bundle.offload else len(x_t)
        parts = zip(prompt_ids.split(rows), x_t.split(rows), strict=True)
        return torch.cat([self.bundle.transformer(ids, x, self.grid) for ids, x in parts])

    def _head(self, hidden: Tensor) -> Tensor:
        # A path with a mask state has one embedding more than there are codes to predict.
        return self.bundle.transformer.head(hidden)[..., : self.bundle.path.num_codes]

    def _generators(self, name: str, indices: Sequence[int]) -> list[torch.Generator]:
        pairs = zip(self._options, indices, strict=True)
        return [stream(each.seed, name, index) for each, index in pairs]

    @torch.inference_mode()
    def sample(
        self,
        indices: Sequence[int],
        on_step: OnStep | None = None,
        on_estimate: OnStep | None = None,
        conditionings: Sequence[Conditioning] = (),
    ) -> list[Tensor]:
        """Codes int64 (F, H, W) of each clip, the random streams of these indices drawn from.

        Args:
            indices: one a clip.
            on_step: called after each step.
            on_estimate: called likewise with the x_1 drawn, locked frames as they were given.
            conditionings: latent frames that each clip is given, the same ones of the grid, held
                alike and with the same noise; none are given where it is empty.

        Raises:
            ShapeError: they don't fit the grid.
            UsageError: their noise is out of range, or nothing is left to sample.
        """
        path, grid = self.bundle.path, self.grid
        generators = self._generators("sample", indices)
        x_0 = path.initial((len(generators), grid.num_codes), generators, self.device)
        start = Start(x_0, self.times)
        if conditionings:
            noise = self._generators("given", indices)
            given = zip(conditionings, x_0.split(1), noise, strict=True)
            start = joined([one.start(path, x, self.times, grid, [own]) for one, x, own in given])

        def finished(x_1: Tensor) -> Tensor:
            if not conditionings:
                return x_1
            pairs = zip(conditionings, x_1.split(1), strict=True)
            return torch.cat([one.finish(x) for one, x in pairs])

        told = on_estimate and (lambda step, x_1: on_estimate(step, finished(x_1)))
        x_1 = self._denoise(start, generators, on_step, told)
        return list(finished(x_1).view(-1, grid.frames, grid.rows, grid.columns))

    @torch.inference_mode()
    def run(self, start: Start, indices: Sequence[int], on_step: OnStep | None = None) -> Tensor:
        """Codes int64 (B, L) at the last of a start's times, which needn't be 1."""
        return self._denoise(start, self._generators("sample", indices), on_step)

    def _denoise(
        self,
        start: Start,
        generators: Sequence[torch.Generator],
        on_step: OnStep | None,
        on_estimate: OnStep | None = None,
    ) -> Tensor:
        one = self._options[0]
        return denoise(
            self.network,
            self._head,
            self.bundle.path,
            start.x_0,
            prompt_ids=self.prompt_ids,
            negative_ids=self.negative_ids,
            times=start.times,
            generators=generators,
            guidance=self.guidance,
            temperature=_given(one.temperature, self.bundle.settings.temperature),
            top_p=one.top_p,
            solver=one.solver,
            fixed=start.given,
            on_step=on_step,
            on_estimate=on_estimate,
        )


@torch.inference_mode()
def encode(bundle: Bundle, frames: Frames) -> Tensor:
    """Codes int64 (F, H, W) of frames uint8 (F', height, width, 3) that fit the strides."""
    bundle.take_turn(bundle.video_tokenizer)
    return bundle.video_tokenizer.encode(to_video(frames).to(bundle.device))[0]


def decode(bundle: Bundle, codes: Tensor) -> Frames:
    """Frames uint8 (F, height, width, 3) of codes (F, H, W)."""
    bundle.take_turn(bundle.video_tokenizer)
    return decode_frames(bundle.video_tokenizer, codes)
