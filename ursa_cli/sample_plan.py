"""What a call of `ursa sample` will do, known before any weight is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_core.errors import DataError, DeviceError, UsageError

if TYPE_CHECKING:
    import torch

    from ursa_cli.options.sampling import ClipOptions, SamplingOptions
    from ursa_core.bundle.adapters import Adapter
    from ursa_core.bundle.bundle import Bundle
    from ursa_core.bundle.memory import SamplingMemory
    from ursa_core.bundle.settings import BundleSettings
    from ursa_core.bundle.summary import Summary
    from ursa_core.sampling.generate import GenerateOptions

# Needs are refused from this share of the device's memory on: their estimate is rough.
_CLEARLY_TOO_MUCH = 1.2


@dataclass(frozen=True)
class Target:
    """Where one video, and its codes if wanted, are written."""

    media: str
    tokens: str | None

    @property
    def files(self) -> list[str]:
        """In the order in which they are written."""
        return [self.media] if self.tokens is None else [self.tokens, self.media]

    def check(self, force: bool, preview: bool = False) -> None:
        """Refuse what couldn't be written, whatever the model makes; what is there is for `begun`.

        Args:
            force: a picture in the preview's place may be replaced.
            preview: one is written.
        """
        from ursa_core.media import check_folder_of, check_output

        check_output(self.media, force=True)
        if preview:
            from ursa_core.clips.preview import check_preview

            check_preview(self.media, force)
        if self.tokens is not None:
            check_folder_of(self.tokens)
            if Path(self.tokens).is_dir():
                raise UsageError(f"{self.tokens} is a folder", "choose another name")


@dataclass(frozen=True)
class PlacedModel:
    """A model, and where and how its networks run.

    Args:
        found: what its folder says of it.
        identity: digits that change with its files.
        device: to sample on.
        dtype: of the transformer.
        offload: the networks take turns on the device.
        compiled: the transformer's layers are compiled.
        adapters: that are added to the transformer.
    """

    found: "Summary"
    identity: str
    device: "torch.device"
    dtype: "torch.dtype"
    offload: bool
    compiled: bool
    adapters: "tuple[Adapter, ...]" = ()

    def load(self) -> "Bundle":
        """The model, in its place."""
        from ursa_core.bundle.bundle import load_bundle

        return load_bundle(
            self.found.folder,
            self.device,
            self.dtype,
            offload=self.offload,
            compiled=self.compiled,
            adapters=self.adapters,
        )


def place_model(sampling: "SamplingOptions") -> PlacedModel:
    """The model and the placement that options ask for.

    Raises:
        CheckpointError: there is no such model, or an adapter isn't one of it.
        UsageError: no such device or number format.
        DeviceError: this machine hasn't got it, or nothing to compile with.
    """
    from ursa_cli.options import shared as options
    from ursa_core.bundle.folder import model_identity
    from ursa_core.bundle.summary import summary
    from ursa_core.devices import check_compiler, pick_device, pick_dtype

    options.require_text("model", sampling.model)
    found = summary(options.model_folder(sampling.model))
    adapters = options.read_adapters(sampling.lora, found.folder)
    device = pick_device(sampling.device)
    if sampling.compiled:
        check_compiler(device)
    dtype, identity = pick_dtype(sampling.dtype, device), model_identity(found.folder)
    return PlacedModel(
        found, identity, device, dtype, sampling.offload, sampling.compiled, adapters
    )


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the weights are loaded."""

    model: PlacedModel
    settings: "BundleSettings"
    wanted: "GenerateOptions"
    crf: int
    targets: list[Target]
    first: int = 0
    start_time: float = 0.0

    @property
    def step_times(self) -> "torch.Tensor":
        """Times at which the network is called for one video: float (num_steps,)."""
        from ursa_core.sampling.time_grid import time_grid, times_from

        grid = time_grid(self.settings.steps, self.settings.shift)
        return times_from(grid, self.start_time)[:-1]

    @property
    def num_steps(self) -> int:
        """Steps of one video."""
        return len(self.step_times)

    @property
    def num_passes(self) -> int:
        """Sequences the network sees for one video: two a step while guidance acts, else one."""
        from ursa_core.sampling.guidance import Guidance

        settings, prompt = self.settings, self.wanted.prompt
        has_prefix = settings.motion_prefix and prompt
        if prompt == settings.negative and not has_prefix:
            return self.num_steps
        guidance = Guidance(settings.guidance, settings.guidance_interval)
        return self.num_steps + int(guidance.active(self.step_times).sum())

    @property
    def provenance(self) -> dict[str, Any]:
        """What the videos are made of, as their metadata record it."""
        from ursa_core import __version__
        from ursa_core.bundle.hub import name_of

        model = self.model
        adapters = [adapter.provenance for adapter in model.adapters]
        return {
            **asdict(self.wanted),
            "model": name_of(model.found.folder, exact=True),
            "model_identity": model.identity,
            **({"lora": adapters} if adapters else {}),
            "fps": self.settings.fps,
            "crf": self.crf,
            "device": model.device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "offload": model.offload,
            "compiled": model.compiled,
            "ursa": __version__,
        }

    @property
    def memory_bytes(self) -> int:
        """About what the run needs at most."""
        return self._memory.total

    @property
    def _memory(self) -> "SamplingMemory":
        model, shape = self.model, self.settings.shape
        size, kind = model.dtype.itemsize, model.device.type
        return model.found.memory(size, shape, kind, offload=model.offload)

    def check_memory(self, at_once: int = 1) -> None:
        """Refuse a clip that the device is clearly too small for, before anything is loaded.

        Args:
            at_once: clips in one pass of the network.

        Raises:
            DeviceError: it is.
        """
        from ursa_core.devices import total_memory_bytes

        memory, there = self._memory, total_memory_bytes(self.model.device)
        num = 1 if self.model.offload else at_once  # clips take turns then, too
        needed = replace(memory, activations=num * memory.activations).total
        if there is not None and needed > _CLEARLY_TOO_MUCH * there:
            raise DeviceError(
                f"{self.settings.shape} takes about {needed / 1e9:.1f} GB of memory,"
                f" {self.model.device} has {there / 1e9:.1f} GB",
                "ask for fewer --frames or a smaller --size, add --offload, or use a smaller model",
            )

    def described(self) -> tuple[dict[str, Any], list[str]]:
        """The plan as an object with stable keys, and as lines for people."""
        found, settings, wanted = self.model.found, self.settings, self.wanted
        grid = found.strides.grid(settings.shape)
        payload = {
            **self.provenance,
            "folder": str(found.folder),
            "grid": [grid.frames, grid.rows, grid.columns],
            "network_passes": self.num_passes * len(self.targets),
            "memory_bytes": self.memory_bytes,
            "outputs": [target.media for target in self.targets],
        }
        low, high = settings.guidance_interval
        rows = [
            ("model", found.folder),
            *(("lora", f"{a.folder}, scale {a.scale:g}") for a in self.model.adapters),
            ("prompt", wanted.prompt or "(none)"),
            ("negative", settings.negative or "(none)"),
            ("seed", wanted.seed),
            ("frames", f"{settings.shape} at {settings.fps:g} fps"),
            ("grid", f"{grid}, {grid.num_codes} codes"),
            ("steps", f"{self.num_steps}, {wanted.solver}, shift {settings.shift:g}"),
            ("guidance", f"{settings.guidance:g} while {low:g} <= t < {high:g}"),
            ("passes", f"{self.num_passes} of the network for each of {len(self.targets)}"),
            ("memory", f"about {self.memory_bytes / 1e9:.1f} GB"),
            ("device", f"{self.model.device}, {payload['dtype']}"),
            *(("output", target.media) for target in self.targets),
        ]
        return payload, [f"{name:<10}{value}" for name, value in rows]


def make_plan(
    model: PlacedModel,
    sampling: "ClipOptions",
    prompt: str,
    written: list[Target],
    num: int = 1,
    first: int = 0,
    start_time: float = 0.0,
) -> Plan:
    """What sampling clips will take.

    Args:
        model: in its place.
        sampling: as given, checked; without a seed one is drawn.
        prompt: what the clips show.
        written: where each clip goes; none where that isn't settled.
        num: clips of the run; all are made, or one of them again.
        first: index of the first that is made.
        start_time: at which sampling starts, above 0 where it refines a clip.

    Raises:
        UsageError: the model can't do what is asked for, or the format can't hold it.
    """
    import secrets

    from ursa_cli.options import shared as options
    from ursa_cli.options.sampling import MAX_SEED
    from ursa_core.media import check_format
    from ursa_core.sampling.generate import GenerateOptions

    found, solver = model.found, sampling.solver
    solvers = found.solvers
    options.require(solver in (None, *solvers), "--solver", solver, " or ".join(solvers))
    if sampling.motion is not None and not found.settings.motion_prefix:
        raise UsageError(f"the model {found.name} takes no --motion", "describe it in the prompt")
    settings = replace(found.settings, **sampling.settings())
    found.strides.grid(settings.shape)  # refuses a shape that doesn't fit
    for target in written[:1]:
        check_format(target.media, settings.shape, settings.fps)
    wanted = GenerateOptions(
        prompt=prompt,
        seed=secrets.randbelow(MAX_SEED) if sampling.seed is None else sampling.seed,
        num=num,
        negative=settings.negative,
        steps=settings.steps,
        guidance=settings.guidance,
        guidance_interval=settings.guidance_interval,
        solver=solver or solvers[0],
        shift=settings.shift,
        frames=settings.frames,
        height=settings.height,
        width=settings.width,
        temperature=settings.temperature,
        top_p=None if sampling.top_p == 1 else sampling.top_p,
        motion=sampling.motion,
    )
    return Plan(model, settings, wanted, sampling.crf, written, first, start_time)


def begun(written: Sequence[Target], force: bool) -> dict[str, dict[str, Any]]:
    """What the files that a stopped run has left say they were made by, by their names.

    Raises:
        UsageError: without ``force``, nothing is left to make, or a video is there without codes.
    """
    if force:
        return {}
    found = {file: told_by(file) for each in written for file in each.files if is_there(file)}
    is_done = all(each.media in found for each in written)
    for each in written:
        if each.media in found and (is_done or each.files[0] not in found):
            raise UsageError(f"{each.media} exists already", "add --force to replace it")
    return found


def seed_of(there: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The seed that was drawn for the files of a stopped run; None where there are none."""
    seed = next((told["seed"] for told in there.values() if "seed" in told), None)
    return seed if isinstance(seed, int) else None


def is_there(file: str) -> bool:
    """Whether an output is there; an empty folder is none."""
    path = Path(file)
    return any(path.iterdir()) if path.is_dir() else path.exists()


def told_by(file: str) -> dict[str, Any]:
    """What an output was made by; empty where it doesn't say."""
    from ursa_core.media import read_media
    from ursa_core.tokens.token_files import load_tokens

    try:
        if Path(file).suffix.lower() == ".safetensors":
            return load_tokens(file).metadata
        return read_media(file, max_frames=1).metadata
    except DataError:
        return {}


def check_begun(file: str, told: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse to go on with an output that was made by other options.

    Args:
        file: of the output.
        told: what it says it was made by.
        options: that it is to be made by.

    Raises:
        UsageError: it was.
    """
    from ursa_core.batches.resume import changes

    differing = changes(options, {key: told[key] for key in told if key != "tokenizer"})
    if differing:
        raise UsageError(
            f"{file} exists already, made with {differing[0]}", "add --force to replace it"
        )


def targets(out: str, save_tokens: str | None, num: int) -> list[Target]:
    """Where each video and its codes go; numbered before the extension if there are several.

    Raises:
        UsageError: a name that nothing can be written to, as it was given.
    """
    from ursa_core.media import FORMATS

    if Path(out).name.lower() in ("", "..", *FORMATS):
        raise UsageError(f"{out} is no name for a video", "give one such as out.mp4")
    if save_tokens is not None and Path(save_tokens).suffix != ".safetensors":
        raise UsageError(f"codes can't be saved as {save_tokens}", "use the extension .safetensors")

    def numbered(name: str, k: int) -> str:
        path = Path(name)
        return str(path.with_name(f"{path.stem}-{k:04d}{path.suffix}"))

    if num == 1:
        return [Target(out, save_tokens)]
    slash = "/" if out.endswith("/") else ""
    return [
        Target(numbered(out, k) + slash, save_tokens and numbered(save_tokens, k))
        for k in range(num)
    ]
