"""`ursa sample`: text to video."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import batch, options, output, sample_values
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.sample_plan import Plan

_CLIP = "Clip"
_SAMPLING = "Sampling"
_MODELS = "the model's"


def sample(
    context: typer.Context,
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="File to write: .mp4, .mkv (lossless), .gif, .webp or .png; a name without "
            "extension is a folder of PNG frames.",
            show_default=False,
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help='What to show; "" leaves it to the model.',
            show_default=False,
        ),
    ] = None,
    model: options.Model = "nano",
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Same seed, same video; 0 to 2^63 - 1.", show_default="random"
        ),
    ] = None,
    num: Annotated[
        int,
        typer.Option(metavar="N", help="Videos to make, 1 to 10000, as OUT-0000, OUT-0001, ..."),
    ] = 1,
    negative: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What guidance leads away from.", show_default=_MODELS),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames, 1 + a multiple of the model's temporal stride, at most 1000000; "
            "1 is an image.",
            show_default=_MODELS,
            rich_help_panel=_CLIP,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Height and width in pixels, multiples of the model's spatial stride.",
            show_default=_MODELS,
            rich_help_panel=_CLIP,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Frames a second of the file, 0.1 to 1000; a gif has at most 50.",
            show_default=_MODELS,
            rich_help_panel=_CLIP,
        ),
    ] = None,
    motion: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Amount of motion, 0 or more, for models trained with it.",
            show_default=_MODELS,
            rich_help_panel=_CLIP,
        ),
    ] = None,
    crf: Annotated[
        int,
        typer.Option(
            metavar="N", help="Quality of an mp4, 0 (lossless) to 51.", rich_help_panel=_CLIP
        ),
    ] = 18,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Steps from noise to video, 1 to 10000.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="How strictly the prompt is followed, 0 to 100; 1 is off.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(
            metavar="LO:HI",
            help="Times, 0 (noise) to 1 (video), between which guidance acts.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            help="integrated, or euler as the paper's code has it.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    shift: Annotated[
        float | None,
        typer.Option(
            metavar="L",
            help="Time shift, above 0; more than 1 spends more steps near noise.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            metavar="T", help="Randomness of the draws, above 0.", rich_help_panel=_SAMPLING
        ),
    ] = 1.0,
    top_p: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Share of probability drawn from, above 0 to 1 (all).",
            rich_help_panel=_SAMPLING,
        ),
    ] = 1.0,
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
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    offload: options.Offload = False,
    compiled: options.Compile = False,
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be done, and stop.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Make a video, or an image, from text.

    Examples:
      ursa sample "a red circle moves right on a navy background" -o out.mp4

      ursa sample "a green star spins on a black background" -o star.gif --seed 7

      ursa sample --from-file prompts.txt -o clips --batch-size 4
    """
    output.configure(as_json=as_json, quiet=quiet)
    for name, text in (("output", out), ("model", model), ("file for the codes", save_tokens)):
        options.require_text(name, text)
    options.require(1 <= num <= 10_000, "--num", num, "1 to 10000")
    in_range = preview is None or 1 <= preview <= 10_000
    options.require(in_range, "--preview", preview, "1 to 10000 steps")
    values: dict[str, Any] = {name: context.params[name] for name in sample_values.VALUES}
    of_batches = {
        "--name-template": name_template is not None,
        "--batch-size": batch_size is not None,
        "--shard": shard is not None,
        "--skip-bad": skip_bad,
    }
    _check_together(prompt, num, from_file, replay, of_batches)
    replayed = None
    if replay is not None:
        from ursa_cli.sample_replay import read_replay

        replayed = read_replay(replay)
        num = replayed.num
        for name, value in replayed.values.items():
            source = context.get_parameter_source(name)
            if source is None or source.name != "COMMANDLINE":
                context.params[name] = value
        values = {name: context.params[name] for name in values}
        model, device, dtype, offload, compiled = (
            context.params[name] for name in ("model", "device", "dtype", "offload", "compiled")
        )
    sample_values.check(values)

    # What needs no model is refused before torch is imported, which takes seconds.
    from ursa_cli import sample_plan

    wanted, written = None, []
    if from_file is not None:
        if save_tokens is not None and Path(save_tokens).suffix:
            raise UsageError(f"{save_tokens} is no folder for the codes", "give one")
        wanted = batch.read_batch(
            from_file, out, sample_values.VALUES, name_template, batch_size, shard, skip_bad, force
        )
    else:
        written = sample_plan.targets(out, save_tokens, 1 if replayed else num)
        for target in written:
            target.check(force)

    from ursa_core.model_folder import model_identity
    from ursa_core.model_summary import summary

    found = summary(options.model_folder(model))
    identity = model_identity(found.folder)
    place = batch.local_device(device) if wanted else device
    placement = sample_plan.find_placement(place, dtype, offload, compiled)
    if wanted is not None:
        from ursa_cli.sample_batch import SampleTask

        def plan_of(given: Mapping[str, Any], path: Path) -> "Plan":
            merged = {**values, **given}
            sample_values.check(merged)
            target = sample_plan.Target(str(path), None)
            return sample_plan.make_plan(found, identity, merged, placement, [target], 1)

        tokens = None if save_tokens is None else Path(save_tokens)
        task = SampleTask(found, identity, plan_of, tokens, preview or 0, wanted.batch_size)
        batch.run_batch(task, wanted, seed, dry_run)
        return
    first = 0
    if replayed is not None:
        first = replayed.index
        source = context.get_parameter_source("model")
        if source is None or source.name != "COMMANDLINE":
            replayed.check_model(model, identity)
    tell_seed = values["seed"] is None
    if tell_seed:
        values["seed"] = secrets.randbelow(sample_values.MAX_SEED)
    plan = sample_plan.make_plan(found, identity, values, placement, written, num, first)
    plan.check_memory()
    if dry_run:
        payload, lines = plan.described()
        output.data(payload, lines=lines, paths=payload["outputs"])
        return
    _make(plan, preview or 0, tell_seed)


def _check_together(
    prompt: str | None,
    num: int,
    from_file: str | None,
    replay: str | None,
    of_batches: Mapping[str, bool],
) -> None:
    """Refuse arguments that don't go together."""
    if prompt is None and from_file is None and replay is None:
        raise UsageError("missing argument 'PROMPT'", "see ursa sample --help")
    if from_file is None:
        for option, is_given in of_batches.items():
            if is_given:
                raise UsageError(f"{option} is for batches", "name a list with --from-file")
    elif prompt is not None or replay is not None:
        other = "PROMPT" if prompt is not None else "--replay"
        raise UsageError(f"{other} and --from-file can't both be given", "give one of them")
    if num != 1 and (from_file is not None or replay is not None):
        raise UsageError("--num is for a PROMPT", "write a line of the list several times instead")


def _make(plan: "Plan", preview: int, tell_seed: bool) -> None:
    """Generate, decode and write, one video after the other."""
    from ursa_core.bundle import tokenizer_identity
    from ursa_core.data.token_files import save_tokens
    from ursa_core.media import write_media
    from ursa_core.sampling.generate import decode, generate, pixel_shape
    from ursa_core.sampling.preview import Preview

    wanted, fps = plan.wanted, plan.settings.fps
    bundle = plan.load()
    for warning in sample_values.prompt_warnings(bundle, wanted):
        output.warn(warning)
    identity = tokenizer_identity(bundle.folder)
    grid = bundle.grid(pixel_shape(bundle, wanted))
    outputs = []
    if tell_seed:
        output.note(f"seed {wanted.seed}")
    with output.progress(plan.settings.steps * len(plan.targets), "sample") as advance:
        for index, target in enumerate(plan.targets, start=plan.first):
            pictures = Preview(bundle, grid, [target.media], preview)
            (made,) = generate(bundle, wanted, lambda *_: advance(), pictures, [index])
            metadata = {**plan.provenance, "index": index}
            if target.tokens is not None:
                save_tokens(target.tokens, made.codes, {**metadata, "tokenizer": identity})
            write_media(target.media, decode(bundle, made.codes), fps, metadata, plan.crf)
            pictures.remove()
            outputs.append({"path": target.media, "tokens": target.tokens, "index": index})
    output.data({**plan.provenance, "outputs": outputs}, paths=[entry["path"] for entry in outputs])
