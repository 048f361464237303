"""What a call of `ursa sample` will do, known before any weight is loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_core.errors import DataError, DeviceError, UsageError

if TYPE_CHECKING:
    import torch

    from ursa_core.bundle import Bundle
    from ursa_core.bundle_settings import BundleSettings
    from ursa_core.memory import SamplingMemory
    from ursa_core.model_summary import Summary
    from ursa_core.sampling.generate import GenerateOptions

# Needs are refused from this share of the device's memory on: their estimate is rough.
_CLEARLY_TOO_MUCH = 1.2


@dataclass(frozen=True)
class Target:
    """Where one video, and its codes if wanted, are written."""

    media: str
    tokens: str | None

    def check(self, force: bool) -> None:
        """Refuse what couldn't be written, whatever the model makes."""
        from ursa_core.media import check_output

        check_output(self.media, force)
        if self.tokens is None:
            return
        file = Path(self.tokens)
        if file.exists() and not force:
            raise UsageError(f"{file} exists already", "add --force to replace it")
        if not file.absolute().parent.is_dir():
            raise DataError(f"the folder {file.parent} doesn't exist", "create it first")


@dataclass(frozen=True)
class Placement:
    """Where the networks run, and how.

    Args:
        device: to sample on.
        dtype: of the transformer.
        offload: the networks take turns on the device.
        compiled: the transformer's layers are compiled.
    """

    device: "torch.device"
    dtype: "torch.dtype"
    offload: bool
    compiled: bool


def find_placement(device: str, dtype: str, offload: bool, compiled: bool) -> Placement:
    """The placement that options ask for.

    Raises:
        UsageError: no such device or number format.
        DeviceError: this machine hasn't got it, or nothing to compile with.
    """
    from ursa_core.devices import check_compiler, pick_device, pick_dtype

    found = pick_device(device)
    if compiled:
        check_compiler(found)
    return Placement(found, pick_dtype(dtype, found), offload, compiled)


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the weights are loaded."""

    found: "Summary"
    settings: "BundleSettings"
    wanted: "GenerateOptions"
    placement: Placement
    crf: int
    targets: list[Target]
    model_identity: str
    first: int = 0

    @property
    def num_passes(self) -> int:
        """Sequences the network sees for one video: two a step while guidance acts, else one."""
        from ursa_core.sampling.guidance import Guidance
        from ursa_core.sampling.time_grid import time_grid

        settings, prompt = self.settings, self.wanted.prompt
        has_prefix = settings.motion_prefix and prompt
        if prompt == settings.negative and not has_prefix:
            return settings.steps
        guidance = Guidance(settings.guidance, settings.guidance_interval)
        active = guidance.active(time_grid(settings.steps, settings.shift)[:-1])
        return settings.steps + int(active.sum())

    @property
    def provenance(self) -> dict[str, Any]:
        """What the videos are made of, as their metadata record it."""
        from ursa_core import __version__
        from ursa_core.hub import name_of

        return {
            **asdict(self.wanted),
            "model": name_of(self.found.folder, exact=True),
            "model_identity": self.model_identity,
            "fps": self.settings.fps,
            "crf": self.crf,
            "device": self.placement.device.type,
            "dtype": str(self.placement.dtype).removeprefix("torch."),
            "offload": self.placement.offload,
            "compiled": self.placement.compiled,
            "ursa": __version__,
        }

    @property
    def memory_bytes(self) -> int:
        """About what the run needs at most."""
        return self._memory.total

    @property
    def _memory(self) -> "SamplingMemory":
        where, shape = self.placement, self.settings.shape
        size, kind = where.dtype.itemsize, where.device.type
        return self.found.memory(size, shape, kind, offload=where.offload)

    def load(self) -> "Bundle":
        """The model, in its place."""
        from ursa_core.bundle import load_bundle

        where = self.placement
        return load_bundle(
            self.found.folder,
            where.device,
            where.dtype,
            offload=where.offload,
            compiled=where.compiled,
        )

    def check_memory(self, at_once: int = 1) -> None:
        """Refuse a clip that the device is clearly too small for, before anything is loaded.

        Args:
            at_once: clips in one pass of the network.

        Raises:
            DeviceError: it is.
        """
        from ursa_core.devices import total_memory_bytes

        memory, there = self._memory, total_memory_bytes(self.placement.device)
        needed = replace(memory, activations=at_once * memory.activations).total
        if there is not None and needed > _CLEARLY_TOO_MUCH * there:
            raise DeviceError(
                f"{self.settings.shape} takes about {needed / 1e9:.1f} GB of memory,"
                f" {self.placement.device} has {there / 1e9:.1f} GB",
                "ask for fewer --frames or a smaller --size, add --offload, or use a smaller model",
            )

    def described(self) -> tuple[dict[str, Any], list[str]]:
        """The plan as an object with stable keys, and as lines for people."""
        found, settings, wanted = self.found, self.settings, self.wanted
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
            ("prompt", wanted.prompt or "(none)"),
            ("negative", settings.negative or "(none)"),
            ("seed", wanted.seed),
            ("frames", f"{settings.shape} at {settings.fps:g} fps"),
            ("grid", f"{grid}, {grid.num_codes} codes"),
            ("steps", f"{settings.steps}, {wanted.solver}, shift {settings.shift:g}"),
            ("guidance", f"{settings.guidance:g} while {low:g} <= t < {high:g}"),
            ("passes", f"{self.num_passes} of the network for each of {len(self.targets)}"),
            ("memory", f"about {self.memory_bytes / 1e9:.1f} GB"),
            ("device", f"{self.placement.device}, {payload['dtype']}"),
            *(("output", target.media) for target in self.targets),
        ]
        return payload, [f"{name:<10}{value}" for name, value in rows]


def make_plan(
    found: "Summary",
    model_identity: str,
    values: Mapping[str, Any],
    placement: Placement,
    written: list[Target],
    num: int,
    first: int = 0,
) -> Plan:
    """What sampling clips will take.

    Args:
        found: the model.
        model_identity: digits that change with its files.
        values: as `sample_values.check` lets pass, with a seed.
        placement: of the networks.
        written: where each clip goes.
        num: clips of the run; all are made, or one of them again.
        first: index of the first that is made.

    Raises:
        UsageError: the model can't do what is asked for, or the format can't hold it.
    """
    from ursa_cli import options, sample_values
    from ursa_core.media import check_format
    from ursa_core.sampling.generate import GenerateOptions

    solvers, solver, motion = found.solvers, values["solver"], values["motion"]
    options.require(solver in (None, *solvers), "--solver", solver, " or ".join(solvers))
    if motion is not None and not found.settings.motion_prefix:
        raise UsageError(f"the model {found.name} takes no --motion", "describe it in the prompt")
    settings = replace(found.settings, **sample_values.settings(values))
    found.strides.grid(settings.shape)  # refuses a shape that doesn't fit
    check_format(written[0].media, settings.shape, settings.fps)
    wanted = GenerateOptions(
        prompt=values["prompt"],
        seed=values["seed"],
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
        temperature=values["temperature"],
        top_p=None if values["top_p"] == 1 else values["top_p"],
        motion=motion,
    )
    crf = values["crf"]
    return Plan(found, settings, wanted, placement, crf, written, model_identity, first)


def targets(out: str, save_tokens: str | None, num: int) -> list[Target]:
    """Where each video and its codes go; numbered before the extension if there are several.

    Raises:
        UsageError: a name that nothing can be written to, as it was given.
    """
    from ursa_core.media import FORMATS

    if Path(out).name.lower() in ("", *FORMATS):
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
