"""From a recipe to a trained bundle: what ``ursa train`` does, and what it would do."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ursa_core import files
from ursa_core.devices import check_compiler, matmul_rates, pick_dtype, total_memory_bytes
from ursa_core.encoding.caption_fit import CaptionFit
from ursa_core.errors import UsageError
from ursa_core.parts import launched_shard
from ursa_core.recipe.fields import TokenizerRecipe
from ursa_core.recipe.loading import Recipe, to_yaml
from ursa_core.training.checkpoints import checkpoints, discard_run, steps_of
from ursa_core.training.distributed import Ranks, joined_ranks, pick_own_device
from ursa_core.training.generator.estimates import (
    UTILISATION,
    DataPlan,
    pass_operations,
    plan_data,
    training_memory,
)
from ursa_core.training.generator.learner import GeneratorLearner
from ursa_core.training.learner import Learner
from ursa_core.training.metrics import Progress
from ursa_core.training.optimizer import trained
from ursa_core.training.tokenizer_learner import TokenizerLearner
from ursa_core.training.trainer import Trainer


@dataclass(frozen=True)
class TrainingPlan:
    """What a run would do.

    Args:
        parameters: trained.
        frozen_parameters: that stay as they are, under an adapter.
        items_per_step: clips seen by one optimizer step, in the mean.
        tokens_per_step: likewise, prompts among them; None for a tokenizer.
        steps: of the whole run.
        steps_done: by the newest checkpoint.
        ranks: that share the work.
        device: trained on.
        precision: of the products.
        memory: bytes of a rank's device by part, estimated; for a tokenizer without activations.
        device_bytes: that there are; None where it can't be told.
        seconds_per_step: estimated by the device's measured rate; None for a tokenizer.
        data: the batches of a generator's run; None for a tokenizer.
        captions: what a generator's text tokenizer loses of them; None for a tokenizer.
    """

    parameters: int
    frozen_parameters: int
    items_per_step: int
    tokens_per_step: int | None
    steps: int
    steps_done: int
    ranks: int
    device: str
    precision: str
    memory: dict[str, int]
    device_bytes: int | None
    seconds_per_step: float | None
    data: DataPlan | None
    captions: CaptionFit | None


def build_learner(recipe: Recipe, device: torch.device, *, empty: bool = False) -> Learner:
    """The model and loss that a recipe describes; reads its data.

    Args:
        recipe: what to train.
        device: to train on.
        empty: a generator's network takes no memory and has no weights, for a plan.

    Raises:
        UrsaError: data or models can't be used, or the machine can't compile as the recipe asks.
    """
    if recipe.train.compile:
        check_compiler(device, "set train.compile=false")
    if isinstance(recipe, TokenizerRecipe):
        return TokenizerLearner(recipe, device)
    return GeneratorLearner(recipe, device, empty=empty)


def plan_training(recipe: Recipe, run: Path) -> TrainingPlan:
    """Lay out data and model as training would, try each shape of a batch, and say what is to do.

    Raises:
        UsageError: the folder is no run, or the ranks can't share a step.
        UrsaError: data or models can't be used.
    """
    check_run_folder(run)
    plan = recipe.train
    launched = launched_shard(os.environ)
    ranks = launched.count if launched else 1
    Ranks(0, ranks).share(plan.accumulate)
    device = pick_own_device(plan.device)
    learner = build_learner(recipe, device, empty=True)
    parameters = sum(p.numel() for p in trained(learner.model).values())
    frozen = sum(p.numel() for p in learner.model.parameters()) - parameters
    dtype = pick_dtype(plan.precision, device)
    precision = "bfloat16" if dtype == torch.bfloat16 else "float32"
    tokens = seconds = data = None
    items: float = plan.batch_size
    memory = {"total": parameters * 4 * 5}
    if isinstance(learner, GeneratorLearner):
        learner.check_shapes()
        data = plan_data(learner.batches)
        config, length = learner.model.config, learner.recipe.model.max_prompt_length
        # The settings that each grid's passes amount to.
        plans = [plan.model_copy(update={"batch_size": each.batch_size}) for each in data.grids]
        memory = training_memory(
            config,
            data.largest.grid,
            length,
            plans[data.grids.index(data.largest)],
            recipe.optimizer,
            ranks,
            dtype == torch.bfloat16,
            device.type,
            learner.recipe.lora,
        ).to_json()
        items, tokens = data.clips_per_pass, round(data.tokens_per_pass * plan.accumulate)
        rate = UTILISATION * ranks * matmul_rates(device)[precision]
        operations = [
            each.share * pass_operations(config, each.grid, length, of_grid, learner.recipe.lora)
            for each, of_grid in zip(data.grids, plans, strict=True)
        ]
        seconds = plan.accumulate * sum(operations) / rate
    done = checkpoints(run)
    return TrainingPlan(
        parameters=parameters,
        frozen_parameters=frozen,
        items_per_step=round(items * plan.accumulate),
        tokens_per_step=tokens,
        steps=plan.steps,
        steps_done=steps_of(done[-1]) if done else 0,
        ranks=ranks,
        device=str(device),
        precision=precision,
        memory=memory,
        device_bytes=total_memory_bytes(device),
        seconds_per_step=seconds,
        data=data,
        captions=learner.caption_fit() if isinstance(learner, GeneratorLearner) else None,
    )


def check_run_folder(run: Path) -> None:
    """Refuse a place that isn't free for a run, before any work.

    Raises:
        UsageError: a file, a folder with something else, or one that can't be written.
    """
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file", "give a folder with -o")
    files.sweep(run)  # of a recipe that a kill has left half-written
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
    on_captions: Callable[[CaptionFit], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Trainer:
    """Train until the recipe's last step, continuing a run that stopped.

    Under ``torchrun``, as one of its ranks.

    Args:
        recipe: what to train.
        run: folder of the run; holds the bundle in the end.
        fresh: forget what is there and start over.
        on_start: told the steps done already.
        on_step: told each step's progress.
        on_captions: told, before a generator is trained, what its text tokenizer loses of them.
        on_note: called with what makes a continued run differ from an unbroken one.

    Raises:
        UsageError: the folder exists and is no run.
        UrsaError: data or checkpoints can't be used, or the run was interrupted.
    """
    check_run_folder(run)
    device = pick_own_device(recipe.train.device)
    with joined_ranks(device) as ranks:
        learner = build_learner(recipe, device)
        if ranks.is_first and isinstance(learner, GeneratorLearner):
            on_captions(learner.caption_fit())
        if fresh and ranks.is_first:
            discard_run(run)
        ranks.wait()
        trainer = Trainer(recipe, learner, run, ranks)
        on_start(trainer.resume(on_note))
        if ranks.is_first:
            run.mkdir(parents=True, exist_ok=True)
            files.write(run / "recipe.yaml", to_yaml(recipe))
        trainer.train(on_step)
    return trainer
