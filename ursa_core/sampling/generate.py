"""Prompt in, codes out: one call that prepares noise, prompts and times for the denoising loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ursa_core.bundle import Bundle
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.media import Frames
from ursa_core.sampling.denoise import denoise
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
    temperature: float = 1.0
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
    """The prompt as the model reads it, with a motion prefix where it was trained with one."""
    if not bundle.settings.motion_prefix or not options.prompt:
        return options.prompt
    motion = 9.0 if options.motion is None else options.motion
    return f"motion={motion:.1f}, {options.prompt}"


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
    bundle: Bundle, options: GenerateOptions, on_step: Callable[[int, Tensor], None] | None = None
) -> Iterator[Generated]:
    """Sample clips one after another; each depends on (seed, its index) and the options alone.

    Args:
        bundle: the model.
        options: what and how.
        on_step: called after each step with its number (from 1) and x_t (1, L).

    Yields:
        The clips, as soon as each is done.

    Raises:
        ShapeError: the size doesn't fit the model's strides.
        UsageError: an option out of range.
    """
    settings = bundle.settings
    transformer, path = bundle.transformer, bundle.path
    grid = bundle.grid(pixel_shape(bundle, options))
    device = bundle.device
    guidance = Guidance(
        _given(options.guidance, settings.guidance),
        _given(options.guidance_interval, settings.guidance_interval),
    )
    times = time_grid(_given(options.steps, settings.steps), _given(options.shift, settings.shift))
    negative = _given(options.negative, settings.negative)
    ids = bundle.text_tokenizer.encode([full_prompt(bundle, options), negative]).to(device)
    if bool((ids[0] == ids[1]).all()):
        guidance = Guidance()  # both halves would be the same

    def network(prompt_ids: Tensor, x_t: Tensor) -> Tensor:
        rows = 1 if bundle.offload else len(x_t)
        parts = zip(prompt_ids.split(rows), x_t.split(rows), strict=True)
        return torch.cat([transformer(ids, codes, grid) for ids, codes in parts])

    def head(hidden: Tensor) -> Tensor:
        # A path with a mask state has one embedding more than there are codes to predict.
        return transformer.head(hidden)[..., : path.num_codes]

    for index in range(options.num):
        bundle.take_turn(transformer)
        generator = stream(options.seed, "sample", index, device)
        x_0 = path.initial((1, grid.num_codes), generator, device)
        with torch.inference_mode():
            x_1 = denoise(
                network,
                head,
                path,
                x_0,
                ids[:1],
                ids[1:],
                times,
                generator,
                guidance=guidance,
                temperature=options.temperature,
                top_p=options.top_p,
                solver=options.solver,
                on_step=on_step,
            )
        codes = x_1.view(grid.frames, grid.rows, grid.columns)
        yield Generated(index, options.seed, codes, grid)


def decode(bundle: Bundle, codes: Tensor) -> Frames:
    """Frames uint8 (F, height, width, 3) of codes (F, H, W)."""
    bundle.take_turn(bundle.video_tokenizer)
    return decode_frames(bundle.video_tokenizer, codes)
