"""What sampling a clip will take: known before any weight is loaded."""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ursa_core import __version__
from ursa_core.bundle.adapters import Adapter, check_adapter, is_adapter, read_adapter
from ursa_core.bundle.bundle import Bundle, load_bundle, resolve_model
from ursa_core.bundle.folder import model_identity, tokenizer_identity
from ursa_core.bundle.hub import Progress, name_of
from ursa_core.bundle.options import MAX_SEED, SamplingOptions, checked, require, require_text
from ursa_core.bundle.subjects import named_subjects, nearest_subjects
from ursa_core.bundle.summary import SamplingMemory, Summary, summary
from ursa_core.clips.cond_frames import CondFrames
from ursa_core.devices import check_compiler, pick_device, pick_dtype, total_memory_bytes
from ursa_core.encoding.caption_fit import visible
from ursa_core.errors import CheckpointError, DeviceError, UsageError
from ursa_core.media import Frames, check_format
from ursa_core.places import located
from ursa_core.sampling.conditioning import Conditioning
from ursa_core.sampling.generate import Request, full_negative, full_prompt
from ursa_core.sampling.guidance import Guidance
from ursa_core.sampling.time_grid import time_grid, times_from

MAX_SHOWN = 60  # characters shown of what is cut off
MAX_WORDS = 8  # unknown words shown


@dataclass(frozen=True)
class PlacedModel:
    """A model, digits that change with its files, and where and how its networks run."""

    found: Summary
    identity: str
    device: torch.device
    dtype: torch.dtype
    offload: bool
    compiled: bool
    adapters: tuple[Adapter, ...] = ()
    offload_blocks: int | None = None

    @cached_property
    def name(self) -> str:
        """Name of the model, at its commit if it came from the hub."""
        return name_of(self.found.folder, exact=True)

    @cached_property
    def tokenizer(self) -> str:
        """Identity of its tokenizer, which codes record; of large files it takes a while."""
        return tokenizer_identity(self.found.folder)

    @property
    def defaults(self) -> SamplingOptions:
        """The model's own sampling options."""
        return replace(self.found.settings.defaults, solver=self.found.solvers[0])

    def load(self) -> Bundle:
        """The model, in its place."""
        return load_bundle(
            self.found.folder, self.device, self.dtype, offload=self.offload,
            offload_blocks=self.offload_blocks, compiled=self.compiled, adapters=self.adapters,
        )  # fmt: skip


def place_model(
    model: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    *,
    offload: bool = False,
    offload_blocks: int | None = None,
    compiled: bool = False,
    lora: Sequence[str] = (),
    progress: Progress | None = None,
) -> PlacedModel:
    """A model and its placement; arguments and errors are those of `ursa_core.load`."""
    require_text("model", str(model))
    blocks = offload_blocks
    ok = blocks is None or (isinstance(blocks, int) and blocks >= 1)
    require(ok, "offload_blocks", blocks, "1 layer or more")
    if blocks is not None and compiled:
        fault = "`offload_blocks` doesn't go with a compiled transformer (--compile)"
        raise UsageError(fault, "leave out one of the two; `offload=True` goes with both")
    found = summary(model_folder(model, progress))
    adapters = read_adapters(lora, found.folder)
    where = pick_device(device)
    if compiled:
        check_compiler(where)
    number, identity = pick_dtype(dtype, where), model_identity(found.folder)
    offload = offload or blocks is not None
    return PlacedModel(found, identity, where, number, offload, compiled, adapters, blocks)


def model_folder(model: str | Path, progress: Progress | None = None) -> Path:
    """Folder of a model, downloaded where needed; CheckpointError for an adapter, too."""
    folder = resolve_model(model, progress)
    if is_adapter(folder):
        hint = f"give its model, and `lora={model}`"
        raise CheckpointError(f"{model} is an adapter, not a model", hint)
    return folder


def read_adapters(lora: Sequence[str], model: Path) -> tuple[Adapter, ...]:
    """Adapters given as ``FOLDER`` or ``FOLDER:SCALE``, checked against the model in a folder."""
    found = []
    for text in lora:
        require_text("folder of `lora`", text)
        folder, colon, number = text.rpartition(":")
        if not colon or number.startswith("//") or Path(text).is_dir():
            folder, number = text, "1"
        try:
            scale = float(number)
        except ValueError:
            scale = math.nan
        if not folder or not -1000 <= scale <= 1000:
            hint = "give FOLDER or FOLDER:SCALE, -1000 to 1000, as mine:0.8"
            raise UsageError(f"`lora` can't be {text}", hint)
        found.append(read_adapter(located(folder), scale))
    for adapter in found:
        check_adapter(adapter, model)
    return tuple(found)


@dataclass(frozen=True)
class Plan:
    """What clips, ``num`` by one seed, each with its own index, are to be made from one prompt.

    ``drop`` counts the frames at the end that aren't kept; ``strength`` is that of an edit, and
    None where the given frames are no video to edit.
    """

    model: PlacedModel
    prompt: str
    options: SamplingOptions
    seed: int
    num: int = 1
    cond_frames: CondFrames | None = None
    drop: int = 0
    strength: float | None = None

    def __post_init__(self) -> None:
        """Refuse given frames that leave nothing to make."""
        if self.cond_frames is not None:
            strides = self.model.found.strides
            self.cond_frames.check(strides.grid(self.options.shape), strides.temporal)

    def request(self, index: int = 0) -> Request:
        """What the sampler is asked for: clip ``index`` of the run."""
        return Request(self.prompt, self.seed, index, self.options)

    def conditioning(self, bundle: Bundle) -> Conditioning | None:
        """The given frames as latent frames; None without any."""
        grid = bundle.grid(self.options.shape)
        return None if self.cond_frames is None else self.cond_frames.conditioning(bundle, grid)

    def warnings(self, bundle: Bundle, index: int = 0) -> list[str]:
        """What the user might not expect of the given frames and of the prompt."""
        notes = [] if self.cond_frames is None else self.cond_frames.notes
        return [*self.model.found.notes, *notes, *prompt_warnings(bundle, self.request(index))]

    @property
    def step_times(self) -> torch.Tensor:
        """Times at which the network is called for one clip: float (num_steps,)."""
        start = 0.0 if self.strength is None else 1 - self.strength
        options, stored = self.options, self.model.found.settings.times_for(self.options)
        return times_from(time_grid(options.steps, options.shift, stored), start)[:-1]

    @property
    def num_steps(self) -> int:
        """Steps of one clip."""
        return len(self.step_times)

    @property
    def num_passes(self) -> int:
        """Sequences the network sees per clip: two per step while guidance acts, otherwise one."""
        options = self.options
        has_prefix = self.model.found.settings.motion_prefix and self.prompt and options.frames > 1
        if self.prompt == options.negative and not has_prefix:
            return self.num_steps
        guidance = Guidance(options.guidance, options.guidance_interval)
        return guidance.num_passes(self.step_times)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the clips are made of, as their metadata record it."""
        model, adapters = self.model, [each.provenance for each in self.model.adapters]
        options = vars(self.options).copy()
        # Null where all is drawn from, or motion is the model's.
        options["top_p"] = None if options["top_p"] == 1 else options["top_p"]
        if options["motion"] == model.found.settings.motion:
            options["motion"] = None
        of_file = {name: options.pop(name) for name in ("fps", "crf")}
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "num": self.num,
            **options,
            "model": model.name,
            "model_identity": model.identity,
            **({"lora": adapters} if adapters else {}),
            **of_file,
            "device": model.device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "offload": model.offload,
            "compiled": model.compiled,
            "ursa": __version__,
            **({"given": self.cond_frames.provenance} if self.cond_frames is not None else {}),
            **({"dropped_frames": self.drop} if self.drop else {}),
            **({"strength": self.strength} if self.strength is not None else {}),
        }

    def metadata(self, index: int = 0) -> dict[str, Any]:
        """What clip ``index`` of the run records."""
        return {**self.provenance, "index": index}

    @property
    def memory(self) -> SamplingMemory:
        """Estimated peak memory."""
        model = self.model
        return model.found.memory(
            model.dtype.itemsize,
            self.options.shape,
            model.device.type,
            guided=self.options.guidance != 1,
            offload=model.offload,
            offload_blocks=model.offload_blocks,
        )

    def check_memory(self, at_once: int = 1) -> None:
        """Refuse so many clips in one pass, with a DeviceError, if the device is far too small."""
        memory, there = self.memory, total_memory_bytes(self.model.device)
        num = 1 if self.model.offload else at_once  # clips take turns then, too
        needed = replace(memory, activations=num * memory.activations).total
        if there is not None and needed > 1.2 * there:  # clearly: the estimate is rough
            raise DeviceError(
                f"{self.options.shape} takes about {needed / 1e9:.1f} GB of memory,"
                f" {self.model.device} has {there / 1e9:.1f} GB",
                "ask for fewer `frames` or a smaller `size`, add `offload=True`"
                " or `offload_blocks=2`, or use a smaller model",
            )

    def shown(self, decoded: Frames) -> Frames:
        """Decoded frames (F, H, W, 3) as the clip shows them: with its given frames, cut."""
        frames = decoded if self.cond_frames is None else self.cond_frames.shown(decoded)
        return frames[: len(frames) - self.drop]


def make_plan(
    model: PlacedModel,
    options: Mapping[str, Any],
    prompt: str,
    out: str | None = None,
    num: int = 1,
) -> Plan:
    """What sampling ``num`` clips, to a file ``out`` if any, will take.

    Options are by name, as users give them (see `checked`); without a ``seed`` one is drawn. It is
    a UsageError if one is out of range, the model can't do it, or the format can't hold it.
    """
    require(isinstance(prompt, str), "prompt", prompt, "a text")
    require_text("prompt", prompt, may_be_empty=True)
    found, changes, seed = model.found, checked(options), options.get("seed")
    if "motion" in changes and not found.settings.motion_prefix:
        raise UsageError(f"the model {found.name} takes no `motion`", "describe it in the prompt")
    settled = replace(model.defaults, **changes)
    settled.solver_of(found.solvers)
    found.strides.grid(settled.shape)  # refuses a shape that doesn't fit
    if out is not None:
        check_format(out, settled.shape, settled.fps)
    seed = secrets.randbelow(MAX_SEED) if seed is None else int(seed)
    return Plan(model, prompt, settled, seed, num)


def prompt_warnings(bundle: Bundle, request: Request) -> list[str]:
    """What the model can't take of the prompts, and a size that it doesn't know."""
    options = request.options_for(bundle)
    texts = {"prompt": full_prompt(bundle, request)}
    if options.negative:
        texts["negative prompt"] = full_negative(bundle, request)
    warnings = []
    for name, text in texts.items():
        ((unknown, lost),) = bundle.text_tokenizer.losses([text])
        if unknown:
            warnings.append(_unknown_warning(name, text, unknown, bundle))
        if name == "prompt" and bundle.subjects and text.strip():
            named = named_subjects(text, bundle.subjects)
            if len(named) > 1:
                few = ", ".join(named)
                warnings.append(f"the model draws one figure, and the prompt names {few}")
            elif not (named or unknown):
                listed = _where_listed(bundle)
                warnings.append(f"the prompt names nothing that the model draws ({listed})")
        if lost:
            start = lost if len(lost) <= MAX_SHOWN else f"{lost[:MAX_SHOWN]} …"
            warnings.append(f"the {name} is too long for the model, this is cut off: {start}")
    trained = bundle.settings
    stored = trained.times_for(options)
    if stored and (count := len(stored) - 1) != options.steps:
        warnings.append(f"the model's step times are of {count} steps, so they are interpolated")
    if bundle.subjects and (options.height, options.width) != (trained.height, trained.width):
        warnings.append(
            f"the model was trained at {trained.height}x{trained.width} pixels alone, so figures "
            f"may come out wrong at {options.height}x{options.width}"
        )
    return warnings


def _unknown_warning(name: str, text: str, unknown: list[str], bundle: Bundle) -> str:
    """That words are unknown, with the subjects, or a background, that they may stand for."""
    from ursa_core.worlds.emoji import nearest_background

    shown = []
    for word in unknown[:MAX_WORDS]:
        near = nearest_subjects(word, bundle.subjects)
        if bundle.subjects and not near and (colour := nearest_background(word)):
            near = [colour]
        shown.append(visible(word) + f" (nearest: {', '.join(near)})" * bool(near))
    more = f" and {len(unknown) - MAX_WORDS} more" if len(unknown) > MAX_WORDS else ""
    warning = f"the model doesn't know these words of the {name}: {', '.join(shown)}{more}"
    if bundle.subjects:
        letters = "".join(unknown)
        foreign = len(unknown) > 2 or any(c.isalpha() and not c.isascii() for c in letters)
        if foreign and not bundle.text_tokenizer.knows_any(text):
            warning += "; it knows none, and reads English"
        warning += f" ({_where_listed(bundle)})"
    return warning


def _where_listed(bundle: Bundle) -> str:
    return f"ursa models show {bundle.name} --prompts lists what it draws"
