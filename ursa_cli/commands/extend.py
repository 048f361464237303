"""`ursa extend`: a video made longer, in rounds that are kept."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from ursa_cli import batch_run
from ursa_cli.commands.making import note_kept
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.batches import BATCHES, BatchOptions, columns
from ursa_cli.options.records import Panels, described, spread
from ursa_cli.options.sampling import CLIP_PANEL, GIVEN_PANEL
from ursa_cli.options.shared import argument
from ursa_cli.terminal import output
from ursa_core.clips.requests import ExtensionOptions
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_core.bundle.bundle import Bundle
    from ursa_core.clips.extend_plan import ExtendPlan
    from ursa_core.clips.round_store import RoundStore
    from ursa_core.tokenizers.visual import VisualTokenizer


_OPTIONS: Panels = {
    CLIP_PANEL: {
        "seconds": ("S", ("Length of the result, the clip's own frames counted, to the nearest "
                    "frame.")),
        "frames": ("N", "The same in frames; any number above the clip's own."),
        "before": (None, "Make what comes before the clip."),
    },
    GIVEN_PANEL: {
        "overlap": ("N", ("Frames that a round is given, 1 + a multiple of the model's temporal "
                    "stride."), "a quarter of the model's frames"),
        "chain": (None, ("How rounds chain: as tokens, decoded once in one piece, or as pixels, "
                  "encoded again."), "the model's, pixels with --before",
                  Literal["tokens", "pixels"] | None),
        "schedule": (None, ("New frames of a round are refined together, or on a rolling diagonal: "
                     "earlier ones ahead in time, one latent frame done in each round, in tokens "
                     "alone."), True, Literal["together", "diagonal"]),
        **shared.COND,
        **shared.SOURCE_FPS,
    },
    options.RUN_PANEL: {
        "fresh": (None, "Delete the rounds that a stopped run has kept; else it goes on."),
    },
}  # fmt: skip
# No --batch-size: a clip's rounds follow one another.
_BATCHES: Panels = {
    panel: {name: about for name, about in table.items() if name != "batch_size"}
    for panel, table in BATCHES.items()
}


@shared.spread
@spread("asked", ExtensionOptions, _OPTIONS)
@spread("batch", BatchOptions, _BATCHES)
@described(_OPTIONS)
def extend(
    out: shared.Output,
    sampling: shared.SamplingCall,
    asked: ExtensionOptions,
    batch: BatchOptions,
    clip: Annotated[
        str | None, argument("CLIP", "Video, or token file (.safetensors) of one, to go on from.")
    ] = None,
    prompts: Annotated[
        list[str] | None,
        argument(
            "PROMPT",
            "What follows; several take equal shares of it in turn. Without one, that of "
            "the clip's metadata.",
        ),
    ] = None,
    fresh: bool = False,
) -> None:
    """Make a video longer: any length, in rounds, its own frames unchanged.

    A finished round is kept next to the output, in OUT.rounds, until the video
    is written: stop it and give the same command again, and it goes on.

    Examples:
      ursa extend out.mp4 -o long.mp4 --seconds 10
      ursa extend a.mp4 "a fox on a purple background" -o b.mp4 --frames 41
      ursa extend --from-file clips.txt -o longer --seconds 10
    """
    output.configure(as_json=sampling.as_json, quiet=sampling.quiet)
    sampling.check()
    options.require_name("output", out)
    wanted = replace(asked, clip=clip or "", prompts=prompts)
    if batch.from_file is not None:
        if clip is not None:
            raise UsageError(
                "CLIP and --from-file can't both be given", "name clips and prompts in the list"
            )
        of_line = {"clip": str, "prompt": str, **columns(ExtensionOptions)}
        listed = batch.read(out, of_line, sampling.force, text="clip")

        from ursa_core.clips.batch_tasks import ExtendTask

        model = sampling.place(is_shared=True)
        task = ExtendTask(model, sampling.clip, wanted, fresh, output.warn)
        batch_run.run_batch(task, listed, sampling.seed, sampling.dry_run)
        return
    if clip is None:
        raise UsageError("missing argument 'CLIP'", "see ursa extend --help")
    batch.refuse()
    wanted.check()

    from ursa_core.bundle.bundle import load_tokenizer, tokenizer_identity
    from ursa_core.clips.extend_plan import plan_extension
    from ursa_core.clips.round_store import RoundStore
    from ursa_core.media import check_output

    store = RoundStore(out)
    check_output(out, sampling.force or (not fresh and store.is_finished()))
    model = sampling.place()

    def tokenizer() -> "tuple[VisualTokenizer, str]":
        found, _, identity = load_tokenizer(model.found.folder, model.device)
        return found, identity

    kept = None if fresh else store.plan()
    clip_options, has_seed = sampling.clip, sampling.seed is not None
    if not has_seed and kept is not None and isinstance(kept.get("seed"), int):
        clip_options = {**clip_options, "seed": kept["seed"]}
    planned = plan_extension(model, clip_options, wanted, out, tokenizer)
    for warning in planned.warnings:
        output.warn(warning)
    if sampling.dry_run:
        _print_plan(planned, out)
        return
    plan = {**planned.provenance, "tokenizer": tokenizer_identity(model.found.folder)}
    if not fresh:
        store.check(plan)
    bundle = planned.plan.model.load()
    for warning in planned.prompt_warnings(bundle):
        output.warn(warning)
    store.open(plan, fresh)
    if not has_seed:
        output.note(f"seed {planned.plan.seed}")
    _make(planned, bundle, store, out)


def _print_plan(planned: "ExtendPlan", out: str) -> None:
    """Print what would be made."""
    extension, fps = planned.extension, planned.plan.options.fps
    rounds, each = extension.num_rounds, extension.frames_per_round
    more = {"output": out, "num_rounds": rounds, "frames_per_round": each}
    file, own = planned.media.file, extension.own_frames
    lines = [
        f"{file}: {own} frames at {fps:g} fps, {extension.frames} wanted",
        f"{rounds} round{'s' * (rounds != 1)} of {each} frames, {extension.overlap} given to each",
    ]
    output.data({**planned.provenance, **more}, lines=lines, paths=[out])


def _make(planned: "ExtendPlan", bundle: "Bundle", store: "RoundStore", out: str) -> None:
    """Make the video, and report its rounds."""
    steps = planned.round_steps
    done = 0
    try:
        with output.progress(sum(steps), "extend") as advance:

            def on_round(resumed: bool) -> None:
                nonlocal done
                if resumed:
                    advance(steps[done], earlier=True)
                done += 1

            metrics = planned.make_file(bundle, store, out, lambda *_: advance(), on_round)
    except KeyboardInterrupt:
        output.note(f"{done} of {len(steps)} rounds are in {store.folder}")
        raise
    header = ("ROUND", "COLOUR", "SHARPNESS", "JOIN", "CHANGE")
    rows = [
        (each["index"] + 1, round(each["colour_drift"], 1), round(each["sharpness"], 2),
         round(each["join_change"], 2), round(each["median_change"], 2))
        for each in metrics["rounds"]
    ]  # fmt: skip
    for line in output.table(header, rows):
        output.note(line)
    note_kept(metrics["kept"])
    output.data({**planned.provenance, "output": out, **metrics}, paths=[out])
