"""Defaults of a model's sampling, which ``ursa.json`` adds to the published layout."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ursa_core.bundle.folder import read_json, write_json
from ursa_core.configs import IMAGE_CLASS, Switch, Text, number, read_config, whole
from ursa_core.grids import PixelShape

Pixels = Annotated[int, whole(1, 1 << 16)]
# A recipe writes these into the bundle that it makes, so its keys have the same ranges.
NumSteps = Annotated[int, whole(1, 10_000)]
Scale = Annotated[float, number(0, 100)]
Positive = Annotated[float, number(0.001, 1000)]
_Time = Annotated[float, number(0, 1)]
Interval = Annotated[tuple[_Time, _Time], Field(description="two numbers from 0 to 1")]


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

    max_prompt_length: Annotated[int, whole(1, 1 << 16)] = 320
    frames: Annotated[int, whole(1, 1_000_000)] = 49
    height: Pixels = 320
    width: Pixels = 512
    fps: Positive = 12.0
    steps: NumSteps = 50
    guidance: Scale = 7.0
    guidance_interval: Interval = (0.0, 0.9)
    shift: Positive = 3.0
    temperature: Positive = 1.0
    motion_prefix: Switch = True
    motion: Annotated[float, number(0, 1000)] = 9.0
    negative: Text = ""
    chain: Annotated[str, Field(pattern="^(tokens|pixels)$", description="tokens or pixels")] = (
        "pixels"
    )
    licence: Text = "Apache-2.0"

    @property
    def shape(self) -> PixelShape:
        """Pixel shape made by default."""
        return PixelShape(self.frames, self.height, self.width)


_Above0 = Field(gt=0, le=1e9, description="a number above 0, or null")


@dataclass(frozen=True)
class PathConfig:
    """What ``scheduler_config.json`` says of the probability path.

    Args:
        path: Kind of path; null is metric with an alpha, else mixture.
        alpha: Exponent of the metric path's sharpness.
        c: Factor of it.
    """

    path: Annotated[
        Literal["metric", "linear", "mixture", "masked"] | None,
        Field(description="metric, linear, mixture, masked or null"),
    ] = None
    alpha: Annotated[float | None, _Above0] = None
    c: Annotated[float | None, _Above0] = None

    @property
    def kind(self) -> str:
        """Kind of path."""
        return self.path or ("mixture" if self.alpha is None else "metric")


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
        shift = {k: v for k, v in read_json(scheduler).items() if k == "shift"}
        settings = read_config(BundleSettings, {**asdict(settings), **shift}, str(scheduler))
    file = folder / "ursa.json"
    if not file.exists():
        return settings
    return read_config(BundleSettings, {**asdict(settings), **read_json(file)}, str(file))


def save_settings(folder: Path, settings: BundleSettings) -> None:
    """Write ``ursa.json``."""
    write_json(folder / "ursa.json", asdict(settings))
