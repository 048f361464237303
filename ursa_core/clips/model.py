"""A model in Python: `load` it, and let it make clips as the commands do."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ursa_core.bundle.hub import Progress
from ursa_core.bundle.options import Range, SamplingOptions, number_of
from ursa_core.clips.clip import Clip, decoded
from ursa_core.clips.extend import plan_extension
from ursa_core.clips.plan import PlacedModel, Plan, make_plan, place_model
from ursa_core.clips.requests import ExtensionOptions, InterpolationOptions, SampleInputs
from ursa_core.errors import ShapeError, UrsaWarning, UsageError
from ursa_core.media import Frames
from ursa_core.sampling.batching import Packer
from ursa_core.sampling.generate import decode, encode, generate

if TYPE_CHECKING:
    from ursa_core.clips.requests import Source

OnStep = Callable[[int, int], None]
"""Called after each step with the number of steps done and that of all."""


def load(
    model: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offload: bool = False,
    offload_blocks: int | None = None,
    compiled: bool = False,
    lora: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> "Model":
    """A model, ready to make clips.

    Args:
        model: Name of a shipped model, a model's folder, or a Hugging Face id (``owner/name``,
            ``owner/name@revision``), downloaded once.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto`` (bfloat16 where it is measured faster), ``float32``, ``bfloat16`` or
            ``float16``.
        offload: Whether networks take turns on the device, which saves its memory.
        offload_blocks: Number of the transformer's layers on the device, 1 or more; the others wait
            in the CPU's memory until it is their turn. Offloads, too.
        compiled: Whether the transformer is compiled; pays where many clips are made.
        lora: Folder of a LoRA adapter, as ``FOLDER`` or ``FOLDER:SCALE``, or several of them.
        progress: Context manager of a download's progress, called with the bytes and a label.

    Raises:
        CheckpointError: There is no such model, or it is damaged.
        UsageError: There is no such device or number format.
        DeviceError: This machine doesn't have the device.
    """
    adapters = [lora] if isinstance(lora, str) else lora
    placed = place_model(
        model, device, dtype, offload=offload, offload_blocks=offload_blocks, compiled=compiled,
        lora=adapters, progress=progress,
    )  # fmt: skip
    return Model(placed)


class Model:
    """A model that makes clips; `load` gives one.

    Every method that samples takes the options of its command by the same names: ``seed``,
    ``negative``, ``frames``, ``size`` (``"HxW"`` or (height, width)), ``fps``, ``motion``, ``crf``,
    ``steps``, ``guidance``, ``guidance_interval``, ``solver``, ``shift``, ``correct``,
    ``temperature``, ``top_p``; or a whole `SamplingOptions` as ``options``, which the others then
    change. Without a seed one is drawn, and recorded in ``clip.metadata``. ``on_step`` is called
    after each step with the number of steps done and that of all. What can't be made raises an
    `UrsaError`.

    Frames that a method is given are taken by ``cond``: ``lock`` keeps them as they are, ``soft``
    refines them with the rest. They enter with the noise ``cond_noise``, 0 to below 1; ``fit``
    scales and crops them to the clip's size, and ``source_fps`` is a clip's rate, whatever it
    states.
    """

    def __init__(self, placed: PlacedModel) -> None:
        self.placed = placed
        self.bundle = placed.load()
        self._packer = Packer(self.bundle)

    def __repr__(self) -> str:
        return f"<Model {self.name} on {self.placed.device}, {self.placed.dtype}>"

    @property
    def name(self) -> str:
        """Name of the model, at its commit if it came from the hub."""
        return self.placed.name

    @property
    def defaults(self) -> SamplingOptions:
        """The model's own sampling options."""
        return self.placed.defaults

    def sample(  # noqa: D417 - the class describes what all share
        self,
        prompt: str,
        *,
        image: "Source | None" = None,
        video: "Source | None" = None,
        strength: float | None = None,
        cond: str | None = None,
        cond_noise: float | None = None,
        fit: bool = False,
        source_fps: float | None = None,
        index: int = 0,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
        **changes: Any,
    ) -> Clip:
        """A clip from text; from text and a first frame; or another clip, edited.

        Args:
            prompt: What to show; "" leaves it to the model.
            image: First frame: a file, an array uint8 (H, W, 3) or a PIL image.
            video: Clip to edit: a file, a `Clip` or an array uint8 (F, H, W, 3).
            strength: Share of ``video`` that is redone, 0.001 (hardly any) to 1 (all).
            index: Number of the clip among those of its seed, as with ``--num``.
        """
        inputs = SampleInputs(image, video, strength, cond, cond_noise, fit, source_fps, prompt)
        inputs.check()
        given = self._options(options, changes)
        index = number_of("index", index, Range(0, 9_999_999, "0 to 9999999"), int)
        return self._make(inputs.plan(self.placed, given, None, index + 1), on_step, index)

    def sample_batch(  # noqa: D417 - the class describes what all share
        self,
        prompts: Sequence[str],
        *,
        seeds: Iterable[int] | None = None,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
        **changes: Any,
    ) -> list[Clip]:
        """One clip per prompt, in one pass of the network: the same clips as one by one.

        Args:
            prompts: What the clips show.
            seeds: One per prompt; without them they are drawn.
        """
        if "seed" in changes:
            raise UsageError("`seed` is of one clip", "give `seeds`, one per prompt")
        own: Sequence[int | None] = [None] * len(prompts) if seeds is None else list(seeds)
        if len(own) != len(prompts):
            hint = "give one per prompt"
            raise UsageError(f"{len(own)} seeds can't be those of {len(prompts)} prompts", hint)
        given = self._options(options, changes)
        plans = [
            make_plan(self.placed, {**given, "seed": seed}, prompt)
            for prompt, seed in zip(prompts, own, strict=True)
        ]
        for plan in plans:
            plan.check_memory(len(plans))
            _warn(plan.warnings(self.bundle))
        step = _counter(sum(plan.num_steps for plan in plans), on_step)
        passes = self._packer.passes([plan.request() for plan in plans]) if plans else []
        codes = [made for each in passes for made in each.sample(partial(step, len(each)))]
        return [decoded(self.bundle, *each) for each in zip(plans, codes, strict=True)]

    def interpolate(  # noqa: D417 - the class describes what all share
        self,
        prompt: str = "",
        *,
        first: "Source | None" = None,
        last: "Source | None" = None,
        keyframes: "Mapping[int, Source] | list[str] | None" = None,
        loop: bool = False,
        cond: str | None = None,
        cond_noise: float | None = None,
        fit: bool = False,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
        **changes: Any,
    ) -> Clip:
        """A clip that goes from one image to another, or through several.

        Args:
            prompt: What to show; without one the images decide.
            first: Image of the first frame.
            last: Image of the last frame.
            keyframes: Images by frame, counted from 0; or texts ``IMAGE@FRAME``.
            loop: Lead back to the first frame, which follows the last when the clip is repeated.
        """
        wanted = InterpolationOptions(first, last, keyframes, loop, prompt, cond, cond_noise, fit)
        wanted.check()
        return self._make(wanted.plan(self.placed, self._options(options, changes), None), on_step)

    def extend(  # noqa: D417 - the class describes what all share
        self,
        clip: "Source",
        prompt: str | Sequence[str] | None = None,
        *,
        seconds: float | None = None,
        frames: int | None = None,
        before: bool = False,
        overlap: int | None = None,
        chain: str | None = None,
        schedule: str = "together",
        cond: str | None = None,
        cond_noise: float | None = None,
        fit: bool = False,
        source_fps: float | None = None,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
        **changes: Any,
    ) -> Clip:
        """A clip made longer, in rounds, its own frames unchanged.

        Args:
            clip: Clip to go on from: a file, a token file (.safetensors), a `Clip` or an array
                uint8 (F, H, W, 3).
            prompt: What follows; several take equal shares of it. None is that of the clip.
            seconds: Length of the result, the clip's own frames counted.
            frames: The same in frames.
            before: Make what comes before the clip.
            overlap: Frames that a round is given; None is about a quarter of the model's.
            chain: Rounds chain as ``tokens`` or as ``pixels``; None is the model's own way.
            schedule: ``together``, or ``diagonal``, where earlier frames are ahead in time.
        """
        several = [prompt] if isinstance(prompt, str) else list(prompt or ())
        wanted = ExtensionOptions(
            clip, several or None, seconds, frames, before, overlap, chain, schedule, cond,
            cond_noise, fit, source_fps,
        )  # fmt: skip
        wanted.check()
        given = self._options(options, changes)
        planned = plan_extension(self.placed, given, wanted, None, partial(decode, self.bundle))
        _warn([*planned.warnings, *planned.prompt_warnings(self.bundle)])
        step = partial(_counter(sum(planned.round_steps), on_step), 1)
        return planned.make(self.bundle, None, step)[0]

    def encode(self, frames: Frames) -> Tensor:
        """Codes int64 (F, H, W) of frames uint8 (F', height, width, 3), or a ShapeError."""
        return encode(self.bundle, np.asarray(frames)).cpu()

    def decode(self, codes: Tensor | np.ndarray[Any, Any]) -> Frames:
        """Frames uint8 (F', height, width, 3) of codes int64 (F, H, W); ShapeError for others."""
        try:
            codes = torch.as_tensor(codes)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(f"these are no codes: {error}", "give int64 (F, H, W)") from error
        num_codes = self.bundle.path.num_codes
        is_whole = not (codes.is_floating_point() or codes.is_complex())
        is_clip = is_whole and codes.ndim == 3 and codes.numel() > 0
        if not (is_clip and int(codes.min()) >= 0 and int(codes.max()) < num_codes):
            hint = f"give int64 (F, H, W) from 0 to {num_codes - 1}"
            raise ShapeError(f"codes of {codes.dtype} {tuple(codes.shape)} can't be decoded", hint)
        return decode(self.bundle, codes.long())

    def _options(
        self, options: SamplingOptions | None, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Options as users give them, a whole record spread out."""
        if options is None:
            return dict(changes)
        own = {name: value for name, value in vars(options).items() if name in vars(self.defaults)}
        if own["motion"] == self.defaults.motion:
            del own["motion"]  # the task's own: a model that takes none is given none
        return {**own, **changes}

    def _make(self, plan: Plan, on_step: OnStep | None, index: int = 0) -> Clip:
        plan.check_memory()
        _warn(plan.warnings(self.bundle, index), 4)
        request, conditioning = plan.request(index), plan.conditioning(self.bundle)
        step = partial(_counter(plan.num_steps, on_step), 1)
        codes = generate(self.bundle, request, step, conditioning=conditioning)
        return decoded(self.bundle, plan, codes, index)


def _counter(total: int, on_step: OnStep | None) -> Callable[..., None]:
    """Counts, for a callback, a step of each of so many clips."""
    done = 0

    def count(num: int, *_: object) -> None:
        nonlocal done
        done += num
        if on_step is not None:
            on_step(done, total)

    return count


def _warn(texts: Sequence[str], level: int = 3) -> None:
    """Warn in Python's way, at the caller of the model's method."""
    for text in texts:
        warnings.warn(text, UrsaWarning, stacklevel=level)
