"""A clip made longer in rounds: each is given the end of what there is and makes what follows.

Chained in tokens, a round is given the last latent frames, and all is decoded once, in one piece.
For a window's first latent frame that is unusual: as a clip's first it would stand for one frame,
not for a stride of them, which a model learns from windows cut from the middle of longer clips.
Chained in pixels, the last frames are encoded again, as the beginning of a clip.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ursa_core.bundle.bundle import Bundle, load_tokenizer
from ursa_core.clips import cond_frames
from ursa_core.clips.clip import Clip
from ursa_core.clips.plan import PlacedModel, Plan, make_plan, prompt_warnings
from ursa_core.clips.requests import ExtensionOptions, cond_or_default
from ursa_core.clips.round_store import RoundStore
from ursa_core.errors import DataError, ShapeError, UsageError
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.media import Frames, check_format, read_media
from ursa_core.media.quality import psnr
from ursa_core.sampling.conditioning import Cond, Conditioning
from ursa_core.sampling.denoise import OnStep
from ursa_core.sampling.generate import Request, Sampler, decode, encode, generate
from ursa_core.sampling.rolling import roll_on, stage_steps
from ursa_core.seeding import stream, stream_seed
from ursa_core.tokenizers.visual import decode_frames

Chain = Literal["tokens", "pixels"]
NextCodes = Callable[[Callable[[Request], Tensor]], Tensor]


@dataclass(frozen=True)
class Extension:
    """How a clip is made longer.

    The new frames of a round go ``together``, or on a rolling ``diagonal`` on which earlier ones
    are ahead in time, and a round ends with the first of them.
    """

    own_frames: int  # frames of the clip
    frames: int  # frames of the result
    window: int  # frames that a round makes, those that it is given among them
    overlap: int  # frames that a round is given, 1 + a multiple of the temporal stride
    prompts: tuple[str, ...]  # one per segment; segments take even shares of the rounds
    before: bool  # make what comes before the clip instead of what follows
    chain: Chain  # what of a round the next one is given
    schedule: Literal["together", "diagonal"]
    stride: int  # the model's temporal stride
    cond: Cond
    cond_noise: float  # noise in [0, 1] that given frames enter with

    def check(self) -> None:
        """Refuse what can't be made: UsageError, or DataError for a clip that is too short."""
        if (self.overlap - 1) % self.stride or not 1 <= self.overlap < self.window:
            fitting = range(1, self.window, self.stride)
            hint = f"use one of {', '.join(map(str, fitting))}" if fitting else "use a video model"
            raise ShapeError(f"an overlap of {self.overlap} frames can't be used", hint)
        if self.before and self.chain == "tokens":
            raise UsageError(
                "what comes before a clip can't chain in tokens: its first latent frame would have"
                " to stand for more than one frame",
                "add `chain=pixels`",
            )
        if self.schedule == "diagonal" and self.chain == "pixels":
            fault = "a rolling diagonal can't chain in pixels: its frames are at different times"
            raise UsageError(fault, "add `chain=tokens`")
        if self.schedule == "diagonal" and self.cond == "soft" and self.cond_noise > 0:
            fault = "frames given to a rolling diagonal are done, and can't be refined"
            raise UsageError(fault, "leave out `cond=soft`")
        if self.before and self.overlap == 1:
            fault = "an overlap of 1 frame gives nothing to make what comes before it"
            raise ShapeError(fault, f"use {1 + self.stride} or more")
        if self.own_frames < self.overlap:
            count = f"{self.own_frames} frame{'s' * (self.own_frames != 1)}"
            hint = "give a longer clip or a smaller `overlap`"
            raise DataError(f"the clip has {count}, fewer than the overlap of {self.overlap}", hint)
        if self.frames <= self.own_frames:
            fault = f"the clip has {self.own_frames} frames, so {self.frames} don't extend it"
            raise UsageError(fault, "ask for more frames or seconds; they count the clip's own")
        if len(self.prompts) > self.num_rounds:
            rounds = f"{self.num_rounds} round{'s' * (self.num_rounds != 1)}"
            hint = "give fewer prompts, or make the video longer"
            raise UsageError(f"{len(self.prompts)} prompts can't share {rounds}", hint)

    @property
    def frames_per_round(self) -> int:
        """New frames of a round."""
        return self.stride if self.schedule == "diagonal" else self.window - self.overlap

    @property
    def num_cond(self) -> int:
        """Latent frames that a round is given in tokens."""
        return 1 + (self.overlap - 1) // self.stride

    @property
    def num_rounds(self) -> int:
        """Rounds that the result takes; the last one's surplus is cut off."""
        return -(-(self.frames - self.own_frames) // self.frames_per_round)

    def steps_of(self, index: int, steps: int) -> int:
        """Network calls of round ``index``, where a clip takes ``steps``."""
        if self.schedule == "together":
            return steps
        num_new = 1 + (self.window - 1) // self.stride - self.num_cond
        return stage_steps(steps, num_new) * (num_new if index == 0 else 1)

    def prompt_of(self, index: int) -> str:
        """What round ``index`` shows."""
        return self.prompts[index * len(self.prompts) // self.num_rounds]


def default_overlap(window: int, stride: int) -> int:
    """About a quarter of the window, as the paper's 13 of 49; at least one stride of frames."""
    return 1 + stride * max(1, round((window * 13 / 49 - 1) / stride))


def extend(
    bundle: Bundle,
    clip: Frames,
    extension: Extension,
    request: Request,
    store: RoundStore | None = None,
    on_step: OnStep | None = None,
    on_round: Callable[[bool], None] | None = None,
    codes: Tensor | None = None,
) -> tuple[list[dict[str, Any]], Frames]:
    """Make a clip uint8 (own_frames, H, W, 3) longer; its frames are in the result as they are.

    Rounds are sampled as the request says, but for prompt and frames. Those that the store holds
    aren't made again; ``on_step`` is called after each step of one that is made, ``on_round`` after
    each, with whether it was there. A clip that came as codes int64 (F, H, W) has them given.

    Returns:
        Per round its ``index``, ``prompt`` and whether it was ``resumed``; ``colour_drift``, the
        distance of its mean colour to the clip's in RGB levels, 0 to 442; ``sharpness``, the mean
        difference of neighbouring pixels, as a share of the clip's; ``join_change``, the mean
        change of a pixel across the join, in levels, and ``median_change``, the median of that
        between its frames. And all frames, cut to the length that was asked for.
    """
    options = replace(request.options_for(bundle), frames=extension.window)
    resumed: list[bool] = []

    def next_codes(make: Callable[[Request], Tensor]) -> Tensor:
        """Codes (F, H, W) of the next round's window, made or taken from the store."""
        index = len(resumed)
        window = None if store is None else store.load(index)
        resumed.append(window is not None)
        if window is None:
            seed, prompt = stream_seed(request.seed, "round", index), extension.prompt_of(index)
            window = make(replace(request, options=options, prompt=prompt, seed=seed))
            if store is not None:
                store.save(index, window)
        if on_round:
            on_round(resumed[-1])
        return window

    grid = bundle.grid(options.shape)
    if extension.chain == "tokens":
        new = _in_tokens(bundle, extension, grid, clip, codes, next_codes, on_step)
    else:
        new = _in_pixels(bundle, extension, grid, clip, next_codes, on_step)
    # Everything grows at its end here; what comes before the clip is turned round.
    turn = slice(None, None, -1 if extension.before else 1)
    frames = np.concatenate([clip[turn], new])[: extension.frames]
    each, own = extension.frames_per_round, extension.own_frames
    rows = []
    for index, is_resumed in enumerate(resumed):
        start, end = own + index * each, own + (index + 1) * each
        part, joined = frames[start:end], frames[start - 1 : end].astype(np.float32)
        changes = np.abs(np.diff(joined, axis=0)).mean((1, 2, 3))  # the first is across the join
        rows.append({
            "index": index,
            "prompt": extension.prompt_of(index),
            "colour_drift": float(np.linalg.norm(part.mean((0, 1, 2)) - clip.mean((0, 1, 2)))),
            "sharpness": _sharpness(part) / max(_sharpness(clip), 1e-6),
            "join_change": float(changes[0]),
            "median_change": float(np.median(changes[1:])) if len(changes) > 1 else 0.0,
            "resumed": is_resumed,
        })  # fmt: skip
    return rows, frames[turn]


def _in_tokens(
    bundle: Bundle, extension: Extension, grid: LatentGrid, clip: Frames, codes: Tensor | None,
    next_codes: NextCodes, on_step: OnStep | None,
) -> Frames:  # fmt: skip
    """The new frames, chained as codes and decoded with the clip before them."""
    num_cond, stride = extension.num_cond, extension.stride
    if codes is None:  # the end of the clip, as much as a round may see
        latents = min((len(clip) - 1) // stride, grid.frames - 1)
        codes = encode(bundle, clip[-1 - stride * latents :])
    chain = codes.cpu()
    own = 1 + stride * (len(chain) - 1)
    window = torch.zeros(grid.frames, grid.rows, grid.columns, dtype=torch.int64)

    def together(request: Request) -> Tensor:
        codes = torch.cat([chain[-num_cond:], window[num_cond:]])
        mask = torch.arange(grid.frames) < num_cond
        conditioning = Conditioning(codes, mask, extension.cond, extension.cond_noise)
        return generate(bundle, request, on_step, conditioning=conditioning)

    def on_diagonal(is_first: bool, request: Request) -> Tensor:
        rest = window[num_cond + 1 :]  # moves up, and noise takes the last one's place
        moved_up = torch.cat([chain[-num_cond:], rest, window[:1]])
        sampler, noise = Sampler(bundle, [request]), stream(request.seed, "given")
        return roll_on(sampler, moved_up, num_cond, extension.cond_noise, is_first, noise, on_step)

    for index in range(extension.num_rounds):
        if extension.schedule == "diagonal":  # whose rounds end with one new frame
            window = next_codes(partial(on_diagonal, index == 0)).cpu()
            new = window[num_cond : num_cond + 1]
        else:
            new = next_codes(together).cpu()[num_cond:]
        chain = torch.cat([chain, new])
    return cond_frames.following(clip, decode(bundle, chain), own)


def _in_pixels(
    bundle: Bundle, extension: Extension, grid: LatentGrid, clip: Frames, next_codes: NextCodes,
    on_step: OnStep | None,
) -> Frames:  # fmt: skip
    """The new frames, each round encoded again; in the order in which they are made."""
    overlap = extension.overlap
    turn = slice(None, None, -1 if extension.before else 1)
    # At the window's end all of the piece but its first frame is given.
    num_cond = (overlap - 1) // bundle.video_tokenizer.strides.temporal
    place = grid.frames - num_cond if extension.before else 0
    frames = clip[turn]

    def make(request: Request) -> Tensor:
        piece = {place: frames[-overlap:][turn]}
        conditioning = cond_frames.condition(
            bundle, grid, piece, extension.cond, extension.cond_noise
        )
        return generate(bundle, request, on_step, conditioning=conditioning)

    for _ in range(extension.num_rounds):
        window = decode(bundle, next_codes(make))[turn]
        frames = np.concatenate([frames, cond_frames.following(frames, window, overlap)])
    return frames[len(clip) :]


def _sharpness(frames: Frames) -> float:
    """Mean difference of neighbouring pixels, in levels."""
    values = frames.astype(np.float32)
    return float(sum(np.abs(np.diff(values, axis=axis)).mean() for axis in (1, 2)))


@dataclass(frozen=True)
class ExtendPlan:
    """Everything that is known before the weights are loaded; the plan's rate is the file's."""

    plan: Plan
    extension: Extension
    media: cond_frames.CondMedia
    warnings: list[str]

    @property
    def provenance(self) -> dict[str, Any]:
        """What the video is made of; it decides every round."""
        return {
            **self.plan.provenance,
            **asdict(self.extension),
            "prompt": self.extension.prompts[0],
            "given": self.media.provenance,
        }

    @property
    def of_rounds(self) -> dict[str, Any]:
        """What kept rounds record: the tokenizer that their codes are of, too."""
        return {**self.provenance, "tokenizer": self.plan.model.tokenizer}

    @property
    def round_steps(self) -> list[int]:
        """Steps of each round."""
        steps, extension = self.plan.num_steps, self.extension
        return [extension.steps_of(index, steps) for index in range(extension.num_rounds)]

    def prompt_warnings(self, bundle: Bundle) -> list[str]:
        """What the model can't take of the prompts."""
        request = self.plan.request()
        each = (replace(request, prompt=prompt) for prompt in self.extension.prompts)
        return [warning for request in each for warning in prompt_warnings(bundle, request)]

    def make(
        self,
        bundle: Bundle,
        store: RoundStore | None = None,
        on_step: OnStep | None = None,
        on_round: Callable[[bool], None] | None = None,
    ) -> tuple[Clip, list[dict[str, Any]]]:
        """The longer clip and its rounds; the other arguments are those of `extend`."""
        options, media = self.plan.options, self.media
        rounds, frames = extend(
            bundle, media.frames, self.extension, self.plan.request(), store, on_step, on_round,
            media.codes,
        )  # fmt: skip
        return Clip(frames, None, options.fps, self.provenance, options.crf), rounds

    def make_file(
        self,
        bundle: Bundle,
        store: RoundStore,
        out: str,
        on_step: OnStep,
        on_round: Callable[[bool], None] | None = None,
    ) -> dict[str, Any]:
        """Make the clip, write it, and delete what was kept for it.

        Metrics: ``kept``, how near its own frames are (PSNR None if unmeasured), and ``rounds``.
        """
        clip, rounds = self.make(bundle, store, on_step, on_round)
        clip.save(out)
        store.remove()
        media, own, frames = self.media, self.extension.own_frames, self.extension.frames
        start, written = frames - own if self.extension.before else 0, read_media(out).frames
        kept = {"file": media.file, "frame": start, "frames": own, "psnr": None}
        if len(written) == frames:  # animations join equal ones
            kept["psnr"] = psnr(written[start : start + own], media.frames)
        return {"kept": [kept], "rounds": rounds}


def plan_extension(
    model: PlacedModel,
    options: Mapping[str, Any],
    wanted: ExtensionOptions,
    out: str | None,
    decoded: Callable[[Tensor], Frames] | None = None,
) -> ExtendPlan:
    """What making a clip longer, as ``wanted`` and checked, will take, the clip read; UrsaError.

    Whether ``out`` can be written is the caller's to check; ``decoded`` gives the frames of a clip
    that is a token file, for which a tokenizer is loaded otherwise.
    """
    # `frames` counts those of the result; a round has the model's own.
    options = {**options, "frames": None, **model.found.settings.extending(options)}
    plan = make_plan(model, options, (wanted.prompts or [""])[0])
    plan.check_memory()
    shape, stride, source = plan.options.shape, model.found.strides.temporal, wanted.clip
    size = PixelShape(1, shape.height, shape.width)
    own_fps: float | None = options.get("fps")

    def alone(codes: Tensor) -> Frames:
        return decode_frames(load_tokenizer(model.found.folder, model.device)[0], codes)

    file = cond_frames.label(source)
    if file.lower().endswith(".safetensors"):
        media = cond_frames.read_tokens(file, size, model.tokenizer, decoded or alone)
    else:
        media = cond_frames.read_clip(source, size, wanted.fit, own_fps, True, wanted.source_fps)
    fps = own_fps or media.fps or plan.options.fps
    warnings = [*model.found.notes, *media.notes]
    if fps != plan.options.fps:
        warnings.append(
            f"{media.file} has {fps:g} frames a second and the model makes"
            f" {plan.options.fps:g}: motion will change its speed"
        )
    recorded = media.metadata.get("prompt")
    overlap = default_overlap(shape.frames, stride) if wanted.overlap is None else wanted.overlap
    best = "pixels" if wanted.before else model.found.settings.chain
    cond, cond_noise = cond_or_default(wanted.cond, wanted.cond_noise)
    extension = Extension(
        own_frames=len(media.frames), frames=wanted.frames or round((wanted.seconds or 0) * fps),
        window=shape.frames, overlap=overlap,
        prompts=tuple(wanted.prompts or [recorded if isinstance(recorded, str) else ""]),
        before=wanted.before, chain="tokens" if (wanted.chain or best) == "tokens" else "pixels",
        schedule="diagonal" if wanted.schedule == "diagonal" else "together", stride=stride,
        cond=cond, cond_noise=cond_noise,
    )  # fmt: skip
    extension.check()
    if out is not None:
        check_format(out, PixelShape(extension.frames, shape.height, shape.width), fps)
    plan = replace(plan, options=replace(plan.options, fps=fps))
    return ExtendPlan(plan, extension, media, warnings)
