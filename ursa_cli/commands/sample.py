"""`ursa sample`: text to video, and video from a first frame or from another video."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import batch_run
from ursa_cli.commands.making import run_plan
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.batches import BATCHES, Batch, BatchOptions, columns
from ursa_cli.options.records import Panels, described, spread
from ursa_cli.options.sampling import GIVEN_PANEL
from ursa_cli.options.shared import argument
from ursa_cli.terminal import output
from ursa_core.clips.requests import STRENGTH, SampleInputs
from ursa_core.errors import UsageError
from ursa_core.files import make_folder

if TYPE_CHECKING:
    from ursa_core.clips.plan import Plan


_OPTIONS: Panels = {None: {
    "num": ("N", "Videos to make, 1 to 10000, as OUT-0000, OUT-0001, ..."),
}, GIVEN_PANEL: {
    "image": ("FIRST", "Image that the video starts with."),
    "video": ("CLIP", "Video to edit: its first frames, at the rate of the new one."),
    "strength": ("X", "How much of --video is redone, 0.001 (hardly any) to 1 (all).",
                 str(STRENGTH)),
    **shared.COND,
    **shared.SOURCE_FPS,
}, options.RUN_PANEL: {
    "replay": ("FILE", "Make FILE, an output of this command, again; options given change it."),
    "preview": ("N", "Every N steps write the present estimate's first frame to OUT.preview.png."),
    "save_tokens": ("P", ("Write the codes to P, a .safetensors file (a folder in batches), before "
                    "decoding.")),
}}  # fmt: skip


@shared.spread
@spread("inputs", SampleInputs, _OPTIONS)
@spread("batch", BatchOptions, BATCHES)
@described(_OPTIONS)
def sample(
    context: typer.Context,
    out: shared.Output,
    sampling: shared.SamplingCall,
    inputs: SampleInputs,
    batch: BatchOptions,
    prompt: Annotated[
        str | None, argument("PROMPT", 'What to show; "" leaves it to the model.')
    ] = None,
    num: int = 1,
    replay: str | None = None,
    preview: int | None = None,
    save_tokens: str | None = None,
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
    from_file = batch.from_file
    _check_together(num, from_file, prompt, replay)
    if from_file is None:
        batch.refuse()
    replayed = None
    options.require_text("file to replay", replay)
    if replay is not None:
        from ursa_core.clips.replay import read_replay

        replayed = read_replay(replay)
        num, prompt = replayed.num, replayed.prompt if prompt is None else prompt
        kept = replayed.placement.items()
        placement = {k: v for k, v in kept if not options.is_given(context, k)}
        sampling = replace(sampling, clip={**replayed.options, **sampling.clip}, **placement)
        changes = {k: v for k, v in vars(inputs).items() if options.is_given(context, k)}
        if {"image", "video"} & changes.keys():
            changes["fit"] = inputs.fit
        inputs = replayed.inputs.overridden(changes)
        replayed.check_inputs(inputs)
    if from_file is None:
        inputs.check()
    sampling.check()
    options.require_text("prompt", prompt, may_be_empty=True)

    # What needs no model is refused before torch is imported, which takes seconds.
    from ursa_core.clips import outputs

    if from_file is not None:
        if save_tokens is not None and Path(save_tokens).suffix:
            raise UsageError(f"{save_tokens} is no folder for the codes", "give one")
        if preview is not None and batch.ray is not None:
            raise UsageError("--preview and --ray can't both be given", "leave one out")
        wanted = batch.read(out, {"prompt": str, **columns(SampleInputs)}, sampling.force)
        _make_batch(wanted, sampling, inputs, save_tokens, preview or 0)
        return
    written = outputs.targets(out, save_tokens, 1 if replayed else num)
    for target in written:
        target.check()
        if preview:
            outputs.check_preview(target.media, sampling.force)
    there = outputs.begun(written, sampling.force)
    has_seed = sampling.seed is not None
    if not has_seed:
        sampling = sampling.with_options({"seed": outputs.seed_of(there)})
    model = sampling.place()
    if replayed is not None:
        if not options.is_given(context, "model"):
            replayed.check_model(sampling.model, model.identity)
        if not options.is_given(context, "lora"):
            replayed.check_adapters(model.adapters)

    from ursa_core.clips.plan import make_plan

    plan = inputs.added_to(make_plan(model, sampling.clip, prompt or "", written[0].media, num))
    run_plan(
        plan, written, sampling.dry_run, has_seed=has_seed,
        first=replayed.index if replayed else 0, there=there, preview=preview or 0,
    )  # fmt: skip


def _check_together(
    num: int, from_file: str | None, prompt: str | None, replay: str | None
) -> None:
    """Refuse arguments that don't go together."""
    if from_file is None and prompt is None and replay is None:
        raise UsageError("missing argument 'PROMPT'", "see ursa sample --help")
    for name, text in {"PROMPT": prompt, "--replay": replay}.items():
        if text is not None and from_file is not None:
            raise UsageError(f"{name} and --from-file can't both be given", "give one of them")
    if num != 1 and (from_file is not None or replay is not None):
        raise UsageError("--num is for a PROMPT", "write a line of the list several times instead")


def _make_batch(
    wanted: Batch,
    sampling: shared.SamplingCall,
    inputs: SampleInputs,
    save_tokens: str | None,
    preview: int,
) -> None:
    """Make the clips of a list, whose lines override the options."""
    from ursa_core.clips import outputs
    from ursa_core.clips.batch_tasks import ClipTask
    from ursa_core.clips.plan import make_plan

    tokens = None if save_tokens is None else Path(save_tokens)
    model = sampling.place(is_shared=True)

    def plan_of(line: Mapping[str, Any], path: Path) -> "Plan":
        if "prompt" not in line:
            raise UsageError("there is no prompt", 'give one; in JSON lines it may be ""')
        own = inputs.overridden(line)
        own.check()
        if preview and not path.exists():
            outputs.check_preview(path, sampling.force)
        clip = sampling.with_options(line).clip
        plan = own.added_to(make_plan(model, clip, line["prompt"], str(path)))
        if tokens is not None:
            codes = str(tokens / f"{path.name}.safetensors")
            if not sampling.force and outputs.is_there(codes):
                outputs.check_begun(codes, outputs.made_by(codes), plan.metadata())
        return plan

    if tokens is not None and not sampling.dry_run:
        make_folder(tokens)
    task = ClipTask(
        "sample", model, plan_of, lambda line: line.get("prompt", ""), wanted.batch_size,
        output.warn, tokens, preview, output.note,
    )  # fmt: skip
    batch_run.run_batch(task, wanted, sampling.seed, sampling.dry_run)
