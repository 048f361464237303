"""`ursa train`: a tokenizer or a generator from one recipe."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ursa_cli import options, output


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Values that replace the recipe's, as train.steps=100.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="RUN",
            help="Folder of the run: checkpoints, metrics, samples and the model.",
            show_default="runs/NAME",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of continuing the run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe, data and model, and stop.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a tokenizer or a generator, continuing a run that stopped.

    Ctrl-C saves after the step in progress; the same command goes on from there. RUN is a model
    for `ursa sample --model RUN` as soon as the first checkpoint is written.

    Examples:
      ursa train recipes/nano_tokenizer.yaml -o runs/nano_tokenizer

      ursa train recipes/nano.yaml train.steps=500 -o runs/short --dry-run
    """
    output.configure(as_json=as_json, quiet=quiet)
    from ursa_core.recipe import load_recipe
    from ursa_core.training.run import plan_training, train_recipe

    settings = load_recipe(recipe, overrides or [])
    run = out or Path("runs") / settings.name
    if dry_run:
        plan = plan_training(settings, run)
        rows = [
            ("recipe", f"{recipe}, a {settings.kind}"),
            ("run", run),
            ("parameters", f"{plan.parameters:,}"),
            ("steps", f"{plan.steps}, {plan.steps_done} done"),
            ("clips", f"{plan.items_per_step} a step, {plan.items_per_step * plan.steps:,} in all"),
            ("memory", f"{plan.state_bytes / 1e6:.0f} MB of weights and state, plus activations"),
            ("device", plan.device),
        ]
        lines = [f"{name:<12}{value}" for name, value in rows]
        output.data({"run": str(run), **asdict(plan)}, lines=lines, paths=[run])
        return
    done = 0
    with output.progress(settings.train.steps, "training") as advance:

        def start(steps_done: int) -> None:
            nonlocal done
            done = steps_done
            if done:
                output.note(f"continuing after step {done}")
                advance(done, earlier=True)

        trainer = train_recipe(
            settings,
            run,
            fresh,
            start,
            lambda now: advance(1, f"loss {now.loss:.4f}, {now.items_per_second:.1f} clips/s"),
        )
    output.data(
        {"run": str(run), "steps": trainer.step, "seconds": round(trainer.seconds, 1)},
        lines=[f"{run}: {trainer.step} steps in {trainer.seconds / 60:.1f} minutes"],
        paths=[run],
    )
