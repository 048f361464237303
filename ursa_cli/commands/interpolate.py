"""`ursa interpolate`: a video between images."""

from dataclasses import replace
from typing import Annotated

from ursa_cli.commands.making import make_batch, make_clips
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.batches import BATCHES, BatchOptions, columns
from ursa_core.clips.requests import InterpolationOptions

_GIVEN: options.Panels = {shared.GIVEN_PANEL: {
    "first": ("A", "Image of the first frame."),
    "last": ("B", "Image of the last frame."),
    "keyframe": ("IMAGE@FRAME", "Image of a frame, counted from 0; several in rising order."),
    "loop": (None, ("Lead back to the first frame, which follows the last when it is played "
             "again.")),
    **shared.COND,
}}  # fmt: skip


@shared.spread
@options.described({**_GIVEN, **BATCHES}, given=InterpolationOptions, batch=BatchOptions)
def interpolate(
    out: shared.Output,
    sampling: shared.SamplingCall,
    given: InterpolationOptions,
    batch: BatchOptions,
    prompt: Annotated[
        str, options.argument("PROMPT", "What to show; without one the images decide.")
    ] = "",
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
    sampling.begin()
    options.require_name("output", out)
    between = replace(given, keyframes=keyframe, prompt=prompt)
    if batch.from_file is not None:
        wanted = batch.read(out, columns(InterpolationOptions), sampling.force, text=None)
        make_batch("interpolate", wanted, sampling, between)
        return
    batch.refuse()
    between.check()
    make_clips(between, sampling, out)
