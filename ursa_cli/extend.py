"""`ursa extend`: a video made longer, in rounds that are kept."""

from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import options, output
from ursa_cli import sampling_options as shared
from ursa_cli.sample import tell_kept
from ursa_cli.sampling_options import CLIP_PANEL, GIVEN_PANEL
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.sample_plan import Plan
    from ursa_core.tasks.extend import Round
    from ursa_core.tasks.extension import Chain as ChainName
    from ursa_core.tasks.extension import Extension
    from ursa_core.tasks.given_media import GivenMedia
    from ursa_core.tasks.round_store import RoundStore

_TOKENS = ".safetensors"


class Chain(StrEnum):
    """How rounds chain."""

    TOKENS = "tokens"
    PIXELS = "pixels"


class Schedule(StrEnum):
    """How the new frames of a round go through time."""

    TOGETHER = "together"
    DIAGONAL = "diagonal"


@shared.spread
def extend(
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP", help="Video, or token file (.safetensors) of one, to go on from."
        ),
    ],
    out: shared.Output,
    sampling: shared.SamplingOptions,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help="What follows; several take equal shares of it in turn. Without one, that of "
            "the clip's metadata.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Length of the result, the clip's own frames counted, to the nearest frame.",
            show_default=False,
            rich_help_panel=CLIP_PANEL,
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The same in frames; any number above the clip's own.",
            show_default=False,
            rich_help_panel=CLIP_PANEL,
        ),
    ] = None,
    before: Annotated[
        bool,
        typer.Option(
            "--before", help="Make what comes before the clip.", rich_help_panel=CLIP_PANEL
        ),
    ] = False,
    overlap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames that a round is given, 1 + a multiple of the model's temporal stride.",
            show_default="a quarter of the model's frames",
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    chain: Annotated[
        Chain | None,
        typer.Option(
            help="How rounds chain: as tokens, decoded once in one piece, or as pixels, encoded "
            "anew.",
            show_default="the model's, pixels with --before",
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    schedule: Annotated[
        Schedule,
        typer.Option(
            help="New frames of a round are refined together, or on a rolling diagonal: earlier "
            "ones ahead in time, one latent frame done in each round, in tokens alone.",
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = Schedule.TOGETHER,
    cond: shared.Conditions = None,
    cond_noise: shared.CondNoise = None,
    fit: shared.Fit = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Delete the rounds that a stopped run has kept; else it goes on.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = False,
) -> None:
    """Make a video longer: any length, in rounds, its own frames unchanged.

    A finished round is kept beside the output, in OUT.rounds, until the video
    is written: stop it and give the same command again, and it goes on.

    Examples:
      ursa extend out.mp4 -o long.mp4 --seconds 10

      ursa extend a.mp4 "a red star spins" -o b.mp4 --frames 41
    """
    output.configure(as_json=sampling.as_json, quiet=sampling.quiet)
    sampling.check()
    way = shared.condition(cond, cond_noise)
    for name, text in (("output", out), ("clip", clip)):
        options.require_text(name, text)
    for prompt in prompts or []:
        options.require_text("prompt", prompt, may_be_empty=True)
    if (seconds is None) == (frames is None):
        raise UsageError("the length of the result isn't clear", "give --seconds or --frames")
    in_range = frames is None or 1 <= frames <= 1_000_000
    options.require(in_range, "--frames", frames, "1 to 1000000")
    in_range = seconds is None or 0 < seconds <= 100_000
    options.require(in_range, "--seconds", seconds, "above 0 to 100000")

    from ursa_cli import sample_plan
    from ursa_core.media import check_output

    check_output(out, sampling.force)
    model = sample_plan.place_model(sampling)
    plan = sample_plan.make_plan(model, sampling, (prompts or [""])[0], [])
    plan.check_memory()
    given = _read(clip, plan, fit)
    fps = sampling.fps or given.fps or plan.settings.fps
    if fps != plan.settings.fps:
        output.warn(
            f"{clip} has {fps:g} frames a second and the model makes {plan.settings.fps:g}: "
            "motion will change its speed"
        )
    prompts = prompts or [str(given.metadata.get("prompt", ""))]

    from ursa_core.grids import PixelShape
    from ursa_core.tasks.extension import Extension, default_overlap
    from ursa_core.tasks.round_store import RoundStore

    shape, strides = plan.settings.shape, model.found.strides
    extension = Extension(
        len(given.frames),
        frames or round((seconds or 0) * fps),
        shape.frames,
        default_overlap(shape.frames, strides.temporal) if overlap is None else overlap,
        tuple(prompts),
        before,
        _chain(chain, before, plan),
        schedule.value,
        strides.temporal,
        *way,
    )
    extension.check()
    result = PixelShape(extension.frames, shape.height, shape.width)
    check_output(out, sampling.force, result, fps)
    store = RoundStore(out)
    kept = None if fresh else store.plan()
    if sampling.seed is None and kept is not None and isinstance(kept.get("seed"), int):
        plan = replace(plan, wanted=replace(plan.wanted, seed=kept["seed"]))
    plan = replace(plan, settings=replace(plan.settings, fps=fps))
    provenance = _provenance(plan, extension, given)
    if sampling.dry_run:
        rounds, each = extension.num_rounds, extension.frames_per_round
        payload = {**provenance, "output": out, "num_rounds": rounds, "frames_per_round": each}
        lines = [
            f"{clip}: {len(given.frames)} frames at {fps:g} fps, {extension.frames} wanted",
            f"{rounds} rounds of {each} frames, {extension.overlap} given to each",
        ]
        output.data(payload, lines=lines, paths=[out])
        return
    _make(plan, extension, given, store, provenance, out, fresh, sampling.seed is None)


def _chain(chain: Chain | None, before: bool, plan: "Plan") -> "ChainName":
    """How rounds chain: as asked for, else as the model does best."""
    if chain is not None:
        return chain.value
    return "tokens" if plan.settings.chain == "tokens" and not before else "pixels"


def _read(clip: str, plan: "Plan", fit: bool) -> "GivenMedia":
    """The clip to extend, of the size that the model makes."""
    from ursa_core.grids import PixelShape
    from ursa_core.tasks.given_media import read_clip, read_tokens

    settings = plan.settings
    shape = PixelShape(1, settings.height, settings.width)
    if clip.endswith(_TOKENS):
        return read_tokens(clip, shape, plan.model.found.folder, plan.model.device)
    return read_clip(clip, shape, fit, whole=True)


def _provenance(plan: "Plan", extension: "Extension", given: "GivenMedia") -> dict[str, Any]:
    """What the video is made of; it decides every round."""
    return {
        **plan.provenance,
        **asdict(extension),
        "prompt": extension.prompts[0],
        "given": given.provenance,
    }


def _make(
    plan: "Plan",
    extension: "Extension",
    given: "GivenMedia",
    store: "RoundStore",
    provenance: dict[str, Any],
    out: str,
    fresh: bool,
    tell_seed: bool,
) -> None:
    """Make the rounds that are missing, write the video, and delete what was kept for it."""
    from ursa_cli.prompt_warnings import prompt_warnings
    from ursa_core.bundle import tokenizer_identity
    from ursa_core.media import write_media
    from ursa_core.tasks.extend import extend as extended

    bundle = plan.model.load()
    for prompt in extension.prompts:
        for warning in prompt_warnings(bundle, replace(plan.wanted, prompt=prompt)):
            output.warn(warning)
    store.open({**provenance, "tokenizer": tokenizer_identity(bundle.folder)}, fresh)
    if tell_seed:
        output.note(f"seed {plan.wanted.seed}")
    steps = [extension.steps_of(index, plan.num_steps) for index in range(extension.num_rounds)]
    done = 0
    try:
        with output.progress(sum(steps), "extend") as advance:

            def on_round(resumed: bool) -> None:
                nonlocal done
                if resumed:
                    advance(steps[done], earlier=True)
                done += 1

            rounds, frames = extended(
                bundle,
                given.frames,
                extension,
                plan.wanted,
                store,
                on_step=lambda *_: advance(),
                on_round=on_round,
                codes=given.codes,
            )
    except KeyboardInterrupt:
        output.note(f"{done} of {len(steps)} rounds are in {store.folder}")
        raise
    write_media(out, frames, plan.settings.fps, provenance, plan.crf)
    store.remove()
    _report(out, provenance, rounds, _kept(out, given, extension))


def _kept(out: str, given: "GivenMedia", extension: "Extension") -> dict[str, Any]:
    """How near the clip's own frames are in the file written; PSNR None where it can't be told."""
    from ursa_core.evaluation.image_metrics import psnr
    from ursa_core.media import read_media

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


def _report(
    out: str, provenance: dict[str, Any], rounds: list["Round"], kept: dict[str, Any]
) -> None:
    header = ("ROUND", "COLOUR", "SHARPNESS", "JOIN", "CHANGE")
    rows = [
        (
            each.index + 1,
            round(each.colour_drift, 1),
            round(each.sharpness, 2),
            round(each.join_change, 2),
            round(each.median_change, 2),
        )
        for each in rounds
    ]
    for line in output.table(header, rows):
        output.note(line)
    if kept["psnr"] is not None:
        tell_kept([kept])
    payload = {
        **provenance,
        "output": out,
        "kept": [kept],
        "rounds": [asdict(each) for each in rounds],
    }
    output.data(payload, paths=[out])
