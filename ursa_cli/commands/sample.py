"""`ursa sample`: text to video, and video from a first frame or from another video."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import batch_run, clips
from ursa_cli.options import batches as batch_options
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.batches import Batch
from ursa_cli.options.sampling import GIVEN_PANEL
from ursa_cli.sample_given import STRENGTH, SampleGiven
from ursa_cli.terminal import output
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.clips import Clip


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
            help="How much of --video is redone, 0.001 (hardly any) to 1 (all).",
            show_default=str(STRENGTH),
            rich_help_panel=GIVEN_PANEL,
        ),
    ] = None,
    cond: shared.Conditions = None,
    cond_noise: shared.CondNoise = None,
    fit: shared.Fit = False,
    source_fps: shared.SourceFps = None,
    from_file: batch_options.FromFile = None,
    name_template: batch_options.NameTemplate = None,
    batch_size: batch_options.BatchSize = None,
    shard: batch_options.ShardOption = None,
    skip_bad: batch_options.SkipBad = False,
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
      ursa sample "a fox on a purple background" -o out.mp4

      ursa sample "a fox on a purple background" --image a.png -o b.mp4

      ursa sample --from-file prompts.txt -o clips --batch-size 4
    """
    output.configure(as_json=sampling.as_json, quiet=sampling.quiet)
    for name, text in {"output": out, "file for the codes": save_tokens}.items():
        options.require_name(name, text)
    options.require(1 <= num <= 10_000, "--num", num, "1 to 10000")
    in_range = preview is None or 1 <= preview <= 10_000
    options.require(in_range, "--preview", preview, "1 to 10000 steps")
    _check_together(num, from_file, prompt, replay)
    given = SampleGiven(image, video, strength, cond, cond_noise, fit, source_fps)
    if from_file is None:
        batch_options.refuse_without_list(name_template, batch_size, shard, skip_bad)
    replayed = None
    options.require_text("file to replay", replay)
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
        changes = {k: v for k, v in vars(given).items() if options.is_given(context, k)}
        if {"image", "video"} & changes.keys():
            changes["fit"] = given.fit
        given = replayed.given.overridden(changes)
        replayed.check_given(given)
    if from_file is None:
        given.check()
    sampling.check()
    prompt = prompt or ""
    options.require_text("prompt", prompt, may_be_empty=True)

    # What needs no model is refused before torch is imported, which takes seconds.
    from ursa_cli import sample_plan

    if from_file is not None:
        if save_tokens is not None and Path(save_tokens).suffix:
            raise UsageError(f"{save_tokens} is no folder for the codes", "give one")
        columns = {"prompt": str, **batch_options.columns(shared.ClipOptions, SampleGiven)}
        wanted = batch_options.read_batch(
            from_file, out, columns, name_template, batch_size, shard, skip_bad, sampling.force
        )
        _make_batch(wanted, sampling, given, save_tokens, preview or 0)
        return
    written = sample_plan.targets(out, save_tokens, 1 if replayed else num)
    for target in written:
        target.check(sampling.force, bool(preview))
    there = sample_plan.begun(written, sampling.force)
    if sampling.seed is None:
        sampling = replace(sampling, seed=sample_plan.seed_of(there))
    model = sample_plan.place_model(sampling)
    if replayed is not None and not options.is_given(context, "model"):
        replayed.check_model(sampling.model, model.identity)
    if replayed is not None and not options.is_given(context, "lora"):
        replayed.check_adapters(model.adapters)
    first = replayed.index if replayed else 0
    plan = sample_plan.make_plan(
        model, sampling, prompt, written, num, first, start_time=given.start_time
    )
    clips.run(given.clip(plan), sampling, preview or 0, there)


def _check_together(
    num: int, from_file: str | None, prompt: str | None, replay: str | None
) -> None:
    """Refuse arguments that don't go together."""
    if from_file is None and prompt is None and replay is None:
        raise UsageError("missing argument 'PROMPT'", "see ursa sample --help")
    for option, text in {"PROMPT": prompt, "--replay": replay}.items():
        if text is not None and from_file is not None:
            raise UsageError(f"{option} and --from-file can't both be given", "give one of them")
    if num != 1 and (from_file is not None or replay is not None):
        raise UsageError("--num is for a PROMPT", "write a line of the list several times instead")


def _make_batch(
    wanted: Batch,
    sampling: shared.SamplingOptions,
    given: SampleGiven,
    save_tokens: str | None,
    preview: int,
) -> None:
    """Make the clips of a list, whose lines override the options."""
    from ursa_cli import batch, sample_plan
    from ursa_cli.clip_batch import ClipTask
    from ursa_core.clips.preview import check_preview

    tokens = None if save_tokens is None else Path(save_tokens)
    placed = replace(sampling, device=batch_run.local_device(sampling.device))
    model = sample_plan.place_model(placed)

    def clip_of(line: Mapping[str, Any], path: Path) -> "Clip":
        if "prompt" not in line:
            raise UsageError("there is no prompt", 'give one; in JSON lines it may be ""')
        options.require_text("prompt", line["prompt"], may_be_empty=True)
        of_line = shared.overridden(placed, line)
        of_line.check()
        own = given.overridden(shared.own_fields(SampleGiven, line))
        own.check()
        codes = None if tokens is None else str(tokens / f"{path.name}.safetensors")
        target = sample_plan.Target(str(path), codes)
        if preview and not path.exists():
            check_preview(path, sampling.force)
        plan = sample_plan.make_plan(
            model, of_line, line["prompt"], [target], start_time=own.start_time
        )
        clip = own.clip(plan)
        if codes is not None and not sampling.force and sample_plan.is_there(codes):
            options_ = {**clip.provenance, "index": 0}
            sample_plan.check_begun(codes, sample_plan.told_by(codes), options_)
        return clip

    if tokens is not None and not sampling.dry_run:
        batch_run.make_folder(tokens)
    task = ClipTask(
        "sample", model, clip_of, lambda line: line.get("prompt", ""), wanted.batch_size, tokens,
        preview,
    )  # fmt: skip
    batch.run_batch(task, wanted, sampling.seed, sampling.dry_run)
