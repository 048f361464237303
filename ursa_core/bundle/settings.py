"""Defaults of a model's sampling, which ``ursa.json`` adds to the published layout."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ursa_core.bundle.folder import read_json, write_json
from ursa_core.bundle.hub import name_of
from ursa_core.bundle.options import SamplingOptions
from ursa_core.configs import IMAGE_CLASS, Switch, Text, number, read_config, whole

NEGATIVE = (
    "worst quality, low quality, inconsistent motion, static, still, blurry, jittery, distorted, "
    "ugly"
)
"""Negative prompt of the reference's own samplers and examples."""
_VIDEO: Mapping[str, Any] = {"negative": NEGATIVE, "extend_motion": 5.0}
_IMAGE: Mapping[str, Any] = {
    "frames": 1, "height": 1024, "width": 1024, "steps": 25, "motion_prefix": False,
    "negative": NEGATIVE,
}  # fmt: skip
_IMAGE_512: Mapping[str, Any] = {**_IMAGE, "height": 512, "width": 512}
_TUNED: Mapping[str, Any] = {**_IMAGE_512, "guidance": 1.0, "negative": ""}
_URSA = "README.md, docs/evaluation.md and evaluations/ of github.com/baaivision/URSA"
_GRPO = "README.md of github.com/Yovecent/UDM-GRPO"
PUBLISHED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "BAAI/URSA-0.6B-FSQ320": (_VIDEO, _URSA),
    "BAAI/URSA-1.7B-FSQ320": (_VIDEO, _URSA),
    "BAAI/URSA-0.6B-IBQ1024": (_IMAGE, _URSA),
    "BAAI/URSA-1.7B-IBQ1024": (_IMAGE, _URSA),
    "BAAI/URSA-1.7B-IBQ512": (_IMAGE_512, f"{_GRPO} (size), {_URSA}"),
    "Yovecents/URSA-1.7B-IBQ512-UDMGRPO-GenEval": (_TUNED, _GRPO),
    "Yovecents/URSA-1.7B-IBQ512-UDMGRPO-PickScore": (_TUNED, _GRPO),
}
"""What of known ids differs from the paper's defaults for video, and where it is stated."""

# A recipe writes these into the bundle that it makes, so its keys have the same ranges.
NumSteps = Annotated[int, whole(1, 10_000)]
Scale = Annotated[float, number(0, 100)]
Positive = Annotated[float, number(0.001, 1000)]


def _rising(times: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if times is not None:
        is_rising = all(a < b for a, b in pairwise(times))
        if not is_rising or (times[:1], times[-1:]) != ((0,), (1,)):
            raise ValueError
    return times


_Times = Annotated[
    tuple[float, ...] | None,
    AfterValidator(_rising),
    Field(description="numbers that rise from 0 to 1, or null"),
]


@dataclass(frozen=True)
class BundleSettings(SamplingOptions):
    """A model's sampling defaults, and what else the published layout has no field for.

    The defaults here are the paper's for video. Every prompt is padded to ``max_prompt_length`` ids
    and may be prefixed ``motion=9.0, ``, when extending with ``extend_motion``, if any; ``chain``
    is how ``extend`` chains its rounds. ``times`` are those of some number of steps, by
    ``ursa calibrate-path``, in place of the time shift.
    """

    fps: Positive = 12.0
    max_prompt_length: Annotated[int, whole(1, 1 << 16)] = 320
    motion_prefix: Switch = True
    extend_motion: Annotated[float | None, number(0, 1000)] = None
    chain: Annotated[Literal["tokens", "pixels"], Field(description="tokens or pixels")] = "pixels"
    licence: Text = "not stated"
    times: _Times = None

    @property
    def defaults(self) -> SamplingOptions:
        """The model's own sampling options."""
        return SamplingOptions(**{f.name: getattr(self, f.name) for f in fields(SamplingOptions)})

    def times_for(self, options: SamplingOptions) -> tuple[float, ...] | None:
        """Its own step times; None without any, or where another shift is asked for."""
        return self.times if options.shift == self.shift else None

    def extending(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options of rounds that extend a clip, where the user hasn't given them."""
        is_own = given.get("motion") is None and self.motion_prefix
        return {"motion": self.extend_motion} if is_own and self.extend_motion is not None else {}


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
    """Settings of a bundle; see `settings_of`."""
    return settings_of(folder)[0]


def settings_of(folder: Path) -> tuple[BundleSettings, str]:
    """Settings of a bundle, and their source in words; "" if they are guessed.

    Its ``ursa.json`` comes first, then the time shift of its scheduler, then what is known of its
    id. Without all that, the defaults of published models of its kind are a guess, and the size of
    images that which ``vae/config.json`` tells.
    """
    vae, own = read_json(folder / "vae" / "config.json"), folder / "ursa.json"
    known, source = known_defaults(name_of(folder)) or ({}, "")
    guess = _VIDEO
    if vae.get("_class_name") == IMAGE_CLASS:
        side = vae.get("sample_size")
        side = side if type(side) is int and 1 <= side <= 1 << 16 else _IMAGE["height"]
        guess = {**_IMAGE, "height": side, "width": side}
    if own.exists():  # our own models have no such prompt unless they say so
        guess = {**guess, "negative": "", "extend_motion": None}
        source = "its ursa.json" + f"; {source}" * bool(source)
    settings = replace(BundleSettings(), **{**guess, **known})
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if scheduler.exists():
        shift = {k: v for k, v in read_json(scheduler).items() if k == "shift"}
        settings = read_config(BundleSettings, {**asdict(settings), **shift}, str(scheduler))
    if own.exists():
        settings = read_config(BundleSettings, {**asdict(settings), **read_json(own)}, str(own))
    return settings, source


def known_defaults(name: str) -> tuple[Mapping[str, Any], str] | None:
    """What is known of a published id, or of a folder called like one, and where it is stated."""
    # Folders that are filled by hand have no slash in their names, ModelScope's no dot.
    name = name.partition("@")[0].replace("--", "/").replace("___", ".")
    full = next((known for known in PUBLISHED if name in (known, known.partition("/")[2])), name)
    return PUBLISHED.get(full)


def save_settings(folder: Path, settings: BundleSettings) -> None:
    """Write ``ursa.json``; quality of the file, solver and ``top_p`` aren't a model's own."""
    own = {k: v for k, v in asdict(settings).items() if k not in ("crf", "solver", "top_p")}
    kept = {k: v for k, v in own.items() if v is not None}
    write_json(folder / "ursa.json", kept)
