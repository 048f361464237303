"""Training: exact continuation, checkpoints that survive, bundles that load, faults told."""

import json
import signal

import pytest
import torch
from tiny_runs import TOKENIZER, recipe_of, train

from ursa_core.bundle import load_bundle, load_tokenizer
from ursa_core.errors import CheckpointError, DataError, RecipeError, UsageError
from ursa_core.path.calibration import distance_curve
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import LinearSchedule
from ursa_core.sampling.generate import GenerateOptions, decode, generate
from ursa_core.training.checkpoints import checkpoint_files, load_checkpoint, save_checkpoint
from ursa_core.training.run import build_task, plan_training
from ursa_core.training.trainer import Interrupted


@pytest.fixture(params=["tokenizer", "generator"])
def recipe_text(request):
    return (
        TOKENIZER if request.param == "tokenizer" else request.getfixturevalue("generator_recipe")
    )


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_stopped_run_continues_bit_for_bit(kind, recipe_text, tmp_path):
    kind = f"optimizer.kind={kind}"
    whole = train(recipe_text, tmp_path, "whole", kind)

    def stop_after_three(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="step 3 of 6") as caught:
        train(recipe_text, tmp_path, "parts", kind, on_step=stop_after_three)
    assert caught.value.exit_code == 130
    parts = train(recipe_text, tmp_path, "parts", kind)
    assert parts.step == whole.step == 6
    states = [load_checkpoint(checkpoint_files(tmp_path / run)[-1]) for run in ("whole", "parts")]
    for part in ("model", "ema"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), name
    for slot in states[0]["optimizer"]["state"]:
        for name, value in states[0]["optimizer"]["state"][slot].items():
            assert torch.equal(value, states[1]["optimizer"]["state"][slot][name])
    logs = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]
    assert [line["step"] for line in logs[1]] == [1, 2, 3, 4, 5, 6]


def test_training_lowers_the_loss(recipe_text, tmp_path):
    train(recipe_text, tmp_path, "run", "train.steps=60", "optimizer.learning_rate=3e-3")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_run_is_a_model(generator_recipe, tmp_path):
    run = train(generator_recipe, tmp_path, "run")
    bundle = load_bundle(tmp_path / "run")
    for name, value in bundle.transformer.state_dict().items():
        assert torch.equal(value, run.ema.average[name].half().float()), name
    options = GenerateOptions("a red circle grows on a navy background", seed=1, num=2)
    first, second = generate(bundle, options)
    assert decode(bundle, first.codes).shape == (9, 32, 32, 3)
    assert not torch.equal(first.codes, second.codes)
    (alone,) = generate(bundle, GenerateOptions(options.prompt, seed=1))
    assert torch.equal(alone.codes, first.codes)
    assert list((tmp_path / "run" / "samples").glob("*.png"))


def test_training_can_start_from_a_bundle(generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "first")
    recipe = recipe_of(generator_recipe, tmp_path, f"init={tmp_path / 'first'}")
    start = build_task(recipe, torch.device("cpu")).model.state_dict()
    for name, value in load_bundle(tmp_path / "first").transformer.state_dict().items():
        assert torch.equal(value, start[name])


def test_a_tokenizer_can_start_from_another(tmp_path):
    train(TOKENIZER, tmp_path, "first", "train.steps=1")
    start = load_tokenizer(tmp_path / "first")[0].state_dict()
    recipe = recipe_of(TOKENIZER, tmp_path, f"init={tmp_path / 'first'}", "seed=9")
    for name, value in build_task(recipe, torch.device("cpu")).model.state_dict().items():
        assert torch.equal(value, start[name])
    wider = recipe_of(TOKENIZER, tmp_path, f"init={tmp_path / 'first'}", "model.latent_channels=5")
    with pytest.raises(RecipeError, match="another kind"):
        build_task(wider, torch.device("cpu"))


def test_asynchronous_times_are_one_a_frame(generator_recipe, tmp_path):
    recipe = recipe_of(
        generator_recipe, tmp_path, "objective.async_probability=1", "train.batch_size=64"
    )
    task = build_task(recipe, torch.device("cpu"))
    _, _, times, grid = task.batch(0)
    by_frame = times.unflatten(1, (grid.frames, grid.codes_per_frame))
    assert torch.equal(by_frame, by_frame[..., :1].expand_as(by_frame))
    assert (by_frame[:, 0, 0] != by_frame[:, 1, 0]).all()
    shared = recipe_of(generator_recipe, tmp_path, "objective.async_probability=0")
    _, _, times, _ = build_task(shared, torch.device("cpu")).batch(0)
    assert torch.equal(times, times[:, :1].expand_as(times))


def test_captions_are_dropped_at_the_rate_asked_for(generator_recipe, tmp_path):
    recipe = recipe_of(
        generator_recipe, tmp_path, "objective.caption_dropout=0.25", "train.batch_size=400"
    )
    task = build_task(recipe, torch.device("cpu"))
    _, ids, _, _ = task.batch(0)
    empty = (ids == task.text_tokenizer.pad_id).all(1).float().mean()
    assert 0.15 < empty < 0.35


def test_every_epoch_shows_every_clip_once(generator_recipe, tmp_path):
    recipe = recipe_of(generator_recipe, tmp_path)
    task = build_task(recipe, torch.device("cpu"))
    epochs = [[task.batches.row(epoch * 24 + i) for i in range(24)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24))
    assert epochs[0] != epochs[1]


def test_dry_run_reads_everything_and_writes_nothing(recipe_text, tmp_path):
    plan = plan_training(recipe_of(recipe_text, tmp_path), tmp_path / "run")
    assert plan.steps == 6
    assert plan.parameters > 1000
    assert not (tmp_path / "run").exists()


def test_shards_of_another_tokenizer_are_refused(generator_recipe, tmp_path):
    train(TOKENIZER, tmp_path, "other", "train.steps=1", "seed=5")
    recipe = recipe_of(generator_recipe, tmp_path, f"tokenizer={tmp_path / 'other'}")
    with pytest.raises(DataError, match="another tokenizer"):
        build_task(recipe, torch.device("cpu"))


def test_another_recipe_does_not_continue_a_run(tmp_path):
    train(TOKENIZER, tmp_path, "run", "train.steps=1")
    with pytest.raises(CheckpointError, match="another recipe"):
        train(TOKENIZER, tmp_path, "run", "optimizer.learning_rate=1e-4")
    assert train(TOKENIZER, tmp_path, "run", "train.steps=2").step == 2
    fresh = train(
        TOKENIZER, tmp_path, "run", "optimizer.learning_rate=1e-4", "train.steps=1", fresh=True
    )
    assert fresh.step == 1


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        train(TOKENIZER, tmp_path, "run", "train.steps=1", fresh=True)
    assert (tmp_path / "run" / "thesis.tex").exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(TOKENIZER, tmp_path, "run", "train.steps=1")
    (file,) = checkpoint_files(tmp_path / "run")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="can't be read") as caught:
        train(TOKENIZER, tmp_path, "run", "train.steps=2")
    assert "--fresh" in caught.value.hint


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        save_checkpoint(tmp_path, 2, {"step": 2}, keep=2)
    assert [load_checkpoint(f)["step"] for f in checkpoint_files(tmp_path)] == [1]
    assert not list(tmp_path.rglob("*.partial"))


def test_old_checkpoints_go(tmp_path):
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2)
    assert [load_checkpoint(f)["step"] for f in checkpoint_files(tmp_path)] == [4, 5]


@pytest.mark.parametrize("kind", ["mixture", "masked"])
def test_the_compared_paths_train_and_sample(kind, generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "run", f"path.kind={kind}", "train.steps=2")
    bundle = load_bundle(tmp_path / "run")
    assert type(bundle.path).__name__.lower() == f"{kind}path"
    (made,) = generate(bundle, GenerateOptions("a red circle grows on a navy background"))
    assert 0 <= made.codes.min() <= made.codes.max() < bundle.path.num_codes


def test_the_linear_path_trains_and_keeps_its_table(generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "run", "path.kind=linear", "train.steps=2")
    bundle = load_bundle(tmp_path / "run")
    assert isinstance(bundle.path, MetricPath)
    assert isinstance(bundle.path.schedule, LinearSchedule)
    assert bundle.path.schedule == LinearSchedule.of(distance_curve(bundle.path.codebook))
    (made,) = generate(bundle, GenerateOptions("a red circle grows on a navy background"))
    assert 0 <= made.codes.min() <= made.codes.max() < bundle.path.num_codes


def test_images_are_first_frames(generator_recipe, tmp_path):
    recipe = recipe_of(generator_recipe, tmp_path, "objective.image_probability=1")
    task = build_task(recipe, torch.device("cpu"))
    codes, _, times, grid = task.batch(0)
    assert grid.frames == 1
    assert codes.shape == times.shape == (4, grid.codes_per_frame)
    loss, _ = task.loss(0)
    assert torch.isfinite(loss)
