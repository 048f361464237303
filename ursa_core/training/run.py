"""From a recipe to a trained bundle: what ``ursa train`` does, and what it would do."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ursa_core.devices import pick_device
from ursa_core.errors import UsageError
from ursa_core.recipe import Recipe, to_yaml
from ursa_core.recipe_fields import TokenizerRecipe
from ursa_core.training.checkpoints import checkpoint_files, discard_run
from ursa_core.training.generator_task import GeneratorTask
from ursa_core.training.tokenizer_task import TokenizerTask
from ursa_core.training.trainer import Progress, Task, Trainer


@dataclass(frozen=True)
class TrainingPlan:
    """What a run would do.

    Args:
        parameters: trained.
        items_per_step: clips seen by one optimizer step.
        steps: of the whole run.
        steps_done: by the newest checkpoint.
        device: trained on.
        state_bytes: of weights, gradients, average and optimizer state; activations come on top.
    """

    parameters: int
    items_per_step: int
    steps: int
    steps_done: int
    device: str
    state_bytes: int


def build_task(recipe: Recipe, device: torch.device) -> Task:
    """The model and loss that a recipe describes; reads its data."""
    if isinstance(recipe, TokenizerRecipe):
        return TokenizerTask(recipe, device)
    return GeneratorTask(recipe, device)


def plan_training(recipe: Recipe, run: Path) -> TrainingPlan:
    """Build the model and read the data, as training would, and say what would be done."""
    check_run_folder(run)
    device = pick_device(recipe.train.device)
    task = build_task(recipe, device)
    parameters = sum(p.numel() for p in task.model.parameters())
    files = checkpoint_files(run)
    return TrainingPlan(
        parameters=parameters,
        items_per_step=recipe.train.batch_size * recipe.train.accumulate,
        steps=recipe.train.steps,
        steps_done=int(files[-1].stem.removeprefix("step-")) if files else 0,
        device=str(device),
        state_bytes=parameters * 4 * 5,
    )


def check_run_folder(run: Path) -> None:
    """Refuse a place that isn't free for a run, before any work.

    Raises:
        UsageError: a file, a folder with something else, or one that can't be written.
    """
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file", "give a folder with -o")
    if run.is_dir() and any(run.iterdir()) and not (run / "recipe.yaml").exists():
        raise UsageError(f"{run} holds something else than a run", "give another folder with -o")
    above = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{above} can't be written", "give another folder with -o")


def train_recipe(
    recipe: Recipe,
    run: Path,
    fresh: bool,
    on_start: Callable[[int], None],
    on_step: Callable[[Progress], None],
) -> Trainer:
    """Train until the recipe's last step, continuing a run that stopped.

    Args:
        recipe: what to train.
        run: folder of the run; holds the bundle in the end.
        fresh: forget what is there and start over.
        on_start: told the steps done already.
        on_step: told each step's progress.

    Raises:
        UsageError: the folder exists and is no run.
        UrsaError: data or checkpoints can't be used, or the run was interrupted.
    """
    check_run_folder(run)
    trainer = Trainer(recipe, build_task(recipe, pick_device(recipe.train.device)), run)
    if fresh:
        discard_run(run)
    on_start(trainer.resume())
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    trainer.train(on_step)
    return trainer
