"""What the commands that make clips share: one clip or a list of them, and how it is reported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli import batch_run
from ursa_cli.options.batches import Batch
from ursa_cli.options.sampling import SamplingCall
from ursa_cli.terminal import output
from ursa_core.clips.requests import InterpolationOptions, SampleInputs
from ursa_core.errors import UsageError
from ursa_core.files import make_folder

if TYPE_CHECKING:
    from ursa_core.clips.outputs import Target
    from ursa_core.clips.plan import Plan
    from ursa_core.clips.replay import Replay


def make_clips(
    inputs: SampleInputs | InterpolationOptions,
    sampling: SamplingCall,
    out: str,
    *,
    save_tokens: str | None = None,
    num: int = 1,
    preview: int = 0,
    replayed: "Replay | None" = None,
    named: Sequence[str] = (),
) -> None:
    """Make clips, or print the plan; a seed that the user hasn't given is printed.

    Files that a stopped run has left are kept, and a preview is written every ``preview`` steps; 0
    is none. What is replayed needs the same model and adapters, unless others are ``named``. What
    needs no model is refused before torch is imported, which takes seconds.
    """
    from ursa_core.clips import outputs

    written = outputs.targets(out, save_tokens, 1 if replayed else num)
    for target in written:
        target.check()
        if preview:
            outputs.check_preview(target.media, sampling.force)
    there, has_seed = outputs.begun(written, sampling.force), sampling.seed is not None
    if not has_seed:
        sampling = sampling.with_options({"seed": outputs.seed_of(there)})
    model = sampling.place()
    if replayed is not None:
        replayed.check_model(model, named)
    plan = inputs.plan(model, sampling.clip, written[0].media, num)
    first = replayed.index if replayed else 0

    from ursa_core.clips.clip import make_files

    plan.check_memory()
    for index, target in enumerate(written, start=first):
        for file in filter(there.__contains__, target.files):
            outputs.check_begun(file, there[file], plan.metadata(index))
    if sampling.dry_run:
        _print_plan(plan, written)
        return
    bundle = plan.model.load()
    output.warn(*plan.warnings(bundle))
    if there or not has_seed:
        output.note(f"seed {plan.seed}")
    if there:
        output.note(f"going on with what is there: {', '.join(there)}")
    made = []
    with output.progress(plan.num_steps * len(written), "sample") as advance:
        for entry in make_files(bundle, plan, written, first, there, advance, preview):
            note_kept(entry.get("kept", ()))
            made.append(entry)
    output.data({**plan.provenance, "outputs": made}, paths=[each["path"] for each in made])


def make_batch(
    name: str,
    wanted: Batch,
    sampling: SamplingCall,
    inputs: SampleInputs | InterpolationOptions,
    save_tokens: str | None = None,
    preview: int = 0,
) -> None:
    """Make the clips of a list, whose lines override the options."""
    from ursa_core.clips import outputs
    from ursa_core.clips.batch_tasks import ClipTask

    tokens = None if save_tokens is None else Path(save_tokens)
    model = sampling.place(is_shared=True)

    def plan_of(line: Mapping[str, Any], path: Path) -> "Plan":
        if name == "sample" and "prompt" not in line:
            raise UsageError("there is no prompt", 'give one; in JSON lines it may be ""')
        own = inputs.overridden(line)
        own.check()
        if preview and not path.exists():
            outputs.check_preview(path, sampling.force)
        plan = own.plan(model, sampling.with_options(line).clip, str(path))
        if tokens is not None:
            codes = str(tokens / f"{path.name}.safetensors")
            if not sampling.force and outputs.is_there(codes):
                outputs.check_begun(codes, outputs.made_by(codes), plan.metadata())
        return plan

    if tokens is not None and not sampling.dry_run:
        make_folder(tokens)
    task = ClipTask(
        name, model, plan_of,
        lambda line: line.get("prompt") or inputs.overridden(line).title,
        wanted.batch_size, output.warn, tokens, preview, output.note,
    )  # fmt: skip
    batch_run.run_batch(task, wanted, sampling.seed, sampling.dry_run)


def _print_plan(plan: "Plan", written: "Sequence[Target]") -> None:
    found, options, paths = plan.model.found, plan.options, [each.media for each in written]
    grid = found.strides.grid(options.shape)
    payload = {
        **plan.provenance,
        "folder": str(found.folder),
        "grid": [grid.frames, grid.rows, grid.columns],
        "network_passes": plan.num_passes * len(paths),
        "memory_bytes": plan.memory.total,
        "outputs": paths,
    }
    low, high = options.guidance_interval
    rows = [
        ("model", found.folder),
        *(("lora", f"{a.folder}, scale {a.scale:g}") for a in plan.model.adapters),
        ("prompt", plan.prompt or "(none)"),
        ("negative", options.negative or "(none)"),
        ("seed", plan.seed),
        ("frames", f"{options.shape} at {options.fps:g} fps"),
        ("grid", f"{grid}, {grid.num_codes} codes"),
        ("steps", f"{plan.num_steps}, {options.solver}, shift {options.shift:g}"),
        ("correct", f"{options.correct:g} of the codes in each step"),
        ("guidance", f"{options.guidance:g} while {low:g} <= t < {high:g}"),
        ("passes", f"{plan.num_passes} of the network for each of {len(paths)}"),
        ("memory", f"about {plan.memory.total / 1e9:.1f} GB"),
        ("device", f"{plan.model.device}, {payload['dtype']}"),
        *(("output", path) for path in paths),
    ]
    if (given := plan.cond_frames) is not None:
        how = f"{given.cond}, noise {given.cond_noise:g}"
        rows += [("given", f"{m.file}, from frame {at}, {how}") for at, m in given.media.items()]
    output.data(payload, lines=[f"{name:<10}{value}" for name, value in rows], paths=paths)


def note_kept(kept: Sequence[Mapping[str, Any]]) -> None:
    """Print how near the given frames came out, where it could be measured."""
    for row in kept:
        if row["psnr"] is None:
            continue
        last = row["frame"] + row["frames"] - 1
        where = f"frame {last}" if row["frames"] == 1 else f"frames {row['frame']} to {last}"
        output.note(f"kept {where} of {row['file']} at {row['psnr']:.1f} dB")
