"""Options of every command that samples: those of a clip, and what holds for a whole call."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self

import typer

from ursa_cli.options import shared as options
from ursa_cli.options.records import parameters, replaced, with_parameters
from ursa_cli.options.shared import option
from ursa_core.bundle.options import checked, option_types

CLIP_PANEL = "Clip"
SAMPLING_PANEL = "Sampling"
GIVEN_PANEL = "Given frames"
MODELS = "the model's"

Output = Annotated[
    str,
    option(
        "OUT",
        "File to write: .mp4, .mkv (lossless), .gif, .webp or .png; a name without "
        "extension is a folder of PNG frames.",
        names=("--output", "-o"),
    ),
]
# Options of given frames, for ``records.spread``.
COND = {
    "cond": ("C", ("lock keeps given frames as they are, soft refines them with the rest from the "
             "time that their noise has."), "lock"),
    "cond_noise": ("X", "Noise that given frames enter with, 0 to below 1.", "0"),
    "fit": (None, ("Scale and crop given frames to the clip's size; without it another size is "
            "refused.")),
}  # fmt: skip
SOURCE_FPS = {
    "source_fps": ("R", ("Frames per second of the given video, whatever it states; a folder of "
                   "PNG frames that states nothing is taken as 25 per second.")),
}  # fmt: skip
# Metavariable, help and panel of a clip's options, which `SamplingOptions` of the core defines.
_HELP: dict[str, tuple[str, str, str | None]] = {
    "seed": ("N", "Same seed, same video; 0 to 2^63 - 1.", None),
    "negative": ("TEXT", "What guidance leads away from.", None),
    "frames": (
        "N",
        "Frames, 1 + a multiple of the model's temporal stride, at most 1000000; 1 is an image.",
        CLIP_PANEL,
    ),
    "size": (
        "HxW", "Height and width in pixels, multiples of the model's spatial stride.", CLIP_PANEL
    ),
    "fps": ("R", "Frames per second of the file, 0.1 to 1000; a gif has at most 50.", CLIP_PANEL),
    "motion": ("X", "Amount of motion, 0 to 1000, for models trained with it.", CLIP_PANEL),
    "crf": ("N", "Quality of an mp4, 0 (lossless) to 51.", CLIP_PANEL),
    "steps": ("N", "Steps from noise to video, 1 to 10000.", SAMPLING_PANEL),
    "guidance": ("S", "How strictly the prompt is followed, 0 to 100; 1 is off.", SAMPLING_PANEL),
    "guidance_interval": (
        "LO:HI", "Times, 0 (noise) to 1 (video), between which guidance acts.", SAMPLING_PANEL
    ),
    "solver": ("S", "integrated, or euler as the paper's code has it.", SAMPLING_PANEL),
    "shift": (
        "L", "Time shift, 0.001 to 1000; more than 1 spends more steps near noise.", SAMPLING_PANEL
    ),
    "correct": (
        "P", "Share of codes that each step draws again, 0 (off) to 1; mends early mistakes.",
        SAMPLING_PANEL,
    ),
    "temperature": (
        "T", "Randomness of the draws, 0.001 to 1000; below 1 favours likelier codes.",
        SAMPLING_PANEL,
    ),
    "top_p": ("P", "Share of probability drawn from, 0.000001 to 1 (all).", SAMPLING_PANEL),
}  # fmt: skip
_DEFAULTS = {"seed": "random", "crf": "18", "top_p": "1.0"}


@dataclass(frozen=True)
class SamplingCall:
    """What every sampling command can be given; ``clip`` are options of the clip, by name."""

    clip: Mapping[str, Any] = field(default_factory=dict)
    model: options.Model = options.DEFAULT_MODEL
    lora: options.Lora = None
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    offload: options.Offload = False
    compiled: options.Compile = False
    dry_run: options.DryRun = False
    as_json: options.Json = False
    quiet: options.Quiet = False
    force: options.Force = False

    @property
    def seed(self) -> int | None:
        """The seed that is given, if any."""
        return self.clip.get("seed")

    def with_options(self, given: Mapping[str, Any]) -> Self:
        """With other options of the clip; names of none are left out."""
        own = {name: value for name, value in given.items() if name in _HELP}
        return replace(self, clip={**self.clip, **own})

    def check(self) -> None:
        """Refuse values that nothing could be made of, before anything is loaded; UsageError."""
        checked(self.clip)

    def place(self, *, is_shared: bool = False) -> Any:
        """The model in its place, downloaded with progress where needed.

        With ``is_shared``, a launcher's processes share out the GPUs.
        """
        from ursa_core.clips.plan import place_model
        from ursa_core.devices import local_device

        return place_model(
            self.model,
            str(local_device(self.device)) if is_shared else self.device,
            self.dtype,
            offload=self.offload,
            compiled=self.compiled,
            lora=self.lora or (),
            progress=options.download_progress,
        )


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of a clip and of its parameter ``sampling`` as its own.

    Where the command has a parameter of an option's name itself, the option isn't given.
    """
    own = inspect.signature(command).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    of_clip = [
        inspect.Parameter(name, keyword, default=None, annotation=_annotation(name))
        for name in _HELP
        if name not in own
    ]
    of_call = [each for each in parameters(SamplingCall, {}) if each.name not in own]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        clip = {each.name: given.pop(each.name) for each in of_clip}
        call = {each.name: given.pop(each.name) for each in of_call}
        own_clip = {name: value for name, value in clip.items() if value is not None}
        command(**given, sampling=SamplingCall(own_clip, **call))

    return with_parameters(run, replaced(command, "sampling", [*of_clip, *of_call]))


def _annotation(name: str) -> Any:
    kind, (metavar, text, panel) = option_types()[name], _HELP[name]
    shown = _DEFAULTS.get(name, MODELS)
    option = typer.Option(metavar=metavar, help=text, show_default=shown, rich_help_panel=panel)
    return Annotated[kind | None, option]
