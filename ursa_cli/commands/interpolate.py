"""`ursa interpolate`: a video between images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ursa_cli import batch_run
from ursa_cli.commands.making import run_plan
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.batches import BATCHES, Batch, BatchOptions, columns
from ursa_cli.options.records import Panels, described, spread
from ursa_cli.options.sampling import GIVEN_PANEL
from ursa_cli.options.shared import argument
from ursa_cli.terminal import output
from ursa_core.clips.requests import InterpolationOptions

if TYPE_CHECKING:
    from ursa_core.clips.plan import Plan


_GIVEN: Panels = {GIVEN_PANEL: {
    "first": ("A", "Image of the first frame."),
    "last": ("B", "Image of the last frame."),
    "keyframe": ("IMAGE@FRAME", "Image of a frame, counted from 0; several in rising order."),
    "loop": (None, ("Lead back to the first frame, which follows the last when it is played "
             "again.")),
    **shared.COND,
}}  # fmt: skip


@shared.spread
@spread("given", InterpolationOptions, _GIVEN)
@spread("batch", BatchOptions, BATCHES)
@described(_GIVEN)
def interpolate(
    out: shared.Output,
    sampling: shared.SamplingCall,
    given: InterpolationOptions,
    batch: BatchOptions,
    prompt: Annotated[str, argument("PROMPT", "What to show; without one the images decide.")] = "",
    keyframe: list[str] | None = None,
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
    between = replace(given, keyframes=keyframe, prompt=prompt)
    if batch.from_file is not None:
        wanted = batch.read(out, columns(InterpolationOptions), sampling.force, text=None)
        _make_batch(wanted, sampling, between)
        return
    batch.refuse()
    between.check()

    from ursa_core.clips import outputs

    written = outputs.targets(out, None, 1)
    written[0].check()
    outputs.begun(written, sampling.force)
    plan = between.plan(sampling.place(), sampling.clip, out)
    run_plan(plan, written, sampling.dry_run, has_seed=sampling.seed is not None)


def _make_batch(
    wanted: Batch, sampling: shared.SamplingCall, between: InterpolationOptions
) -> None:
    """Make the clips of a list, whose lines override the options."""
    from ursa_core.clips.batch_tasks import ClipTask

    model = sampling.place(is_shared=True)

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
