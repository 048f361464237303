"""`ursa extend`: a video made longer, in rounds that are kept."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from ursa_cli import batch_run
from ursa_cli.commands.making import note_kept
from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_cli.options.batches import BATCHES, BatchOptions, columns
from ursa_cli.terminal import output
from ursa_core.clips.requests import ExtensionOptions
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_core.bundle.bundle import Bundle
    from ursa_core.clips.extend import ExtendPlan
    from ursa_core.clips.round_store import RoundStore


_OPTIONS: options.Panels = {
    shared.CLIP_PANEL: {
        "seconds": ("S", ("Length of the result, the clip's own frames counted, to the nearest "
                    "frame.")),
        "frames": ("N", "The same in frames; any number above the clip's own."),
        "before": (None, "Make what comes before the clip."),
    },
    shared.GIVEN_PANEL: {
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
    # No --batch-size: a clip's rounds follow one another.
    "Batches": {name: about for name, about in BATCHES["Batches"].items() if name != "batch_size"},
}  # fmt: skip


@shared.spread
@options.described(_OPTIONS, asked=ExtensionOptions, batch=BatchOptions)
def extend(
    out: shared.Output,
    sampling: shared.SamplingCall,
    asked: ExtensionOptions,
    batch: BatchOptions,
    clip: Annotated[
        str | None,
        options.argument("CLIP", "Video, or token file (.safetensors) of one, to go on from."),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        options.argument(
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
    sampling.begin()
    options.require_name("output", out)
    wanted = replace(asked, clip=clip or "", prompts=prompts)
    if batch.from_file is not None:
        if clip is not None:
            hint = "name clips and prompts in the list"
            raise UsageError("CLIP and --from-file can't both be given", hint)
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

    from ursa_core.clips.extend import plan_extension
    from ursa_core.clips.outputs import seed_of
    from ursa_core.clips.round_store import RoundStore
    from ursa_core.media import check_output

    store = RoundStore(out)
    check_output(out, sampling.force or (not fresh and store.is_finished()))
    model, has_seed = sampling.place(), sampling.seed is not None
    if not (has_seed or fresh):
        sampling = sampling.with_options({"seed": seed_of({out: store.plan() or {}})})
    planned = plan_extension(model, sampling.clip, wanted, out)
    output.warn(*planned.warnings)
    if sampling.dry_run:
        _print_plan(planned, out)
        return
    if not fresh:
        store.check(planned.of_rounds)
    bundle = planned.plan.model.load()
    output.warn(*planned.prompt_warnings(bundle))
    store.open(planned.of_rounds, fresh)
    if not has_seed:
        output.note(f"seed {planned.plan.seed}")
    _make(planned, bundle, store, out)


def _print_plan(planned: "ExtendPlan", out: str) -> None:
    own, fps = planned.extension, planned.plan.options.fps
    rounds, each = own.num_rounds, own.frames_per_round
    more = {"output": out, "num_rounds": rounds, "frames_per_round": each}
    lines = [
        f"{planned.media.file}: {own.own_frames} frames at {fps:g} fps, {own.frames} wanted",
        f"{rounds} round{'s' * (rounds != 1)} of {each} frames, {own.overlap} given to each",
    ]
    output.data({**planned.provenance, **more}, lines=lines, paths=[out])


def _make(planned: "ExtendPlan", bundle: "Bundle", store: "RoundStore", out: str) -> None:
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
    digits = {"colour_drift": 1, "sharpness": 2, "join_change": 2, "median_change": 2}
    rows = [
        (each["index"] + 1, *(round(each[key], num) for key, num in digits.items()))
        for each in metrics["rounds"]
    ]
    output.note(*output.table(header, rows))
    note_kept(metrics["kept"])
    output.data({**planned.provenance, "output": out, **metrics}, paths=[out])
