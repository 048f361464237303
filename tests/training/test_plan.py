"""What a dry run says of a training, and what it takes to say it."""

import itertools
import json

import pytest
import torch
from tiny_runs import TOKENIZER, recipe_of, train
from torch.autograd.graph import saved_tensors_hooks

from ursa_core.devices import peak_memory_bytes
from ursa_core.errors import CheckpointError, DataError
from ursa_core.tokens.shards import read_shards, shard_paths
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training import run as run_module
from ursa_core.training import trainer as trainer_module
from ursa_core.training.run import plan_training


def test_dry_run_reads_everything_and_writes_nothing(recipe_text, tmp_path):
    plan = plan_training(recipe_of(recipe_text, tmp_path), tmp_path / "run")
    assert plan.steps == 6
    assert plan.parameters > 1000
    assert plan.memory["total"] >= plan.parameters * 20
    assert not (tmp_path / "run").exists()


def test_a_dry_run_measures_what_training_takes(recipe_text, tmp_path, monkeypatch):
    """A second passes each time that the clock is read: once before and once after a step."""
    seconds, taken = itertools.count(), []
    step_of = trainer_module.Trainer._train_step

    def step(trainer, loss_of=None):
        taken.append(trainer)
        return step_of(trainer, loss_of)

    monkeypatch.setattr(trainer_module.Trainer, "_train_step", step)
    monkeypatch.setattr(trainer_module.time, "perf_counter", lambda: float(next(seconds)))
    asked = recipe_of(recipe_text, tmp_path, "train.precision=float32")
    plan = plan_training(asked, tmp_path / "run")
    assert (plan.measured, len(taken), plan.seconds_per_step) == (True, 3, 1.0)
    peak = peak_memory_bytes(torch.device("cpu"))
    assert 0.5 * peak < plan.memory["total"] <= peak
    assert not (tmp_path / "run").exists()


def test_a_dry_run_keeps_to_the_formula_where_steps_would_take_long(
    generator_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_module, "_MOST_SECONDS", 0.0)
    plan = plan_training(recipe_of(generator_recipe, tmp_path), tmp_path / "run")
    assert not plan.measured
    assert plan.seconds_per_step > 0
    assert plan.memory["total"] == sum(n for part, n in plan.memory.items() if part != "total")


def test_passes_on_single_frames_are_shorter_in_an_estimate(
    generator_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_module, "_MOST_SECONDS", 0.0)
    rates = {"float32": 1e9, "bfloat16": 1e9}
    monkeypatch.setattr(run_module.devices, "matmul_rates", lambda _: rates)

    def seconds(share):
        recipe = recipe_of(generator_recipe, tmp_path, f"objective.image_probability={share}")
        return plan_training(recipe, tmp_path / "run").seconds_per_step

    assert seconds(1) < 0.7 * seconds(0)
    assert seconds(0.5) == pytest.approx((seconds(0) + seconds(1)) / 2)


def test_a_tokenizer_that_is_not_tried_is_estimated(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_MEMORY_SHARE", 0.0)
    monkeypatch.setattr(run_module.devices, "matmul_rates", lambda _: {"float32": 1e9})
    words = ("train.precision=float32", "train.batch_size=6")
    recipe = recipe_of(TOKENIZER, tmp_path, *words)
    plan = plan_training(recipe, tmp_path / "run")
    assert not plan.measured
    assert plan.memory["total"] == sum(n for part, n in plan.memory.items() if part != "total")
    # A pass with values, whose sizes autograd sees.
    learner = run_module.build_learner(recipe, torch.device("cpu"))
    kept = []
    with saved_tensors_hooks(lambda x: [kept.append(x), x][1], lambda x: x):
        learner.model(torch.zeros(6, 3, 5, 32, 32))[0].sum().backward()
    storages = [x.untyped_storage() for x in kept]
    seen = {each.data_ptr(): each.nbytes() for each in storages}
    assert plan.memory["activations"] == pytest.approx(sum(seen.values()), rel=0.15)
    half = recipe_of(TOKENIZER, tmp_path, words[0], "train.batch_size=3")
    ratio = plan.seconds_per_step / plan_training(half, tmp_path / "run").seconds_per_step
    assert ratio == pytest.approx(2, rel=0.01)


def test_a_dry_run_tries_every_shape_of_the_data(generator_recipe, tmp_path):
    """Clips of three latent frames and some of one, which a pass of 40 tokens holds more of."""
    recipe = recipe_of(generator_recipe, tmp_path)
    table = read_shards(*recipe.data.shards)
    stills = tmp_path / "stills"
    with ShardWriter(stills, table.identity) as writer:
        for k in range(6):
            codes = table.codes([k])[0, :4].view(1, 2, 2)
            writer.add(TokenRow(codes, (), 8.0, 0.0, f"still {k}"))
    both = f"data.shards=[{recipe.data.shards[0]}, {stills}]"
    asked = (both, "data.batch_tokens=55", "train.batch_size=3")
    plan = plan_training(recipe_of(generator_recipe, tmp_path, *asked), tmp_path / "run")
    found = [(str(g.grid), g.clips, g.batch_size, g.tokens) for g in plan.data.grids]
    assert found == [("3×2×2", 24, 2, 50), ("1×2×2", 6, 3, 51)]
    assert plan.data.num_uncaptioned == 6
    assert plan.items_per_step == round(2 * (12 * 2 + 2 * 3) / 14)
    run = train(generator_recipe, tmp_path, "run", *asked, "train.steps=8")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert all(0 <= line["data_wait"] < 1 for line in lines)
    assert not any("a_pass" in name for line in lines for name in line)
    assert {run.learner.batch(index)[0].shape for index in range(16)} == {(2, 12), (3, 4)}
    path = shard_paths(stills)[0]
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes(60) + content[260:])
    with pytest.raises(DataError, match="damaged"):
        plan_training(recipe_of(generator_recipe, tmp_path, *asked), tmp_path / "other")


def test_the_plan_of_a_run_that_starts_over_has_nothing_of_the_old_one(generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "run", "train.steps=1")
    recipe, run = recipe_of(generator_recipe, tmp_path, "train.steps=1"), tmp_path / "run"
    assert plan_training(recipe, run).steps_done == 1
    (state,) = run.glob("checkpoints/*/state.json")
    state.write_text("{")
    with pytest.raises(CheckpointError):
        plan_training(recipe, run)
    plan = plan_training(recipe, run, fresh=True)
    assert (plan.steps_done, plan.measured) == (0, True)
    assert state.exists()
