"""`ursa sample`: text to video, and video from a first frame or from another video."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import batch, options, output
from ursa_cli import sampling_options as shared
from ursa_cli.sampling_options import GIVEN_PANEL
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.sample_plan import Plan
    from ursa_core.tasks.given_media import Given

_STRENGTH = 0.6


@shared.spread
def sample(
    context: typer.Context,
    out: shared.Output,
    sampling: shared.SamplingOptions,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help='What to show; "" leaves it to the model.',
            show_default=False,
        ),
    ] = None,
    num: Annotated[
        int,
        typer.Option(metavar="N", help="Videos to make, 1 to 10000, as OUT-0000, OUT-0001, ..."),
    ] = 1,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST",
            help="Image that the video starts with.",
            show_default=False,
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    video: Annotated[
        str | None,
        typer.Option(
            metavar="CLIP",
            help="Video to edit: its first frames, at the rate of the new one.",
            show_default=False,
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="How much of --video is redone, above 0 (none) to 1 (all).",
            show_default=str(_STRENGTH),
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    cond: shared.Conditions = None,
    cond_noise: shared.CondNoise = None,
    fit: shared.Fit = False,
    from_file: batch.FromFile = None,
    name_template: batch.NameTemplate = None,
    batch_size: batch.BatchSize = None,
    shard: batch.ShardOption = None,
    skip_bad: batch.SkipBad = False,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Make FILE, an output of this command, again; options given change it.",
            show_default=False,
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = None,
    preview: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Every N steps write the present estimate's first frame to OUT.preview.png.",
            show_default=False,
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = None,
    save_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="Write the codes to P, a .safetensors file (a folder in batches), before "
            "decoding.",
            show_default=False,
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = None,
) -> None:
    """Make a video, or an image, from text; or from text and an image or video.

    Examples:
      ursa sample "a red circle moves right on a navy background" -o out.mp4

      ursa sample "a blue star spins on a navy background" --image a.png -o b.mp4

      ursa sample --from-file prompts.txt -o clips --batch-size 4
    """
    output.configure(as_json=sampling.as_json, quiet=sampling.quiet)
    files = {
        "output": out,
        "file for the codes": save_tokens,
        "image": image,
        "video to edit": video,
    }
    for name, text in files.items():
        options.require_text(name, text)
    options.require(1 <= num <= 10_000, "--num", num, "1 to 10000")
    in_range = preview is None or 1 <= preview <= 10_000
    options.require(in_range, "--preview", preview, "1 to 10000 steps")
    of_batches = {
        "--name-template": name_template is not None,
        "--batch-size": batch_size is not None,
        "--shard": shard is not None,
        "--skip-bad": skip_bad,
    }
    others = {
        "PROMPT": prompt is not None,
        "--replay": replay is not None,
        "--image": image is not None,
        "--video": video is not None,
    }
    _check_together(num, from_file, others, of_batches)
    held = cond is not None or cond_noise is not None
    _check_given(image, video, strength, held, fit)
    condition = shared.condition(cond, cond_noise)
    replayed = None
    if replay is not None:
        from ursa_cli.sample_replay import read_replay

        replayed = read_replay(replay)
        num = replayed.num
        values = {
            name: value
            for name, value in replayed.values.items()
            if not options.is_given(context, name)
        }
        prompt = values.pop("prompt", prompt)
        sampling = replace(sampling, **values)
    sampling.check()
    prompt = prompt or ""
    options.require_text("prompt", prompt, may_be_empty=True)

    # What needs no model is refused before torch is imported, which takes seconds.
    from ursa_cli import sample_plan

    if from_file is not None:
        if save_tokens is not None and Path(save_tokens).suffix:
            raise UsageError(f"{save_tokens} is no folder for the codes", "give one")
        wanted = batch.read_batch(
            from_file,
            out,
            shared.columns(),
            name_template,
            batch_size,
            shard,
            skip_bad,
            sampling.force,
        )
        _make_batch(wanted, sampling, save_tokens, preview or 0)
        return
    written = sample_plan.targets(out, save_tokens, 1 if replayed else num)
    for target in written:
        target.check(sampling.force)
    model = sample_plan.place_model(sampling)
    if replayed is not None and not options.is_given(context, "model"):
        replayed.check_model(sampling.model, model.identity)
    first = replayed.index if replayed else 0
    redone = strength or _STRENGTH
    start_time = 0.0 if video is None else 1 - redone
    plan = sample_plan.make_plan(model, sampling, prompt, written, num, first, start_time)
    given = None
    if image is not None or video is not None:
        from ursa_core.tasks.given_media import Given, read_clip, read_image

        shape = plan.settings.shape
        if image is not None:
            given = Given({0: read_image(image, shape, fit)}, *condition)
        else:
            clip = read_clip(str(video), shape, fit, plan.settings.fps)
            given = Given({0: clip}, "soft", redone)
    run(plan, given, sampling, preview=preview or 0)


def _check_together(
    num: int, from_file: str | None, others: Mapping[str, bool], of_batches: Mapping[str, bool]
) -> None:
    """Refuse arguments that don't go together.

    Args:
        num: as given.
        from_file: as given.
        others: what a batch can't have, and whether it is given.
        of_batches: what is for batches alone, and whether it is given.
    """
    if from_file is None:
        if not (others["PROMPT"] or others["--replay"]):
            raise UsageError("missing argument 'PROMPT'", "see ursa sample --help")
        for option, is_given in of_batches.items():
            if is_given:
                raise UsageError(f"{option} is for batches", "name a list with --from-file")
    for option, is_given in others.items():
        if is_given and from_file is not None:
            raise UsageError(f"{option} and --from-file can't both be given", "give one of them")
    if num != 1 and (from_file is not None or others["--replay"]):
        raise UsageError("--num is for a PROMPT", "write a line of the list several times instead")


def _check_given(
    image: str | None, video: str | None, strength: float | None, held: bool, fit: bool
) -> None:
    """Refuse options of given frames that don't go together."""
    if image is not None and video is not None:
        raise UsageError("--image and --video can't both be given", "give one of them")
    in_range = strength is None or 0 < strength <= 1
    options.require(in_range, "--strength", strength, "above 0 to 1 (all is redone)")
    if strength is not None and video is None:
        raise UsageError("--strength is for --video", "name a video to edit with --video")
    if held and image is None:
        raise UsageError("--cond and --cond-noise are for --image", "name an image with --image")
    if fit and image is None and video is None:
        raise UsageError("--fit is for --image and --video", "name one of them")


def _make_batch(
    wanted: batch.Batch, sampling: shared.SamplingOptions, save_tokens: str | None, preview: int
) -> None:
    """Make the clips of a list, whose lines override the options."""
    from ursa_cli import sample_plan
    from ursa_cli.sample_batch import SampleTask

    placed = replace(sampling, device=batch.local_device(sampling.device))
    model = sample_plan.place_model(placed)

    def plan_of(given: Mapping[str, Any], path: Path) -> "Plan":
        values = dict(given)
        prompt = values.pop("prompt")
        options.require_text("prompt", prompt, may_be_empty=True)
        of_line = replace(placed, **values)
        of_line.check()
        return sample_plan.make_plan(model, of_line, prompt, [sample_plan.Target(str(path), None)])

    tokens = None if save_tokens is None else Path(save_tokens)
    task = SampleTask(model, plan_of, tokens, preview, wanted.batch_size)
    batch.run_batch(task, wanted, sampling.seed, sampling.dry_run)


def run(
    plan: "Plan",
    given: "Given | None",
    sampling: shared.SamplingOptions,
    *,
    drop: int = 0,
    preview: int = 0,
) -> None:
    """Make what is planned, or print the plan with ``--dry-run``.

    Args:
        plan: of what, and where to.
        given: frames that every video is given.
        sampling: as given.
        drop: frames at the end of what is made that aren't written.
        preview: steps from one preview to the next; 0 is none.

    Raises:
        UrsaError: it can't be made.
    """
    plan.check_memory()
    if not sampling.dry_run:
        _make(plan, given, sampling.seed is None, drop, preview)
        return
    payload, lines = plan.described()
    if given is not None:
        payload |= {"given": given.provenance}
        lines += [
            f"{'given':<10}{media.file}, from frame {at}, {given.cond}, noise {given.cond_noise:g}"
            for at, media in given.media.items()
        ]
    output.data(payload, lines=lines, paths=payload["outputs"])


def _make(plan: "Plan", given: "Given | None", tell_seed: bool, drop: int, preview: int) -> None:
    """Generate, decode and write, one video after the other."""
    from ursa_cli.prompt_warnings import prompt_warnings
    from ursa_core.bundle import tokenizer_identity
    from ursa_core.data.token_files import save_tokens
    from ursa_core.media import write_media
    from ursa_core.sampling.generate import decode, generate, pixel_shape
    from ursa_core.sampling.preview import Preview

    wanted, fps = plan.wanted, plan.settings.fps
    bundle = plan.model.load()
    for warning in prompt_warnings(bundle, wanted):
        output.warn(warning)
    identity = tokenizer_identity(bundle.folder)
    grid = bundle.grid(pixel_shape(bundle, wanted))
    if tell_seed:
        output.note(f"seed {wanted.seed}")
    conditioning = None
    provenance = plan.provenance
    if given is not None:
        conditioning = given.conditioning(bundle, grid)
        provenance |= {"given": given.provenance}
    if drop:
        provenance |= {"dropped_frames": drop}
    outputs = []
    with output.progress(plan.num_steps * len(plan.targets), "sample") as advance:
        for index, target in enumerate(plan.targets, start=plan.first):
            pictures = Preview(bundle, grid, [target.media], preview)
            (made,) = generate(
                bundle, wanted, lambda *_: advance(), pictures, [index], conditioning
            )
            metadata = {**provenance, "index": index}
            if target.tokens is not None:
                save_tokens(target.tokens, made.codes, {**metadata, "tokenizer": identity})
            frames = decode(bundle, made.codes)
            frames = frames[: len(frames) - drop]
            entry: dict[str, Any] = {"path": target.media, "tokens": target.tokens, "index": index}
            if given is not None:
                entry["kept"] = given.kept(frames)
                tell_kept(entry["kept"])
            write_media(target.media, frames, fps, metadata, plan.crf)
            pictures.remove()
            outputs.append(entry)
    output.data({**provenance, "outputs": outputs}, paths=[entry["path"] for entry in outputs])


def tell_kept(kept: list[dict[str, Any]]) -> None:
    """Say how near the given frames came out."""
    for row in kept:
        last = row["frame"] + row["frames"] - 1
        where = f"frame {last}" if row["frames"] == 1 else f"frames {row['frame']} to {last}"
        output.note(f"kept {where} of {row['file']} at {row['psnr']:.1f} dB")
