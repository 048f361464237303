"""Training: exact continuation, checkpoints that survive, bundles that load, faults told."""

import json
import re
import shutil
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_runs import TOKENIZER, recipe_of, silent, stored, train

from ursa_core.bundle.bundle import load_bundle, load_tokenizer
from ursa_core.devices import DTYPES
from ursa_core.errors import CheckpointError, DataError, DeviceError, RecipeError, UsageError
from ursa_core.path.calibration import distance_curve
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import LinearSchedule
from ursa_core.sampling.generate import Request, decode, generate
from ursa_core.tokens.shards import read_shards
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training import trainer as trainer_module
from ursa_core.training.checkpoints import checkpoints, read_about
from ursa_core.training.distributed import Interrupted
from ursa_core.training.generator.learner import GeneratorLearner
from ursa_core.training.run import build_learner, check_run_folder, train_recipe


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_stopped_run_continues_bit_for_bit(kind, recipe_text, tmp_path):
    # Both runs measure for "auto", and can differ where other work takes the cores.
    kinds = f"optimizer.kind={kind}", "train.precision=float32"
    whole = train(recipe_text, tmp_path, "whole", *kinds)

    def stop_after_three(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="step 3 of 6") as caught:
        train(recipe_text, tmp_path, "parts", *kinds, on_step=stop_after_three)
    assert caught.value.exit_code == 130
    parts = train(recipe_text, tmp_path, "parts", *kinds)
    assert parts.step == whole.step == 6
    states = [stored(checkpoints(tmp_path / run)[-1]) for run in ("whole", "parts")]
    parts_of_state = {name.partition(".")[0] for name in states[0]}
    assert parts_of_state == {"model", "ema", "optimizer"}
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    logs = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]
    assert [line["step"] for line in logs[1]] == [1, 2, 3, 4, 5, 6]


def test_training_lowers_the_loss(recipe_text, tmp_path):
    train(recipe_text, tmp_path, "run", "train.steps=40", "optimizer.learning_rate=3e-3")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_run_is_a_model(generator_recipe, tmp_path):
    run = train(generator_recipe, tmp_path, "run")
    bundle = load_bundle(tmp_path / "run")
    for name, value in bundle.transformer.state_dict().items():
        assert torch.equal(value, run.ema.average[name].half().float()), name
    prompt = "a red circle grows on a navy background"
    first, second = (generate(bundle, Request(prompt, 1, index)) for index in range(2))
    assert decode(bundle, first).shape == (9, 32, 32, 3)
    assert not torch.equal(first, second)
    assert torch.equal(generate(bundle, Request(prompt, 1)), first)
    assert list((tmp_path / "run" / "samples").glob("*.png"))


def test_training_can_start_from_a_bundle(generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "first")
    recipe = recipe_of(generator_recipe, tmp_path, f"init={tmp_path / 'first'}")
    start = build_learner(recipe, torch.device("cpu")).model.state_dict()
    for name, value in load_bundle(tmp_path / "first").transformer.state_dict().items():
        assert torch.equal(value, start[name])


def test_a_tokenizer_can_start_from_another(trained_tokenizer, tmp_path):
    start = load_tokenizer(trained_tokenizer)[0].state_dict()
    recipe = recipe_of(TOKENIZER, tmp_path, f"init={trained_tokenizer}", "seed=9")
    for name, value in build_learner(recipe, torch.device("cpu")).model.state_dict().items():
        assert torch.equal(value, start[name])
    wider = recipe_of(TOKENIZER, tmp_path, f"init={trained_tokenizer}", "model.latent_channels=5")
    with pytest.raises(RecipeError, match="another kind"):
        build_learner(wider, torch.device("cpu"))


def test_asynchronous_times_are_one_a_frame(generator_recipe, tmp_path):
    recipe = recipe_of(
        generator_recipe, tmp_path, "objective.async_probability=1", "train.batch_size=64"
    )
    learner = build_learner(recipe, torch.device("cpu"))
    _, _, times, grid, _ = learner.batch(0)
    by_frame = times.unflatten(1, (grid.frames, grid.codes_per_frame))
    assert torch.equal(by_frame, by_frame[..., :1].expand_as(by_frame))
    assert (by_frame[:, 0, 0] != by_frame[:, 1, 0]).all()
    shared = recipe_of(generator_recipe, tmp_path, "objective.async_probability=0")
    _, _, times, *_ = build_learner(shared, torch.device("cpu")).batch(0)
    assert torch.equal(times, times[:, :1].expand_as(times))


def test_captions_are_dropped_at_the_rate_asked_for(generator_recipe, tmp_path):
    recipe = recipe_of(
        generator_recipe, tmp_path, "objective.caption_dropout=0.25", "train.batch_size=400"
    )
    learner = build_learner(recipe, torch.device("cpu"))
    _, ids, *_ = learner.batch(0)
    empty = (ids == learner.text_tokenizer.pad_id).all(1).float().mean()
    assert 0.15 < empty < 0.35


def test_every_epoch_shows_every_clip_once(generator_recipe, tmp_path):
    recipe = recipe_of(generator_recipe, tmp_path)
    learner = build_learner(recipe, torch.device("cpu"))
    passes = [
        [learner.batches.order.batch(6 * epoch + i)[1] for i in range(6)] for epoch in range(2)
    ]
    epochs = [[row for rows in epoch for row in rows] for epoch in passes]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24))
    assert epochs[0] != epochs[1]


def test_data_of_several_grids_continues_bit_for_bit(generator_recipe, tmp_path):
    """With threads that read ahead in one run and none in the other."""
    table = read_shards(*recipe_of(generator_recipe, tmp_path).data.shards)
    with ShardWriter(tmp_path / "mixed", table.identity) as writer:
        for k in range(20):
            frames = 1 + k % 3
            codes = table.codes([k])[0, : 4 * frames].view(frames, 2, 2)
            writer.add(TokenRow(codes, (f"clip {k}",), 8.0, 0.0, str(k)))
    asked = (f"data.shards={tmp_path / 'mixed'}", "train.accumulate=4", "data.shuffle_mb=1")
    precise = (*asked, "train.precision=float32")
    whole = train(generator_recipe, tmp_path, "whole", *precise, "data.workers=0")

    def stop_after_three(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        train(
            generator_recipe,
            tmp_path,
            "parts",
            *precise,
            "data.workers=2",
            on_step=stop_after_three,
        )
    parts = train(generator_recipe, tmp_path, "parts", *precise, "data.workers=3")
    for name, value in whole.tensors().items():
        assert torch.equal(value, parts.tensors()[name]), name


def test_a_motion_prefix_needs_a_text_tokenizer_with_numbers(generator_recipe, tmp_path):
    asked = recipe_of(generator_recipe, tmp_path, "data.motion_prefix=true")
    with pytest.raises(RecipeError, match="has no numbers"):
        build_learner(asked, torch.device("cpu"))
    texts = Path(__file__).parents[1] / "golden" / "published_text" / "tokenizer"
    words = ("data.motion_prefix=true", f"text_tokenizer={texts}")
    learner = build_learner(recipe_of(generator_recipe, tmp_path, *words), torch.device("cpu"))
    settings = learner.settings()
    assert settings.motion_prefix
    assert settings.motion == round(100 * float(learner.batches._table.motions.mean()), 1) > 0
    prompts = [p for index in range(5) for p in learner.batches.batch(index).prompts if p]
    assert all(re.match(r"motion=\d+\.\d, a ", prompt) for prompt in prompts)


def test_shards_of_another_tokenizer_are_refused(generator_recipe, tmp_path):
    train(TOKENIZER, tmp_path, "other", "train.steps=1", "seed=5")
    recipe = recipe_of(generator_recipe, tmp_path, f"tokenizer={tmp_path / 'other'}")
    with pytest.raises(DataError, match="another tokenizer"):
        build_learner(recipe, torch.device("cpu"))


def test_shards_that_grew_between_two_parts_of_a_run_are_told(generator_recipe, tmp_path):
    shards = Path(recipe_of(generator_recipe, tmp_path).data.shards[0])
    shutil.copytree(shards, tmp_path / "shards")
    text = generator_recipe.replace(str(shards), str(tmp_path / "shards"))
    notes = []

    def part(steps: int, **options) -> None:
        recipe = recipe_of(text, tmp_path, f"train.steps={steps}")
        say = {"on_note": notes.append}
        train_recipe(recipe, tmp_path / "run", False, silent, silent, **say, **options)

    part(1)
    part(2)
    assert notes == []
    shutil.copy(shards / "shard-00000.parquet", tmp_path / "shards" / "shard-00001.parquet")
    with pytest.raises(CheckpointError, match="48 clips, 24 before") as caught:
        part(3)
    assert "--allow-change" in caught.value.hint
    part(3, allow_change=True)
    (note,) = notes
    assert note.startswith("changed from step 2 on: data.shards, prior or validation hold other")
    (change,) = read_about(checkpoints(tmp_path / "run")[-1])["changes"]
    assert change["step"] == 2
    assert "data.shards" in change["changes"][0]
    part(4)  # what was allowed once is the run's own
    assert len(notes) == 1


def test_edited_captions_are_noticed_and_new_words_never_trained_as_old_ones(
    generator_recipe, tmp_path
):
    shards = Path(recipe_of(generator_recipe, tmp_path).data.shards[0])
    shutil.copytree(shards, tmp_path / "shards")
    text = generator_recipe.replace(str(shards), str(tmp_path / "shards"))
    train(text, tmp_path, "run", "train.steps=1")
    file = tmp_path / "shards" / "shard-00000.parquet"
    table, before = pq.read_table(file), file.read_bytes()
    captions = table["captions"].to_pylist()
    as_written = {"compression": "zstd", "write_page_checksum": True}

    def edit(old: str, new: str) -> None:
        edited = [[each.replace(old, new) for each in of_row] for of_row in captions]
        column = table.schema.get_field_index("captions")
        changed = table.set_column(column, table.schema.field("captions"), pa.array(edited))
        pq.write_table(changed.cast(table.schema), file, **as_written)

    edit(captions[0][0], captions[1][0])
    with pytest.raises(CheckpointError, match="hold other clips or captions: 24 clips, 24 before"):
        train(text, tmp_path, "run", "train.steps=2")
    changed = file.read_bytes()
    file.write_bytes(before)
    train(text, tmp_path, "run", "train.steps=2")
    codes = pa.array([[0] * len(row) for row in table["codes"].to_pylist()], pa.list_(pa.int32()))
    pq.write_table(table.set_column(0, table.schema.field("codes"), codes), file, **as_written)
    with pytest.raises(CheckpointError, match="hold other clips or captions: 24 clips, 24 before"):
        train(text, tmp_path, "run", "train.steps=3")
    file.write_bytes(changed)
    edit("background", "ground")
    with pytest.raises(CheckpointError, match="the words of text_tokenizer") as caught:
        train(text, tmp_path, "run", "train.steps=2", allow_change=True)
    assert "allow" not in caught.value.hint
    kept = f"text_tokenizer={tmp_path / 'run' / 'tokenizer'}"
    assert train(text, tmp_path, "run", "train.steps=2", kept, allow_change=True).step == 2


def test_what_may_change_in_a_run_is_recorded_with_its_step(tmp_path):
    train(TOKENIZER, tmp_path, "run", "train.steps=2")
    faster = ("train.steps=4", "optimizer.learning_rate=1e-4", "train.batch_size=3")
    with pytest.raises(CheckpointError, match="batch_size is 3, was 2") as caught:
        train(TOKENIZER, tmp_path, "run", *faster)
    assert "--allow-change" in caught.value.hint
    run = train(TOKENIZER, tmp_path, "run", *faster, allow_change=True)
    assert run.optimizer.param_groups[0]["lr"] < 2e-4
    (change,) = read_about(checkpoints(tmp_path / "run")[-1])["changes"]
    wanted = ["optimizer.learning_rate is 0.0001, was 0.001", "train.batch_size is 3, was 2"]
    assert (change["step"], change["changes"]) == (2, wanted)
    for fixed in ("model.levels=[3, 3, 3]", "optimizer.kind=muon", "seed=9"):
        with pytest.raises(CheckpointError, match="another recipe") as caught:
            train(TOKENIZER, tmp_path, "run", *faster, fixed, allow_change=True)
        assert "allow" not in caught.value.hint


def test_a_second_training_in_a_folder_is_refused_at_once(tmp_path):
    def second(progress):
        if progress.step == 2:
            with pytest.raises(UsageError, match="another run is at work"):
                train(TOKENIZER, tmp_path, "run")

    train(TOKENIZER, tmp_path, "run", "train.steps=3", on_step=second)
    assert not [p for p in (tmp_path / "run").iterdir() if "lock" in p.name]
    with pytest.raises(CheckpointError):
        train(TOKENIZER, tmp_path / "a", "run", "init=nobody")
    assert not (tmp_path / "a" / "run").exists()


def test_what_a_recipe_starts_from_has_its_path(generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "first", "train.steps=1")
    other = (f"init={tmp_path / 'first'}", "path.alpha=2")
    with pytest.raises(RecipeError, match=r"path\.alpha 2\.0, not 1\.0"):
        build_learner(recipe_of(generator_recipe, tmp_path, *other), torch.device("cpu"))
    with pytest.raises(RecipeError, match=r"optimizer\.learning_rate"):
        recipe_of(generator_recipe, tmp_path, "optimizer.learning_rate=1e8")


def test_the_model_of_the_lowest_validation_loss_is_kept(generator_recipe, tmp_path, monkeypatch):
    shards = recipe_of(generator_recipe, tmp_path).data.shards
    words = [f"data.validation_shards={shards}", "train.validate_every=1", "train.keep_best=true"]
    with pytest.raises(RecipeError, match=r"train\.keep_best: asks for a validation loss"):
        recipe_of(generator_recipe, tmp_path, "train.keep_best=true")
    losses, averages = iter([3.0, 2.0, 2.5, 2.7]), {}

    def validate(learner, index, objective):
        return {"loss": torch.tensor([value, 1.0])}

    monkeypatch.setattr(GeneratorLearner, "validation_loss", validate)

    def note(progress):
        nonlocal value
        value = next(losses)

    value = 0.0
    wrote = GeneratorLearner.write_bundle

    def write(learner, folder, weights):
        averages[len(averages)] = {n: w.clone() for n, w in weights.items()}
        wrote(learner, folder, weights)

    monkeypatch.setattr(GeneratorLearner, "write_bundle", write)
    run = train(generator_recipe, tmp_path, "run", *words, "train.steps=4", on_step=note)
    assert run.best == {"step": 2, "loss": 2.0}
    kept = load_bundle(tmp_path / "run").transformer.state_dict()
    best = averages[len(averages) - 1]
    assert len(averages) == 2  # after the first step and the second
    assert all(torch.equal(kept[n], w.half().float()) for n, w in best.items())
    assert read_about(checkpoints(tmp_path / "run")[-1])["best"] == run.best


def test_a_grid_shows_what_a_run_starts_from(generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "run", "train.steps=1")
    names = sorted(p.name for p in (tmp_path / "run" / "samples").iterdir())
    assert names == ["step-0000000.png", "step-0000001.png"]


def test_another_recipe_does_not_continue_a_run(tmp_path):
    train(TOKENIZER, tmp_path, "run", "train.steps=1")
    other = ("optimizer.learning_rate=1e-4", "loss.l1=0.5")
    with pytest.raises(CheckpointError, match="another recipe") as caught:
        train(TOKENIZER, tmp_path, "run", *other)
    assert "optimizer.learning_rate is 0.0001, was 0.001" in caught.value.message
    assert "loss.l1 is 0.5, was 0.0" in caught.value.message
    assert train(TOKENIZER, tmp_path, "run", "train.steps=2").step == 2
    fresh = train(
        TOKENIZER, tmp_path, "run", "optimizer.learning_rate=1e-4", "train.steps=1", fresh=True
    )
    assert fresh.step == 1


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="something other"):
        train(TOKENIZER, tmp_path, "run", "train.steps=1", fresh=True)
    assert (tmp_path / "run" / "thesis.tex").exists()


def test_the_loss_on_other_data_is_logged_by_time(generator_recipe, tmp_path):
    shards = recipe_of(generator_recipe, tmp_path).data.shards
    words = (
        f"data.validation_shards={shards}",
        "train.validate_every=3",
        "train.validation_passes=2",
    )
    with_it = train(generator_recipe, tmp_path, "validated", *words)
    without = train(generator_recipe, tmp_path, "plain")
    for name, value in without.ema.average.items():
        assert torch.equal(value, with_it.ema.average[name]), name
    lines = [json.loads(line) for line in (tmp_path / "validated" / "metrics.jsonl").open()]
    told = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in told] == [3, 6]
    assert any("validation_loss_time" in name for name in told[0])
    again = with_it.learner.validation_loss(0, with_it.objective)
    assert torch.equal(again["loss"], with_it.learner.validation_loss(0, with_it.objective)["loss"])
    _, ids, *_ = with_it.learner._encoded(with_it.learner.validation.batch(0))
    assert (ids != with_it.learner.text_tokenizer.pad_id).any(1).all()  # no caption is dropped


def test_steps_after_the_last_checkpoint_are_logged_once(tmp_path):
    train(TOKENIZER, tmp_path, "run", "train.steps=2")
    metrics = tmp_path / "run" / "metrics.jsonl"
    lost = metrics.read_text() + '{"step": 3, "loss": 1}\n{"step": 4, "lo'
    metrics.write_text(lost)  # as a killed run leaves it
    train(TOKENIZER, tmp_path, "run", "train.steps=4")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["mixture", "masked"])
def test_the_compared_paths_train_and_sample(kind, generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "run", f"path.kind={kind}", "train.steps=2")
    bundle = load_bundle(tmp_path / "run")
    assert type(bundle.path).__name__.lower() == f"{kind}path"
    codes = generate(bundle, Request("a red circle grows on a navy background"))
    assert 0 <= codes.min() <= codes.max() < bundle.path.num_codes


def test_the_linear_path_trains_and_keeps_its_table(generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "run", "path.kind=linear", "train.steps=2")
    bundle = load_bundle(tmp_path / "run")
    assert isinstance(bundle.path, MetricPath)
    assert isinstance(bundle.path.schedule, LinearSchedule)
    assert bundle.path.schedule == LinearSchedule.of(distance_curve(bundle.path.codebook))
    codes = generate(bundle, Request("a red circle grows on a navy background"))
    assert 0 <= codes.min() <= codes.max() < bundle.path.num_codes


def test_progress_tells_rates(generator_recipe, tmp_path):
    told = []
    train(generator_recipe, tmp_path, "run", on_step=told.append)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    for now, line in zip(told, lines, strict=True):
        tokens = 4 * 2 * (12 + 3 * 2 * 2)  # clips, passes, prompt and codes
        assert now.items_per_second == pytest.approx(now.tokens_per_second * 8 / tokens)
        assert 0 < now.matrix_rate_share < 1
        assert line["matrix_rate_share"] == pytest.approx(now.matrix_rate_share, abs=1e-4)
        assert line["tokens_per_second"] == pytest.approx(now.tokens_per_second, rel=1e-3)


def test_a_tokenizer_logs_how_many_codes_it_uses(tmp_path):
    train(TOKENIZER, tmp_path, "run", "train.steps=2", "model.levels=[5, 5]")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    for line in lines:
        assert 0 < line["codes_used"] <= 1
        assert line["codes_used"] * 25 == pytest.approx(round(line["codes_used"] * 25))


def test_a_run_goes_on_in_the_precision_that_it_began_with(generator_recipe, tmp_path, monkeypatch):
    def faster(name):
        pick = {**DTYPES, "auto": name}
        monkeypatch.setattr(trainer_module, "pick_dtype", lambda wanted, _: pick[wanted])

    faster(torch.bfloat16)
    assert train(generator_recipe, tmp_path, "run", "train.steps=2").is_bfloat16
    faster(torch.float32)
    assert train(generator_recipe, tmp_path, "run", "train.steps=3").is_bfloat16
    assert not train(generator_recipe, tmp_path, "other", "train.steps=1").is_bfloat16


def test_accumulated_passes_are_one_large_step(generator_recipe, tmp_path):
    words = ("train.steps=1", "train.precision=float32")
    train(generator_recipe, tmp_path, "run", *words)
    learner = build_learner(recipe_of(generator_recipe, tmp_path, *words), torch.device("cpu"))
    loss = sum(learner.loss(index, learner.objective)[0] for index in (0, 1)) / 2
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in learner.model.parameters()])
    (told,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").open())
    assert told["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert told["gradient_norm"] == pytest.approx(norm.item(), rel=1e-5)


@pytest.mark.slow
def test_a_compiled_network_trains_alike(generator_recipe, tmp_path):
    words = ("train.precision=float32", "train.steps=3", "samples.prompts=[]")
    runs = [
        train(generator_recipe, tmp_path, name, *words, f"train.compile={name}")
        for name in ("false", "true")
    ]
    for name, value in runs[0].ema.average.items():
        assert torch.allclose(value, runs[1].ema.average[name], atol=1e-4), name
    load_bundle(tmp_path / "true")


def test_a_machine_that_cannot_compile_is_told_before_training(
    generator_recipe, tmp_path, monkeypatch
):
    from ursa_core import devices

    monkeypatch.setattr(devices.shutil, "which", lambda _: None)
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler") as caught:
        train(generator_recipe, tmp_path, "run", "train.compile=true", "train.device=cpu")
    assert "train.compile=false" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_images_are_first_frames(generator_recipe, tmp_path):
    recipe = recipe_of(generator_recipe, tmp_path, "objective.image_probability=1")
    learner = build_learner(recipe, torch.device("cpu"))
    codes, _, times, grid, _ = learner.batch(0)
    assert grid.frames == 1
    assert codes.shape == times.shape == (4, grid.codes_per_frame)
    loss, _ = learner.loss(0, learner.objective)
    assert torch.isfinite(loss)


def test_a_run_that_was_killed_before_its_recipe_was_written_begins(tmp_path, part_of_dead):
    run = tmp_path / "run"
    run.mkdir()
    part_of_dead(run / "recipe.yaml").write_text("kind: tok")
    check_run_folder(run, recipe_of(TOKENIZER, tmp_path))
    (run / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="something other than a run"):
        check_run_folder(run, recipe_of(TOKENIZER, tmp_path))


def test_a_kill_after_the_last_checkpoint_leaves_a_whole_model(tmp_path):
    train(TOKENIZER, tmp_path, "run")
    run = tmp_path / "run"
    weights = run / "vae" / "diffusion_pytorch_model.safetensors"
    _, sheet = sorted((run / "samples").iterdir())
    whole = weights.read_bytes(), sheet.read_bytes()
    weights.unlink()
    sheet.unlink()
    train(TOKENIZER, tmp_path, "run")
    assert (weights.read_bytes(), sheet.read_bytes()) == whole
