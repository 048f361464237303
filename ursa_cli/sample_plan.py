"""What a call of `ursa sample` will do, known before any weight is loaded."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_core.errors import DataError, DeviceError, UsageError

if TYPE_CHECKING:
    import torch

    from ursa_core.bundle_settings import BundleSettings
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
class Plan:
    """Everything that is known before the weights are loaded."""

    found: "Summary"
    settings: "BundleSettings"
    wanted: "GenerateOptions"
    device: "torch.device"
    dtype: "torch.dtype"
    crf: int
    targets: list[Target]
    offload: bool = False
    compiled: bool = False

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
            "fps": self.settings.fps,
            "crf": self.crf,
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "offload": self.offload,
            "compiled": self.compiled,
            "ursa": __version__,
        }

    @property
    def memory_bytes(self) -> int:
        """About what the run needs at most."""
        found, shape = self.found, self.settings.shape
        memory = found.memory(self.dtype.itemsize, shape, self.device.type, offload=self.offload)
        return memory.total

    def check_memory(self) -> None:
        """Refuse a clip that the device is clearly too small for, before anything is loaded.

        Raises:
            DeviceError: it is.
        """
        from ursa_core.devices import total_memory_bytes

        needed, there = self.memory_bytes, total_memory_bytes(self.device)
        if there is not None and needed > _CLEARLY_TOO_MUCH * there:
            raise DeviceError(
                f"{self.settings.shape} takes about {needed / 1e9:.1f} GB of memory,"
                f" {self.device} has {there / 1e9:.1f} GB",
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
            "network_passes": self.num_passes * wanted.num,
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
            ("passes", f"{self.num_passes} of the network for each of {wanted.num}"),
            ("memory", f"about {self.memory_bytes / 1e9:.1f} GB"),
            ("device", f"{self.device}, {payload['dtype']}"),
            *(("output", target.media) for target in self.targets),
        ]
        return payload, [f"{name:<10}{value}" for name, value in rows]


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
