"""Options of every command that samples: those of a clip, and what holds for a whole call."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self

from ursa_cli.options import shared as options
from ursa_cli.terminal import output
from ursa_core.bundle.options import checked, option_types

CLIP_PANEL = "Clip"
GIVEN_PANEL = "Given frames"
MODELS = "the model's"

Output = Annotated[
    str,
    options.option(
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
# A clip's options, whose types `SamplingOptions` of the core has; None is the model's own.
_CLIP: options.Panels = {
    None: {
        "seed": ("N", "Same seed, same video; 0 to 2^63 - 1.", "random"),
        "negative": ("TEXT", "What guidance leads away from.", MODELS),
    },
    CLIP_PANEL: {
        "frames": ("N", ("Frames, 1 + a multiple of the model's temporal stride, at most 1000000;"
                   " 1 is an image."), MODELS),
        "size": ("HxW", "Height and width in pixels, multiples of the model's spatial stride.",
                 MODELS),
        "fps": ("R", "Frames per second of the file, 0.1 to 1000; a gif has at most 50.", MODELS),
        "motion": ("X", "Amount of motion, 0 to 1000, for models trained with it.", MODELS),
        "crf": ("N", "Quality of an mp4, 0 (lossless) to 51.", "18"),
    },
    "Sampling": {
        "steps": ("N", "Steps from noise to video, 1 to 10000.", MODELS),
        "guidance": ("S", "How strictly the prompt is followed, 0 to 100; 1 is off.", MODELS),
        "guidance_interval": ("LO:HI", ("Times, 0 (noise) to 1 (video), between which guidance"
                              " acts."), MODELS),
        "solver": ("S", "integrated, or euler as the paper's code has it.", MODELS),
        "shift": ("L", "Time shift, 0.001 to 1000; more than 1 spends more steps near noise.",
                  MODELS),
        "correct": ("P", ("Share of codes that each step draws again, 0 (off) to 1; mends early"
                    " mistakes."), MODELS),
        "temperature": ("T", ("Randomness of the draws, 0.001 to 1000; below 1 favours likelier"
                        " codes."), MODELS),
        "top_p": ("P", "Share of probability drawn from, 0.000001 to 1 (all).", "1.0"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class SamplingCall:
    """What every sampling command can be given; ``clip`` are options of the clip, by name."""

    clip: Mapping[str, Any] = field(default_factory=dict)
    model: options.Model = options.DEFAULT_MODEL
    lora: options.Lora = None
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    offload: options.Offload = False
    offload_blocks: options.OffloadBlocks = None
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
        own = {name: value for name, value in given.items() if name in option_types()}
        return replace(self, clip={**self.clip, **own})

    def begin(self) -> None:
        """Configure the output; refuse, before anything is loaded, values that can't be."""
        output.configure(as_json=self.as_json, quiet=self.quiet)
        checked(self.clip)

    def place(self, *, is_shared: bool = False) -> Any:
        """The model in its place, downloaded if need be; processes of a launcher may share GPUs."""
        from ursa_core.clips.plan import place_model
        from ursa_core.devices import local_device

        return place_model(
            self.model, str(local_device(self.device)) if is_shared else self.device, self.dtype,
            offload=self.offload, offload_blocks=self.offload_blocks, compiled=self.compiled,
            lora=self.lora or (), progress=options.download_progress,
        )  # fmt: skip


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of a clip and of its parameter ``sampling`` as its own.

    Where the command has a parameter of an option's name itself, the option isn't given.
    """
    own = inspect.signature(command).parameters
    hints = {name: kind | None for name, kind in option_types().items() if name not in own}
    of_clip = [
        inspect.Parameter(name, options.KEYWORD, default=None, annotation=hint)
        for name, hint in options.described_types(hints, _CLIP).items()
    ]
    of_call = [each for each in options.parameters(SamplingCall, {}) if each.name not in own]

    def call(**given: Any) -> SamplingCall:
        clip = {each.name: given.pop(each.name) for each in of_clip}
        return SamplingCall({k: v for k, v in clip.items() if v is not None}, **given)

    return options.with_parameters(command, sampling=([*of_clip, *of_call], call))
