"""From a recipe to a trained model: the run of ``ursa train``, and its plan."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ursa_core import devices, files
from ursa_core.batches.part_files import sole
from ursa_core.bundle.summary import PROCESS_BYTES
from ursa_core.encoding.caption_fit import CaptionFit
from ursa_core.errors import UsageError
from ursa_core.grids import LatentGrid
from ursa_core.parts import Part, launched_part
from ursa_core.recipe.fields import GeneratorRecipe, Recipe, RewardRecipe, TokenizerRecipe
from ursa_core.recipe.loading import to_yaml
from ursa_core.sampling.guidance import Guidance
from ursa_core.sampling.time_grid import time_grid
from ursa_core.training.checkpoints import check_changes, checkpoints, discard_run, steps_of
from ursa_core.training.distributed import Ranks, joined_ranks, pick_own_device
from ursa_core.training.generator import estimates, prior
from ursa_core.training.generator.estimates import DataPlan, pass_operations
from ursa_core.training.generator.learner import GeneratorLearner
from ursa_core.training.generator.start import find_start
from ursa_core.training.learner import Learner
from ursa_core.training.metrics import Progress, check_trackers
from ursa_core.training.optimizer import trained
from ursa_core.training.reward.learner import RewardLearner, Scorers
from ursa_core.training.tokenizer_learner import TokenizerLearner
from ursa_core.training.trainer import Trainer

_MEMORY_SHARE = 0.8  # of the device's memory that three steps may take
_MOST_SECONDS = 60.0  # of a step by the formula, which a busy machine lengthens many times

NO_SCORERS: Scorers = {}


@dataclass(frozen=True)
class TrainingPlan:
    """What a run would do."""

    parameters: int
    frozen_parameters: int  # those under an adapter
    items_per_step: int  # mean number of clips
    tokens_per_step: int | None  # their mean number, prompts included; None for a tokenizer
    steps: int
    steps_done: int
    ranks: int
    device: str
    precision: str
    memory: dict[str, int]  # bytes on a rank's device by part, and their total
    device_bytes: int | None  # none if they are unknown
    seconds_per_step: float
    measured: bool  # whether time and total memory are those of three steps
    data: DataPlan | None  # none for a tokenizer
    captions: CaptionFit | None  # none for a tokenizer
    prior_clips: int = 0  # clips that are made first, by the model that the run starts from
    prior_seconds: float = 0.0


def build_learner(
    recipe: Recipe, device: torch.device, scorers: Scorers = NO_SCORERS, *, empty: bool = False
) -> Learner:
    """The model, data and loss of a recipe; an ``empty`` generator, for a plan, has no weights."""
    check_trackers(recipe)
    if recipe.train.compile:
        devices.check_compiler(device, "set train.compile=false")
    if isinstance(recipe, TokenizerRecipe):
        return TokenizerLearner(recipe, device)
    if isinstance(recipe, RewardRecipe):
        return RewardLearner(recipe, device, scorers, empty=empty)
    return GeneratorLearner(recipe, device, empty=empty)


def plan_training(
    recipe: Recipe, run: Path, *, fresh: bool = False, allow_change: bool = False
) -> TrainingPlan:
    """Plan of a run; reads its data, and tries each shape of a batch and three steps if it can.

    Refuses what ``train_recipe`` would refuse, and takes the data alone where prior clips aren't
    made yet.
    """
    check_run_folder(run, recipe, fresh)
    plan = recipe.train
    launched = launched_part(os.environ)
    ranks = launched.count if launched else 1
    Ranks(0, ranks).share(plan.accumulate)
    device = pick_own_device(plan.device)
    asked = recipe.prior if isinstance(recipe, GeneratorRecipe) else None
    missing, of_prior, whole = 0, 0.0, recipe
    if isinstance(recipe, GeneratorRecipe) and asked and recipe.init:
        prior.open_prior(recipe, asked, find_start(recipe.init))[0].remove_made()
        if missing := prior.missing_of_prior(asked):
            recipe = recipe.model_copy(update={"prior": None})
    learner = build_learner(recipe, device, empty=True)
    if fresh:
        run = run / "fresh"  # which has no checkpoint
    else:
        check_changes(run, whole, learner, allow_change)
    parameters = sum(p.numel() for p in trained(learner.model).values())
    frozen = sum(p.numel() for p in learner.model.parameters()) - parameters
    is_bfloat16 = devices.pick_dtype(plan.precision, device) == torch.bfloat16
    precision = "bfloat16" if is_bfloat16 else "float32"
    tokens, data, memory, operations = None, None, {"total": 0}, 0.0
    can_try = True  # whether there is a clip of the largest pass
    share = 1.0  # mean operations of a pass, as a share of those of the largest
    items: float = plan.batch_size
    rate = estimates.UTILISATION * ranks * devices.matmul_rates(device)[precision]
    if isinstance(learner, GeneratorLearner):
        learner.check_shapes()
        data = estimates.plan_data(learner.batches)
        there = {each.grid for each in data.grids}
        if asked and missing and learner.start:
            own = prior.prior_options(asked, learner.start)
            made = learner.video_tokenizer.strides.grid(own.shape)
            shown = replace(made, frames=learner.recipe.data.latent_frames or made.frames)
            data = estimates.with_prior(data, learner.batches, shown, asked)
        can_try = data.largest.grid in there
        config, length = learner.model.config, learner.recipe.model.max_prompt_length
        lora, largest = learner.recipe.lora, data.largest
        of_grid = plan.model_copy(update={"batch_size": largest.batch_size})
        of_largest = (largest.grid, length, of_grid, recipe.optimizer)
        hardware = (ranks, is_bfloat16, device.type)
        memory = estimates.training_memory(config, *of_largest, *hardware, lora)
        memory = estimates.with_held(memory, learner.path, tokenizer=learner.video_tokenizer)
        items = sum(each.share * each.batch_size for each in data.grids)
        tokens = round(sum(each.share * each.tokens for each in data.grids) * plan.accumulate)
        images = learner.recipe.objective.image_probability

        def of_clip(grid: LatentGrid) -> float:
            both = grid, replace(grid, frames=1)
            whole, first = (pass_operations(config, g, length, plan.recompute, lora) for g in both)
            return whole + images * (first - whole)

        operations = sum(each.share * each.batch_size * of_clip(each.grid) for each in data.grids)
        of_whole = pass_operations(config, largest.grid, length, plan.recompute, lora)
        share = operations / (largest.batch_size * of_whole)
        if asked and missing and learner.start:
            forward = pass_operations(config, made, length, recompute=False) / 3
            guidance = Guidance(own.guidance, own.guidance_interval)
            passes = guidance.num_passes(time_grid(own.steps, own.shift)[:-1])
            of_prior = missing * passes * forward / rate
    elif isinstance(learner, TokenizerLearner):
        activations, operations = learner.cost(is_bfloat16)
        held = {"weights": 4 * (parameters + frozen), "training state": 16 * parameters}
        memory = {"process": PROCESS_BYTES, **held, "activations": activations}
        memory["total"] = sum(memory.values())
    elif isinstance(learner, RewardLearner):
        of_pass, operations = learner.cost()
        tokens, memory = plan.accumulate * of_pass, learner.memory(ranks, is_bfloat16)
    seconds = plan.accumulate * operations / rate
    done, owned = checkpoints(run), devices.total_memory_bytes(device)
    fits = memory["total"] < _MEMORY_SHARE * (owned or 0) and seconds < _MOST_SECONDS
    captions = learner.caption_fit()
    measured = launched is None and fits and can_try and not isinstance(learner, RewardLearner)
    if measured:
        if isinstance(learner, GeneratorLearner):
            learner = build_learner(recipe, device)  # with weights
        per_pass = Trainer(recipe, learner, run, Ranks()).measure()
        by_formula, seconds = seconds, per_pass * plan.accumulate * share
        of_prior *= seconds / by_formula
        memory |= {"total": devices.peak_memory_bytes(device) or memory["total"]}
    return TrainingPlan(
        parameters=parameters, frozen_parameters=frozen, tokens_per_step=tokens,
        items_per_step=round(items * plan.accumulate), steps=plan.steps,
        steps_done=steps_of(done[-1]) if done else 0, ranks=ranks, device=str(device),
        precision=precision, memory=memory, device_bytes=owned, seconds_per_step=seconds,
        measured=measured, data=data, captions=captions, prior_clips=missing,
        prior_seconds=of_prior,
    )  # fmt: skip


def check_run_folder(run: Path, recipe: Recipe, fresh: bool = False) -> None:
    """Refuse with a UsageError a folder that can't become or continue a run of a recipe."""
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file", "give a folder with -o")
    files.sweep(run)  # of a half-written recipe
    mine = run.is_dir() and any(not each.name.startswith(".") for each in run.iterdir())
    if recipe.init and Path(recipe.init).exists() and run.exists() and run.samefile(recipe.init):
        raise UsageError(f"init is {run}, the run's own folder", "give another folder with -o")
    asked = recipe.prior if isinstance(recipe, GeneratorRecipe) else None
    if asked and run.absolute() in Path(asked.shards).absolute().parents:
        raise UsageError(f"prior.shards are inside {run}", "give them a folder of their own")
    if mine and not (run / "recipe.yaml").exists():
        raise UsageError(f"{run} holds something other than a run", "give another folder with -o")
    if mine and not fresh and (run / "README.md").exists() and not checkpoints(run):
        fault = f"{run} holds a model and no checkpoint to go on from"
        raise UsageError(fault, "give another folder with -o, or --fresh to start over")
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
    scorers: Scorers = NO_SCORERS,
    *,
    allow_change: bool = False,
) -> Trainer:
    """Train up to the recipe's last step, continuing a run that stopped, in the folder ``run``.

    Under ``torchrun``, this process trains as one of the ranks. Callbacks get the number of steps
    done before, each step, the fit of the captions, and what makes a continued run differ. A folder
    that isn't a run, or in which another process trains, is a UsageError; data or checkpoints that
    can't be used, and an interruption, are other UrsaErrors.
    """
    check_run_folder(run, recipe, fresh)
    device = pick_own_device(recipe.train.device)
    with joined_ranks(device) as ranks, sole(run) if ranks.is_first else nullcontext():
        if isinstance(recipe, GeneratorRecipe) and recipe.prior and recipe.init:
            part, start = Part(ranks.rank + 1, ranks.count), find_start(recipe.init)
            is_missing = prior.missing_of_prior(recipe.prior) > 0
            if is_missing:  # first whether all the rest can be used
                prior.open_prior(recipe, recipe.prior, start)[0].remove_made()
                rest = recipe.model_copy(update={"prior": None})
                rest_learner = build_learner(rest, device, scorers, empty=True)
                if not fresh:
                    check_changes(run, recipe, rest_learner, allow_change)
            is_alone = is_missing and ranks.is_first
            shards, hint = Path(recipe.prior.shards), "wait for it, or give prior.shards another"
            with sole(shards, hint) if is_alone else nullcontext():
                prior.make_prior(recipe, recipe.prior, start, device, part, on_note)
                ranks.wait()
        learner = build_learner(recipe, device, scorers)
        if ranks.is_first and (fit := learner.caption_fit()):
            on_captions(fit)
        if fresh and ranks.is_first:
            discard_run(run)
        ranks.wait()
        trainer = Trainer(recipe, learner, run, ranks)
        on_start(trainer.resume(on_note, allow_change))
        if ranks.is_first:
            run.mkdir(parents=True, exist_ok=True)
            files.write(run / "recipe.yaml", to_yaml(recipe))
        trainer.train(on_step)
    return trainer
