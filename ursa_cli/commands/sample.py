"""`ursa sample`: text to video, and video from a first frame or from another video."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ursa_cli.commands.making import make_batch, make_clips
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.batches import BATCHES, BatchOptions, columns
from ursa_core.clips.requests import STRENGTH, SampleInputs
from ursa_core.errors import UsageError

_OPTIONS: options.Panels = {None: {
    "num": ("N", "Videos to make, 1 to 10000, as OUT-0000, OUT-0001, ..."),
}, shared.GIVEN_PANEL: {
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
@options.described({**_OPTIONS, **BATCHES}, inputs=SampleInputs, batch=BatchOptions)
def sample(
    context: typer.Context,
    out: shared.Output,
    sampling: shared.SamplingCall,
    inputs: SampleInputs,
    batch: BatchOptions,
    prompt: Annotated[
        str | None, options.argument("PROMPT", 'What to show; "" leaves it to the model.')
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
    sampling.begin()
    for name, text in {"output": out, "file for the codes": save_tokens}.items():
        options.require_name(name, text)
    options.require(1 <= num <= 10_000, "--num", num, "1 to 10000")
    in_range = preview is None or 1 <= preview <= 10_000
    options.require(in_range, "--preview", preview, "1 to 10000 steps")
    from_file = batch.from_file
    _check_together(num, from_file, prompt, replay)
    if from_file is None:
        batch.refuse()
    inputs, replayed = replace(inputs, prompt=prompt or ""), None
    options.require_text("file to replay", replay)
    if replay is not None:
        from ursa_core.clips.replay import read_replay

        replayed = read_replay(replay)
        num, kept = replayed.num, replayed.placement.items()
        placement = {k: v for k, v in kept if not options.is_given(context, k)}
        sampling = replace(sampling, clip={**replayed.options, **sampling.clip}, **placement)
        changes = {k: v for k, v in vars(inputs).items() if options.is_given(context, k)}
        if {"image", "video"} & changes.keys():
            changes["fit"] = inputs.fit
        inputs = replayed.inputs.overridden(changes)
        replayed.check_inputs(inputs)
    options.require_text("prompt", inputs.prompt, may_be_empty=True)
    if from_file is not None:
        if save_tokens is not None and Path(save_tokens).suffix:
            raise UsageError(f"{save_tokens} is no folder for the codes", "give one")
        if preview is not None and batch.ray is not None:
            raise UsageError("--preview and --ray can't both be given", "leave one out")
        wanted = batch.read(out, {"prompt": str, **columns(SampleInputs)}, sampling.force)
        make_batch("sample", wanted, sampling, inputs, save_tokens, preview or 0)
        return
    inputs.check()
    named = [name for name in ("model", "lora") if options.is_given(context, name)]
    make_clips(
        inputs, sampling, out, save_tokens=save_tokens, num=num, preview=preview or 0,
        replayed=replayed, named=named,
    )  # fmt: skip


def _check_together(
    num: int, from_file: str | None, prompt: str | None, replay: str | None
) -> None:
    if from_file is None and prompt is None and replay is None:
        raise UsageError("missing argument 'PROMPT'", "see ursa sample --help")
    for name, text in {"PROMPT": prompt, "--replay": replay}.items():
        if text is not None and from_file is not None:
            raise UsageError(f"{name} and --from-file can't both be given", "give one of them")
    if num != 1 and (from_file is not None or replay is not None):
        raise UsageError("--num is for a PROMPT", "write a line of the list several times instead")
