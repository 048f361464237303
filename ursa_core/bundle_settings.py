"""Defaults of a model's sampling, which ``ursa.json`` adds to the published layout."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ursa_core.errors import CheckpointError
from ursa_core.grids import PixelShape
from ursa_core.model_folder import IMAGE_CLASS, read_json, write_json


@dataclass(frozen=True)
class BundleSettings:
    """What the published layout has no field for; the defaults are the paper's for video.

    Args:
        max_prompt_length: ids that every prompt is padded to.
        frames: of a clip made by default.
        height: of its frames, in pixels.
        width: of its frames, in pixels.
        fps: frames a second of the file written.
        steps: network calls along the path.
        guidance: scale of classifier-free guidance; 1 is off.
        guidance_interval: times between which guidance acts.
        shift: time shift of the steps.
        temperature: of the draws of x_1.
        motion_prefix: prompts are prefixed ``motion=9.0, ``.
        motion: score of that prefix unless another is asked for.
        negative: prompt of the unconditional half.
        chain: how ``ursa extend`` chains its rounds, ``tokens`` or ``pixels``.
        licence: of the weights.
    """

    max_prompt_length: int = 320
    frames: int = 49
    height: int = 320
    width: int = 512
    fps: float = 12.0
    steps: int = 50
    guidance: float = 7.0
    guidance_interval: tuple[float, float] = (0.0, 0.9)
    shift: float = 3.0
    temperature: float = 1.0
    motion_prefix: bool = True
    motion: float = 9.0
    negative: str = ""
    chain: str = "pixels"
    licence: str = "Apache-2.0"

    @property
    def shape(self) -> PixelShape:
        """Pixel shape made by default."""
        return PixelShape(self.frames, self.height, self.width)


def motion_prompt(motion: float, prompt: str) -> str:
    """The prompt behind a motion score, as the published video models read it."""
    return f"motion={motion:.1f}, {prompt}"


IMAGE_SETTINGS = BundleSettings(frames=1, height=1024, width=1024, steps=25, motion_prefix=False)
"""The paper's defaults for images."""


def load_settings(folder: Path) -> BundleSettings:
    """Settings of a bundle; for what its ``ursa.json`` lacks the published defaults hold.

    Those are the paper's, for video or for images, with the time shift of the bundle's scheduler.

    Raises:
        CheckpointError: a file is damaged or a value can't be used.
    """
    tokenizer = read_json(folder / "vae" / "config.json")
    is_image = tokenizer.get("_class_name") == IMAGE_CLASS
    settings = IMAGE_SETTINGS if is_image else BundleSettings()
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if scheduler.exists():
        content = read_json(scheduler)
        given = {"shift": content["shift"]} if "shift" in content else {}
        settings = _with_settings(settings, given, scheduler)
    file = folder / "ursa.json"
    return _with_settings(settings, read_json(file), file) if file.exists() else settings


def _with_settings(settings: BundleSettings, content: dict[str, Any], file: Path) -> BundleSettings:
    """Settings changed to what a file gives."""
    known: dict[str, Any] = {}
    for field in fields(BundleSettings):
        if field.name not in content:
            continue
        value = content[field.name]
        if not _is_setting(value, field.default):
            raise CheckpointError(
                f"{file}: {field.name} can't be {value!r}",
                f"give a value such as {field.default!r}",
            )
        known[field.name] = tuple(value) if isinstance(value, list) else value
    return replace(settings, **known)


def _is_setting(value: object, like: object) -> bool:
    """Whether a JSON value has the kind and the range of a setting's default."""
    if isinstance(like, bool | str):
        return type(value) is type(like)
    if isinstance(like, tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(isinstance(v, int | float) and 0 <= v <= 1 for v in value)
        )
    if isinstance(like, int):
        return type(value) is int and value >= 1
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < 1e6


def save_settings(folder: Path, settings: BundleSettings) -> None:
    """Write ``ursa.json``."""
    write_json(folder / "ursa.json", asdict(settings))
