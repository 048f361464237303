"""`ursa interpolate`: a video between images."""

from dataclasses import replace
from typing import Annotated

import typer

from ursa_cli import options, output
from ursa_cli import sampling_options as shared
from ursa_cli.sample import run
from ursa_cli.sampling_options import GIVEN_PANEL
from ursa_core.errors import UsageError


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
) -> None:
    """Make a video that goes from one image to another, or through several.

    Except at the start, an image fills the frames of its latent frame, so that
    the video rests there as many frames as the model's temporal stride.

    Examples:
      ursa interpolate --first a.png --last b.png -o between.mp4

      ursa interpolate "a red star spins" --first a.png --loop -o b.gif
    """
    output.configure(as_json=sampling.as_json, quiet=sampling.quiet)
    sampling.check()
    way = shared.condition(cond, cond_noise)
    options.require_text("prompt", prompt, may_be_empty=True)
    for name, text in (("output", out), ("first image", first), ("last image", last)):
        options.require_text(name, text)
    between = [_parse_keyframe(text) for text in keyframe or []]
    if loop and (first is None or last is not None):
        raise UsageError("--loop goes from --first back to it", "give --first and no --last")
    if len(between) + (first is not None) + (last is not None or loop) < 2:
        raise UsageError(
            "there is nothing to go between", "give --first and --last, or --first and --loop"
        )

    from ursa_cli import sample_plan

    written = sample_plan.targets(out, None, 1)
    written[0].check(sampling.force)

    from ursa_core.tasks.given_media import Given, read_image
    from ursa_core.tasks.keyframes import place_keyframes

    model = sample_plan.place_model(sampling)
    stride = model.found.strides.temporal
    plan = sample_plan.make_plan(model, sampling, prompt, written)
    if loop and sampling.frames is not None:
        # A loop's end, which shows the first frame again, is made and left out of the file.
        longer = replace(sampling, frames=sampling.frames + stride)
        plan = sample_plan.make_plan(model, longer, prompt, written)
    shape = plan.settings.shape
    end = first if loop else last
    places = place_keyframes(first, end, between, shape.frames, stride)
    given = Given({at: read_image(image, shape, fit) for at, image in places.items()}, *way)
    run(plan, given, sampling, drop=stride if loop else 0)


def _parse_keyframe(text: str) -> tuple[str, int]:
    """Image and frame from ``IMAGE@FRAME``; UsageError for another form."""
    options.require_text("keyframe", text)
    image, _, frame = text.rpartition("@")
    if not image or not frame.isdecimal() or not frame.isascii() or len(frame) > 7:
        raise UsageError(f"{text} is no keyframe", "give IMAGE@FRAME, as middle.png@8")
    return image, int(frame)
