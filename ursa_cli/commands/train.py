"""`ursa train`: a tokenizer or a generator from one recipe."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ursa_cli.options import shared as options
from ursa_cli.terminal import output
from ursa_core import amounts
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_core.training.generator.estimates import DataPlan
    from ursa_core.training.metrics import Progress
    from ursa_core.training.run import TrainingPlan


_OPTIONS: options.Panels = {None: {
    "fresh": (None, "Start over instead of continuing the run."),
    "allow_change": (None, ("Continue with other data, or another learning rate, schedule, batch "
                     "or loss; the run records at which step.")),
    "dry_run": (None, "Check recipe, data and model, and stop."),
}, "A new recipe": {
    "new": ("FILE", "Write a recipe that fits --data and --init to a new .yaml file, and stop.",
            True, options.new_path),
    "data": ("FOLDER", ("Token shards of your films; a further one, of old data, keeps what the "
             "model knew, in place of clips that it makes itself.")),
    "init": ("MODEL", "Model to start from, whose tokenizer made the shards."),
}}  # fmt: skip


@options.described(_OPTIONS)
def train(
    recipe: Annotated[Path | None, options.argument("RECIPE", "YAML file of the run.")] = None,
    overrides: Annotated[
        list[str] | None,
        options.argument(
            "KEY=VALUE", "Values that replace those of the recipe, as train.steps=100."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        options.output_path(
            "RUN", "Folder of the run: checkpoints, metrics, samples and the model.", "runs/NAME"
        ),
    ] = None,
    fresh: bool = False,
    allow_change: bool = False,
    dry_run: bool = False,
    new: Path | None = None,
    data: list[str] | None = None,
    init: str | None = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a tokenizer or generator, or tune it to rewards; stopped runs continue.

    Ctrl-C saves the run after the current step; the same command continues
    it. From the first checkpoint on, RUN is a model for `ursa sample`.

    Examples:
      ursa train --new mine.yaml --data data/mine --init nano
      ursa train recipes/nano.yaml train.steps=500 -o runs/short --dry-run
    """
    from ursa_core.parts import launched_part

    rank = launched_part(os.environ)
    is_first = rank is None or rank.number == 1
    output.configure(as_json=as_json, quiet=quiet or not is_first)
    from ursa_core.recipe.loading import load_recipe
    from ursa_core.rewards.scorers import open_scorers
    from ursa_core.training.run import plan_training, train_recipe

    if new is not None:
        if out or dry_run:
            fault, hint = "--new writes a recipe and trains nothing", "leave -o and --dry-run out"
            raise UsageError(fault, hint)
        _write_recipe(new, data, init, recipe)
        return
    if recipe is None or data or init:
        raise UsageError(
            "no recipe is given" if recipe is None else "--data and --init are for a new recipe",
            "give a recipe, or --new FILE --data FOLDER --init MODEL to have one written",
        )
    settings = load_recipe(recipe, overrides or [])
    run = out or Path("runs") / settings.name
    if dry_run:
        with open_scorers(settings):
            plan = plan_training(settings, run, fresh=fresh, allow_change=allow_change)
        if is_first:
            _show(plan, f"{recipe}, a {settings.kind}", run)
        return
    done = 0
    with (
        output.progress(settings.train.steps, "training") as advance,
        open_scorers(settings) as own,
    ):

        def start(steps_done: int) -> None:
            nonlocal done
            done = steps_done
            if done:
                output.note(f"continuing after step {done}")
            advance(done, earlier=True)

        def step(now: "Progress") -> None:
            rates = [f"{now.items_per_second:.1f} clips/s"]
            if now.tokens_per_second is not None:
                rates.append(f"{now.tokens_per_second:,.0f} tokens/s")
            if now.matrix_rate_share is not None:
                rates.append(f"{now.matrix_rate_share:.0%} of the matrix rate")
            advance(1, ", ".join([f"loss {now.loss:.4f}", *rates]))
            if now.fault and is_first:
                output.warn(f"step {now.step} is skipped: {now.fault.rstrip(',')}")

        trainer = train_recipe(
            settings, run, fresh, start, step, lambda fit: output.warn(*fit.warnings()),
            output.note, own, allow_change=allow_change,
        )  # fmt: skip
    if not is_first:
        return
    line = f"{run}: {trainer.step} steps in {amounts.duration(trainer.seconds)}"
    if done == trainer.step:
        line = f"{run}: nothing to do, its {done} steps are done; train.steps=N goes on to step N"
        if trainer.step < settings.train.steps:
            line = f"{run}: its train.max_hours are over after {done} steps; give more"
    about = {"run": str(run), "steps": trainer.step, "steps_before": done}
    output.data({**about, "seconds": round(trainer.seconds, 1)}, lines=[line], paths=[run])


def _write_recipe(new: Path, data: list[str] | None, init: str | None, recipe: Path | None) -> None:
    from ursa_core.training.new_recipe import write_recipe

    if recipe is not None or not data or not init:
        fault = f"--new takes --data and --init, and no RECIPE {recipe or ''}".rstrip()
        raise UsageError(fault, f"as in: ursa train --new {new} --data data/mine --init nano")
    plan = write_recipe(new, data, init)
    _show(plan, f"{new}, a generator", Path("runs") / new.stem, new)


def _batches(data: "DataPlan | None") -> list[tuple[str, str]]:
    if data is None:
        return []
    lines = [
        f"{each.clips:,} clips of {each.grid} codes, {each.batch_size} per pass:"
        f" {each.tokens:,} tokens, {each.share:.0%} of all passes"
        for each in data.grids
    ]
    for name, clips, share in data.sets if len(data.sets) > 1 else ():
        lines.append(f"{clips:,} clips of {name}: {share:.0%} of the clips of a run")
    if data.num_left_out:
        lines.append(f"{data.num_left_out:,} clips shorter than data.latent_frames are left out")
    if data.num_uncaptioned:
        lines.append(f"clips without a caption: {data.num_uncaptioned:,}")
    return [("data" if k == 0 else "", line) for k, line in enumerate(lines)]


def _show(plan: "TrainingPlan", recipe: str, run: Path, made: Path | None = None) -> None:
    """Print the plan of a run, and warn if it doesn't fit into memory."""
    need, there = plan.memory["total"], plan.device_bytes
    parts = [f"{amounts.size(value)} {part}" for part, value in plan.memory.items()]
    left = max(plan.steps - plan.steps_done, 0)
    tokens = "" if plan.tokens_per_step is None else f", {plan.tokens_per_step:,} tokens"
    frozen = f", and {plan.frozen_parameters:,} frozen" if plan.frozen_parameters else ""
    rows = [
        ("recipe", recipe),
        ("run", run),
        ("parameters", f"{plan.parameters:,}{frozen}"),
        ("steps", f"{plan.steps}, {plan.steps_done} done"),
        ("clips", f"{plan.items_per_step} per step{tokens}"),
        *_batches(plan.data),
        ("device", f"{plan.device}, {plan.precision}, shared by {plan.ranks} ranks"),
        ("memory", f"{amounts.size(need)}, of {amounts.size(there)}"),
    ]
    each, whole = (amounts.duration(plan.seconds_per_step * n) for n in (1, left))
    rows += [] if plan.measured else [("", ", ".join(parts[:-1]))]
    by = "; both measured by three steps" if plan.measured else ""
    rows.append(("time", f"about {each} per step, {whole}{by}"))
    if plan.prior_clips:
        first = f"{plan.prior_clips:,} clips are made first, in about"
        rows.append(("prior", f"{first} {amounts.duration(plan.prior_seconds)}"))
    lines = [f"{name:<12}{value}" for name, value in rows]
    payload = {"run": str(run), **asdict(plan)} | ({"recipe": str(made)} if made else {})
    output.data(payload, lines=lines, paths=[made or run])
    if plan.captions is not None:
        output.warn(*plan.captions.warnings())
    if there and need > there:
        output.warn(
            f"{amounts.size(need)} are more than the {amounts.size(there)} of {plan.device}"
        )
        output.hint(
            "lower train.batch_size and raise train.accumulate, set train.recompute=true, or share"
            " the weights by torchrun with train.distributed=fsdp"
        )
