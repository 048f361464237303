"""What the commands that make clips share: warnings, progress and the report of what was made."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ursa_cli.terminal import output

if TYPE_CHECKING:
    from ursa_core.clips.outputs import Target
    from ursa_core.clips.plan import Plan


def run_plan(
    plan: "Plan",
    written: "Sequence[Target]",
    dry_run: bool,
    *,
    has_seed: bool,
    first: int = 0,
    there: Mapping[str, Mapping[str, Any]] | None = None,
    preview: int = 0,
) -> None:
    """Make what is planned, or print the plan; a seed that the user hasn't given is printed.

    ``first`` is the index of the first clip, ``there`` are files that a stopped run has left, with
    what they were made by, and a preview is written every ``preview`` steps; 0 is none.
    """
    from ursa_core.clips.clip import check_left, make_files

    there = there or {}
    plan.check_memory()
    check_left(plan, written, first, there)
    if dry_run:
        _print_plan(plan, written)
        return
    bundle = plan.model.load()
    for warning in plan.warnings(bundle):
        output.warn(warning)
    if there or not has_seed:
        output.note(f"seed {plan.seed}")
    if there:
        output.note(f"going on with what is there: {', '.join(there)}")
    outputs = []
    with output.progress(plan.num_steps * len(written), "sample") as advance:
        for entry in make_files(bundle, plan, written, first, there, advance, preview):
            note_kept(entry.get("kept", ()))
            outputs.append(entry)
    output.data({**plan.provenance, "outputs": outputs}, paths=[each["path"] for each in outputs])


def _print_plan(plan: "Plan", written: "Sequence[Target]") -> None:
    """The plan as an object with stable keys, or as lines for people."""
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
        *(
            ("given", f"{m.file}, from frame {at}, {g.cond}, noise {g.cond_noise:g}")
            for g in [plan.cond_frames]
            if g is not None
            for at, m in g.media.items()
        ),
    ]
    output.data(payload, lines=[f"{name:<10}{value}" for name, value in rows], paths=paths)


def note_kept(kept: Sequence[Mapping[str, Any]]) -> None:
    """Print how near the given frames came out, where it could be measured."""
    for row in kept:
        if row["psnr"] is None:
            continue
        last = row["frame"] + row["frames"] - 1
        where = f"frame {last}" if row["frames"] == 1 else f"frames {row['frame']} to {last}"
        output.note(f"kept {where} of {row['file']} at {row['psnr']:.1f} dB")
