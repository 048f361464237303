"""`ursa interpolate`: a video between images."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import batch_run
from ursa_cli.commands.making import run_plan
from ursa_cli.options import batches as batch_options
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.sampling import GIVEN_PANEL
from ursa_cli.terminal import output
from ursa_core.clips.requests import InterpolationOptions

if TYPE_CHECKING:
    from ursa_cli.options.batches import Batch
    from ursa_core.clips.plan import Plan


@shared.spread
def interpolate(
    out: shared.Output,
    sampling: shared.SamplingCall,
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
    between = InterpolationOptions(first, last, keyframe, loop, prompt, cond, cond_noise, fit)
    if from_file is not None:
        columns = batch_options.columns(InterpolationOptions)
        wanted = batch_options.read_batch(
            from_file, out, columns, name_template, batch_size, shard, skip_bad, sampling.force,
            text=None,
        )  # fmt: skip
        _make_batch(wanted, sampling, between)
        return
    batch_options.refuse_without_list(name_template, batch_size, shard, skip_bad)
    between.check()

    from ursa_core.clips import outputs

    written = outputs.targets(out, None, 1)
    written[0].check()
    outputs.begun(written, sampling.force)
    plan = between.plan(sampling.place(), sampling.clip, out)
    run_plan(plan, written, sampling.dry_run, has_seed=sampling.seed is not None)


def _make_batch(
    wanted: "Batch", sampling: shared.SamplingCall, between: InterpolationOptions
) -> None:
    """Make the clips of a list, whose lines override the options."""
    from ursa_core.clips.batch_tasks import ClipTask

    model = sampling.place(batch_run.local_device(sampling.device))

    def plan_of(line: Mapping[str, Any], path: Path) -> "Plan":
        own = between.overridden(line)
        own.check()
        return own.plan(model, sampling.with_options(line).clip, str(path))

    def title_of(line: Mapping[str, Any]) -> str:
        own = between.overridden(line)
        between_them = [str(text).rpartition("@")[0] for text in own.keyframes or []]
        images = (own.first, *between_them, own.last)
        stems = [Path(str(image)).stem for image in images if image]
        return own.prompt or " ".join(stems)

    task = ClipTask(
        "interpolate", model, plan_of, title_of, wanted.batch_size, output.warn, note=output.note
    )
    batch_run.run_batch(task, wanted, sampling.seed, sampling.dry_run)
