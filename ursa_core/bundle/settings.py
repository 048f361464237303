"""Defaults of a model's sampling, which ``ursa.json`` adds to the published layout."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ursa_core.bundle.folder import read_json, write_json
from ursa_core.bundle.options import SamplingOptions
from ursa_core.configs import IMAGE_CLASS, Switch, Text, number, read_config, whole

# A recipe writes these into the bundle that it makes, so its keys have the same ranges.
NumSteps = Annotated[int, whole(1, 10_000)]
Scale = Annotated[float, number(0, 100)]
Positive = Annotated[float, number(0.001, 1000)]


@dataclass(frozen=True)
class BundleSettings(SamplingOptions):
    """A model's sampling defaults, and what else the published layout has no field for.

    The defaults here are the paper's for video. Every prompt is padded to ``max_prompt_length`` ids
    and may be prefixed ``motion=9.0, ``; ``chain`` is how ``extend`` chains its rounds.
    """

    fps: Positive = 12.0
    max_prompt_length: Annotated[int, whole(1, 1 << 16)] = 320
    motion_prefix: Switch = True
    chain: Annotated[str, Field(pattern="^(tokens|pixels)$", description="tokens or pixels")] = (
        "pixels"
    )
    licence: Text = "Apache-2.0"

    @property
    def defaults(self) -> SamplingOptions:
        """The model's own sampling options."""
        return SamplingOptions(**{f.name: getattr(self, f.name) for f in fields(SamplingOptions)})


_Above0 = Field(gt=0, le=1e9, description="a number above 0, or null")


@dataclass(frozen=True)
class PathConfig:
    """What ``scheduler_config.json`` says of the probability path: its kind, alpha and c."""

    path: Annotated[
        Literal["metric", "linear", "mixture", "masked"] | None,
        Field(description="metric, linear, mixture, masked or null"),
    ] = None
    alpha: Annotated[float | None, _Above0] = None
    c: Annotated[float | None, _Above0] = None

    @property
    def kind(self) -> str:
        """Kind of path; null is metric with an alpha, else mixture."""
        return self.path or ("mixture" if self.alpha is None else "metric")


def motion_prompt(motion: float, prompt: str) -> str:
    """The prompt behind a motion score, as the published video models read it."""
    return f"motion={motion:.1f}, {prompt}"


def load_settings(folder: Path) -> BundleSettings:
    """Settings of a bundle; for what its ``ursa.json`` lacks the published defaults hold.

    Those are the paper's, for video or for images, with the time shift of the bundle's scheduler.
    """
    settings = BundleSettings()
    if read_json(folder / "vae" / "config.json").get("_class_name") == IMAGE_CLASS:
        settings = replace(
            settings, frames=1, height=1024, width=1024, steps=25, motion_prefix=False
        )
    scheduler, own = folder / "scheduler" / "scheduler_config.json", folder / "ursa.json"
    if scheduler.exists():
        shift = {k: v for k, v in read_json(scheduler).items() if k == "shift"}
        settings = read_config(BundleSettings, {**asdict(settings), **shift}, str(scheduler))
    if own.exists():
        settings = read_config(BundleSettings, {**asdict(settings), **read_json(own)}, str(own))
    return settings


def save_settings(folder: Path, settings: BundleSettings) -> None:
    """Write ``ursa.json``; quality of the file, solver and ``top_p`` aren't a model's own."""
    kept = {k: v for k, v in asdict(settings).items() if k not in ("crf", "solver", "top_p")}
    write_json(folder / "ursa.json", kept)
