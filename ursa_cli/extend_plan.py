"""What `ursa extend` will do with one clip: planned alike for one run and for a line of a batch."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.sample_plan import PlacedModel, Plan
    from ursa_core.bundle.bundle import Bundle
    from ursa_core.clips.extension import Chain, Extension, Schedule
    from ursa_core.clips.given import GivenMedia, Tokenizer
    from ursa_core.clips.round_store import RoundStore
    from ursa_core.sampling.denoise import OnStep

_TOKENS = ".safetensors"


@dataclass(frozen=True)
class ExtendOptions:
    """How a clip is to be made longer, as on the command line; lines of a batch give it as well."""

    clip: str = ""
    prompts: list[str] | None = None
    seconds: float | None = None
    frames: int | None = None
    before: bool = False
    overlap: int | None = None
    chain: str | None = None
    schedule: str = "together"
    cond: str | None = None
    cond_noise: float | None = None
    fit: bool = False
    source_fps: float | None = None

    def overridden(self, line: Mapping[str, Any]) -> Self:
        """With the values of a line; its length takes the place of either.

        Raises:
            UsageError: it has both prompt and prompts.
        """
        values = shared.own_fields(type(self), line)
        if "prompt" in line:
            if "prompts" in line:
                raise UsageError("prompt and prompts can't both be given", "give one of them")
            values["prompts"] = [line["prompt"]]
        if {"seconds", "frames"} & values.keys():
            values = {"seconds": None, "frames": None, **values}
        return replace(self, **values)

    def check(self) -> None:
        """Refuse what can't be, whatever the clip and the model are.

        Raises:
            UsageError: that is so.
        """
        options.require_text("clip", self.clip)
        for prompt in self.prompts or []:
            options.require_text("prompt", prompt, may_be_empty=True)
        shared.condition(self.cond, self.cond_noise)
        if (self.seconds is None) == (self.frames is None):
            raise UsageError("the length of the result isn't clear", "give --seconds or --frames")
        in_range = self.frames is None or 1 <= self.frames <= 1_000_000
        options.require(in_range, "--frames", self.frames, "1 to 1000000")
        in_range = self.seconds is None or 0 < self.seconds <= 100_000
        options.require(in_range, "--seconds", self.seconds, "above 0 to 100000")
        known = self.chain in (None, "tokens", "pixels")
        options.require(known, "--chain", self.chain, "tokens or pixels")
        shared.check_source_fps(self.source_fps)
        known = self.schedule in ("together", "diagonal")
        options.require(known, "--schedule", self.schedule, "together or diagonal")


@dataclass(frozen=True)
class ExtendPlan:
    """Everything that is known before the weights are loaded.

    Attributes:
        plan: of sampling; its rate is that of the file.
        extension: how the clip is made longer.
        given: the clip.
        warnings: what the user might not expect.
    """

    plan: "Plan"
    extension: "Extension"
    given: "GivenMedia"
    warnings: list[str]

    @property
    def provenance(self) -> dict[str, Any]:
        """What the video is made of; it decides every round."""
        return {
            **self.plan.provenance,
            **asdict(self.extension),
            "prompt": self.extension.prompts[0],
            "given": self.given.provenance,
        }

    @property
    def round_steps(self) -> list[int]:
        """Steps of each round."""
        extension = self.extension
        steps = self.plan.num_steps
        return [extension.steps_of(index, steps) for index in range(extension.num_rounds)]

    def prompt_warnings(self, bundle: "Bundle") -> list[str]:
        """What the model can't take of the prompts."""
        from ursa_cli.prompt_warnings import prompt_warnings

        return [
            warning
            for prompt in self.extension.prompts
            for warning in prompt_warnings(bundle, replace(self.plan.wanted, prompt=prompt))
        ]

    def make(
        self,
        bundle: "Bundle",
        store: "RoundStore",
        out: str,
        on_step: "OnStep",
        on_round: Callable[[bool], None] | None = None,
    ) -> dict[str, Any]:
        """Make the rounds that are missing, write the video, and delete what was kept for it.

        Args:
            bundle: the model.
            store: of the rounds, open.
            out: file or folder to write.
            on_step: called after each step of a round that is made.
            on_round: called after each round, with whether it was there already.

        Returns:
            Figures of the video: ``kept``, how near the clip's own frames are in the file, and
            ``rounds``.
        """
        from ursa_core.clips.extend import extend
        from ursa_core.media import write_media

        plan, given = self.plan, self.given
        rounds, frames = extend(
            bundle, given.frames, self.extension, plan.wanted, store, on_step, on_round, given.codes
        )
        write_media(out, frames, plan.settings.fps, self.provenance, plan.crf)
        store.remove()
        return {"kept": [self._kept(out)], "rounds": [asdict(each) for each in rounds]}

    def _kept(self, out: str) -> dict[str, Any]:
        """The clip's own frames in the file written; PSNR None where it can't be told."""
        from ursa_core.media import read_media
        from ursa_core.media.quality import psnr

        extension, given = self.extension, self.given
        start = extension.frames - extension.own_frames if extension.before else 0
        written = read_media(out).frames
        # Animations join equal frames, and reading may count them differently.
        is_whole = len(written) == extension.frames
        part = written[start : start + extension.own_frames]
        return {
            "file": given.file,
            "frame": start,
            "frames": extension.own_frames,
            "psnr": psnr(part, given.frames) if is_whole else None,
        }


def plan_extension(
    model: "PlacedModel",
    sampling: shared.ClipOptions,
    wanted: ExtendOptions,
    out: str,
    tokenizer: "Tokenizer",
) -> ExtendPlan:
    """What making a clip longer will take, the clip read.

    Args:
        model: in its place.
        sampling: options, checked; without a seed one is drawn.
        wanted: how, checked.
        out: file or folder to write; whether it can be is the caller's to check.
        tokenizer: gives the model's, if the clip is a token file.

    Raises:
        UrsaError: it can't be made.
    """
    from ursa_cli.sample_plan import make_plan
    from ursa_core.clips.extension import Extension, default_overlap
    from ursa_core.clips.given import read_clip, read_tokens
    from ursa_core.grids import PixelShape
    from ursa_core.media import check_format

    # --frames counts those of the result; a round has the model's own.
    plan = make_plan(model, replace(sampling, frames=None), (wanted.prompts or [""])[0], [])
    plan.check_memory()
    shape, strides = plan.settings.shape, model.found.strides
    size = PixelShape(1, shape.height, shape.width)
    if wanted.clip.lower().endswith(_TOKENS):
        given = read_tokens(wanted.clip, size, tokenizer)
    else:
        source_fps = wanted.source_fps
        given = read_clip(wanted.clip, size, wanted.fit, sampling.fps, True, source_fps)
    fps = sampling.fps or given.fps or plan.settings.fps
    warnings = list(given.notes)
    if fps != plan.settings.fps:
        warnings.append(
            f"{wanted.clip} has {fps:g} frames a second and the model makes"
            f" {plan.settings.fps:g}: motion will change its speed"
        )
    recorded = given.metadata.get("prompt")
    extension = Extension(
        len(given.frames),
        wanted.frames or round((wanted.seconds or 0) * fps),
        shape.frames,
        default_overlap(shape.frames, strides.temporal)
        if wanted.overlap is None
        else wanted.overlap,
        tuple(wanted.prompts or [recorded if isinstance(recorded, str) else ""]),
        wanted.before,
        _chain(wanted, plan),
        _schedule(wanted),
        strides.temporal,
        *shared.condition(wanted.cond, wanted.cond_noise),
    )
    extension.check()
    check_format(out, PixelShape(extension.frames, shape.height, shape.width), fps)
    plan = replace(plan, settings=replace(plan.settings, fps=fps))
    return ExtendPlan(plan, extension, given, warnings)


def _chain(wanted: ExtendOptions, plan: "Plan") -> "Chain":
    """How rounds chain: as asked for, else as the model does best."""
    best = "pixels" if wanted.before else plan.settings.chain
    return "tokens" if (wanted.chain or best) == "tokens" else "pixels"


def _schedule(wanted: ExtendOptions) -> "Schedule":
    return "diagonal" if wanted.schedule == "diagonal" else "together"
