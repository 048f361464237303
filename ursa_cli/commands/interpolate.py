"""`ursa interpolate`: a video between images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from ursa_cli import clips
from ursa_cli.options import batches as batch_options
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.sampling import GIVEN_PANEL
from ursa_cli.terminal import output
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.clips import Clip
    from ursa_cli.options.batches import Batch
    from ursa_cli.sample_plan import PlacedModel, Target


@dataclass(frozen=True)
class Between:
    """What a video goes between, as on the command line; lines of a batch give it as well."""

    first: str | None = None
    last: str | None = None
    keyframes: list[str] | None = None
    loop: bool = False
    prompt: str = ""
    cond: str | None = None
    cond_noise: float | None = None
    fit: bool = False

    def overridden(self, line: Mapping[str, Any]) -> Self:
        """With the values of a line; its images take the place of all, and of a loop."""
        values = shared.own_fields(type(self), line)
        if {"first", "last", "keyframes"} & values.keys():
            values = {"first": None, "last": None, "keyframes": None, "loop": False, **values}
        return replace(self, **values)

    def check(self) -> None:
        """Refuse what can't be, or doesn't go together.

        Raises:
            UsageError: that is so.
        """
        first, last = self.first, self.last
        shared.condition(self.cond, self.cond_noise)
        options.require_text("prompt", self.prompt, may_be_empty=True)
        for name, text in (("first image", first), ("last image", last)):
            options.require_text(name, text)
        if self.loop and (first is None or last is not None):
            raise UsageError("--loop goes from --first back to it", "give --first and no --last")
        ends = (first is not None) + (last is not None or self.loop)
        if len(self._placed) + ends < 2:
            raise UsageError(
                "there is nothing to go between", "give --first and --last, or --first and --loop"
            )

    def clip(self, model: "PlacedModel", sampling: shared.ClipOptions, target: "Target") -> "Clip":
        """What is to be made, the images read.

        Raises:
            UrsaError: they can't be read, or don't fit the clip or one another.
        """
        from ursa_cli.sample_plan import make_plan
        from ursa_core.clips.given import Given, read_image
        from ursa_core.clips.keyframes import place_keyframes

        stride = model.found.strides.temporal
        plan = make_plan(model, sampling, self.prompt, [target])
        if plan.settings.frames == 1:
            raise UsageError(
                "a clip of one frame has nothing between its ends", "ask for more --frames"
            )
        if self.loop and sampling.frames is not None:
            # A loop's end, which shows the first frame again, is made and left out of the file.
            longer = replace(sampling, frames=sampling.frames + stride)
            plan = make_plan(model, longer, self.prompt, [target])
        shape = plan.settings.shape
        drop, end = (stride, self.first) if self.loop else (0, self.last)
        places = place_keyframes(
            self.first, end, self._placed, shape.frames - drop, stride, self.loop
        )
        images = {at: read_image(image, shape, self.fit) for at, image in places.items()}
        way = shared.condition(self.cond, self.cond_noise)
        return clips.Clip(plan, Given(images, *way), drop)

    @property
    def _placed(self) -> list[tuple[str, int]]:
        return [_parse_keyframe(text) for text in self.keyframes or []]


@shared.spread
def interpolate(
    out: shared.Output,
    sampling: shared.SamplingOptions,
    prompt: Annotated[
        str,
        typer.Argument(metavar="PROMPT", help="What to show; without one the images decide."),
    ] = "",
    first: Annotated[
        str | None,
        typer.Option(
            metavar="A",
            help="Image of the first frame.",
            show_default=False,
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option(
            metavar="B",
            help="Image of the last frame.",
            show_default=False,
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    keyframe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE@FRAME",
            help="Image of a frame, counted from 0; several in rising order.",
            show_default=False,
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    loop: Annotated[
        bool,
        typer.Option(
            "--loop",
            help="Lead back to the first frame, which follows the last when it is played again.",
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = False,
    cond: shared.Conditions = None,
    cond_noise: shared.CondNoise = None,
    fit: shared.Fit = False,
    from_file: batch_options.FromFile = None,
    name_template: batch_options.NameTemplate = None,
    batch_size: batch_options.BatchSize = None,
    shard: batch_options.ShardOption = None,
    skip_bad: batch_options.SkipBad = False,
) -> None:
    """Make a video that goes from one image to another, or through several.

    Except at the start, an image fills the frames of its latent frame, so that
    the video rests there as many frames as the model's temporal stride.

    Examples:
      ursa interpolate --first a.png --last b.png -o between.mp4

      ursa interpolate "a fox" --first a.png --loop -o b.gif

      ursa interpolate --from-file pairs.csv -o clips
    """
    output.configure(as_json=sampling.as_json, quiet=sampling.quiet)
    sampling.check()
    options.require_name("output", out)
    between = Between(first, last, keyframe, loop, prompt, cond, cond_noise, fit)
    if from_file is not None:
        columns = batch_options.columns(Between, shared.ClipOptions)
        wanted = batch_options.read_batch(
            from_file, out, columns, name_template, batch_size, shard, skip_bad, sampling.force,
            text=None,
        )  # fmt: skip
        _make_batch(wanted, sampling, between)
        return
    batch_options.refuse_without_list(name_template, batch_size, shard, skip_bad)
    between.check()

    from ursa_cli import sample_plan

    (target,) = sample_plan.targets(out, None, 1)
    target.check(sampling.force)
    sample_plan.begun([target], sampling.force)
    clips.run(between.clip(sample_plan.place_model(sampling), sampling, target), sampling)


def _make_batch(wanted: "Batch", sampling: shared.SamplingOptions, between: Between) -> None:
    """Make the clips of a list, whose lines override the options."""
    from ursa_cli import batch, batch_run, sample_plan
    from ursa_cli.clip_batch import ClipTask

    placed = replace(sampling, device=batch_run.local_device(sampling.device))
    model = sample_plan.place_model(placed)

    def clip_of(line: Mapping[str, Any], path: Path) -> "Clip":
        of_line, own = shared.overridden(placed, line), between.overridden(line)
        of_line.check()
        own.check()
        return own.clip(model, of_line, sample_plan.Target(str(path), None))

    def title_of(line: Mapping[str, Any]) -> str:
        own = between.overridden(line)
        images = [text.rpartition("@")[0] for text in own.keyframes or []]
        stems = [Path(image).stem for image in (own.first, *images, own.last) if image]
        return own.prompt or " ".join(stems)

    task = ClipTask("interpolate", model, clip_of, title_of, wanted.batch_size)
    batch.run_batch(task, wanted, sampling.seed, sampling.dry_run)


def _parse_keyframe(text: str) -> tuple[str, int]:
    """Image and frame from ``IMAGE@FRAME``; UsageError for another form."""
    options.require_text("keyframe", text)
    image, _, frame = text.rpartition("@")
    if not image or not frame.isdecimal() or not frame.isascii() or len(frame) > 7:
        raise UsageError(f"{text} is no keyframe", "give IMAGE@FRAME, as middle.png@8")
    return image, int(frame)
