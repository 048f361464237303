"""Options of every command that samples: their help, their check, and the records that hold them.

`ClipOptions` is what one clip is made by, whether options, a line of a batch or a file that is
replayed gave it; `SamplingOptions` adds what holds for a whole call.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ursa_cli.options import shared as options
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_core.sampling.conditioning import Cond

CLIP_PANEL = "Clip"
SAMPLING_PANEL = "Sampling"
GIVEN_PANEL = "Given frames"
MODELS = "the model's"
MAX_SEED = 2**63

Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="File to write: .mp4, .mkv (lossless), .gif, .webp or .png; a name without "
        "extension is a folder of PNG frames.",
        show_default=False,
    ),
]
Conditions = Annotated[
    str | None,
    typer.Option(
        "--cond",
        metavar="C",
        help="lock keeps given frames as they are, soft refines them with the rest from the "
        "time that their noise has.",
        show_default="lock",
        rich_help_panel=GIVEN_PANEL,
    ),
]
CondNoise = Annotated[
    float | None,
    typer.Option(
        "--cond-noise",
        metavar="X",
        help="Noise that given frames enter with, 0 to below 1.",
        show_default="0",
        rich_help_panel=GIVEN_PANEL,
    ),
]
SourceFps = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Frames a second that the given video has, whatever it says; a folder of PNG frames "
        "that says nothing is taken as 25 a second.",
        show_default=False,
        rich_help_panel=GIVEN_PANEL,
    ),
]


def check_source_fps(rate: float | None) -> None:
    """Refuse a rate that no film has; UsageError."""
    in_range = rate is None or 0.001 <= rate <= 10_000
    options.require(in_range, "--source-fps", rate, "0.001 to 10000")


Fit = Annotated[
    bool,
    typer.Option(
        "--fit",
        help="Scale and crop given frames to the clip's size; else another size is refused.",
        rich_help_panel=GIVEN_PANEL,
    ),
]


@dataclass(frozen=True)
class ClipOptions:
    """What a clip is made by, besides its prompt; None is the model's own."""

    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Same seed, same video; 0 to 2^63 - 1.", show_default="random"
        ),
    ] = None
    negative: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What guidance leads away from.", show_default=MODELS),
    ] = None
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames, 1 + a multiple of the model's temporal stride, at most 1000000; "
            "1 is an image.",
            show_default=MODELS,
            rich_help_panel=CLIP_PANEL,
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Height and width in pixels, multiples of the model's spatial stride.",
            show_default=MODELS,
            rich_help_panel=CLIP_PANEL,
        ),
    ] = None
    fps: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Frames a second of the file, 0.1 to 1000; a gif has at most 50.",
            show_default=MODELS,
            rich_help_panel=CLIP_PANEL,
        ),
    ] = None
    motion: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Amount of motion, 0 to 1000, for models trained with it.",
            show_default=MODELS,
            rich_help_panel=CLIP_PANEL,
        ),
    ] = None
    crf: Annotated[
        int,
        typer.Option(
            metavar="N", help="Quality of an mp4, 0 (lossless) to 51.", rich_help_panel=CLIP_PANEL
        ),
    ] = 18
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Steps from noise to video, 1 to 10000.",
            show_default=MODELS,
            rich_help_panel=SAMPLING_PANEL,
        ),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="How strictly the prompt is followed, 0 to 100; 1 is off.",
            show_default=MODELS,
            rich_help_panel=SAMPLING_PANEL,
        ),
    ] = None
    guidance_interval: Annotated[
        str | None,
        typer.Option(
            metavar="LO:HI",
            help="Times, 0 (noise) to 1 (video), between which guidance acts.",
            show_default=MODELS,
            rich_help_panel=SAMPLING_PANEL,
        ),
    ] = None
    solver: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            help="integrated, or euler as the paper's code has it.",
            show_default=MODELS,
            rich_help_panel=SAMPLING_PANEL,
        ),
    ] = None
    shift: Annotated[
        float | None,
        typer.Option(
            metavar="L",
            help="Time shift, 0.001 to 1000; more than 1 spends more steps near noise.",
            show_default=MODELS,
            rich_help_panel=SAMPLING_PANEL,
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="Randomness of the draws, 0.001 to 1000; below 1 favours likelier codes.",
            show_default=MODELS,
            rich_help_panel=SAMPLING_PANEL,
        ),
    ] = None
    top_p: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Share of probability drawn from, 0.000001 to 1 (all).",
            rich_help_panel=SAMPLING_PANEL,
        ),
    ] = 1.0

    def check(self) -> None:
        """Refuse values that nothing could be made of, before anything is loaded.

        Raises:
            UsageError: a value out of range or of another form, or a text that isn't UTF-8.
        """
        require = options.require
        ranges = {  # lowest and highest value, in words
            "fps": (0.1, 1000, "0.1 to 1000"),
            "frames": (1, 1_000_000, "1 to 1000000"),
            "steps": (1, 10_000, "1 to 10000"),
            "guidance": (0, 100, "0 to 100; 1 is off"),
            "shift": (0.001, 1000, "0.001 to 1000; 1 is none"),
            "motion": (0, 1000, "0 to 1000, as 9"),
            "temperature": (0.001, 1000, "0.001 to 1000; 1 is the model's own spread"),
            "top_p": (1e-6, 1, "0.000001 to 1 (all)"),
            "crf": (0, 51, "0 (lossless) to 51 (worst)"),
            "seed": (0, MAX_SEED - 1, "0 to 2^63 - 1"),
        }
        for name, (low, high, words) in ranges.items():
            value = getattr(self, name)
            option = f"--{name.replace('_', '-')}"
            require(value is None or low <= value <= high, option, value, words)
        options.require_text("negative prompt", self.negative, may_be_empty=True)
        self.settings()

    def settings(self) -> dict[str, Any]:
        """The model's settings that are given, by name.

        Raises:
            UsageError: size or interval have another form.
        """
        names = ("negative", "frames", "fps", "steps", "guidance", "shift", "temperature")
        given = {name: getattr(self, name) for name in names}
        if self.size is not None:
            given["height"], given["width"] = options.parse_size(self.size)
        if self.guidance_interval is not None:
            given["guidance_interval"] = options.parse_interval(self.guidance_interval)
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class SamplingOptions(ClipOptions):
    """What every sampling command can be told."""

    model: options.Model = options.DEFAULT_MODEL
    lora: options.Lora = None
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    offload: options.Offload = False
    compiled: options.Compile = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be done, and stop.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = False
    as_json: options.Json = False
    quiet: options.Quiet = False
    force: options.Force = False


def own_fields(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values of a batch's line that are fields of a record of options."""
    names = {field.name for field in fields(record)}
    return {name: value for name, value in values.items() if name in names}


def overridden(sampling: SamplingOptions, values: Mapping[str, Any]) -> SamplingOptions:
    """The options with what a batch's line gives of a clip's."""
    return replace(sampling, **own_fields(ClipOptions, values))


def condition(cond: str | None, cond_noise: float | None) -> tuple["Cond", float]:
    """How given frames are taken, and the noise that they enter with.

    Raises:
        UsageError: neither soft nor lock, or noise out of range.
    """
    if cond not in (None, "soft", "lock"):
        raise UsageError(f"--cond can't be {cond}", "give soft or lock")
    in_range = cond_noise is None or 0 <= cond_noise < 1
    options.require(in_range, "--cond-noise", cond_noise, "0 to below 1")
    return ("soft" if cond == "soft" else "lock"), cond_noise or 0.0


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each field of its parameter ``sampling`` as an option of its own.

    Where the command has a parameter of a field's name itself, the field keeps its default.
    """
    own = inspect.signature(command)
    hints = get_type_hints(SamplingOptions, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    of_record = [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
        for field in fields(SamplingOptions)
        if field.name not in own.parameters
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        record = SamplingOptions(**{each.name: given.pop(each.name) for each in of_record})
        command(**given, sampling=record)

    parameters = [
        each
        for parameter in own.parameters.values()
        for each in (of_record if parameter.name == "sampling" else [parameter])
    ]
    every = [parameter.replace(kind=keyword) for parameter in parameters]
    vars(run)["__signature__"] = own.replace(parameters=every)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return run
