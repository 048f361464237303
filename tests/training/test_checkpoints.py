"""Checkpoints: whole or not there, the right ones kept, faults told."""

import errno
import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import TOKENIZER, recipe_of, stored, train
from torch.distributed.checkpoint import filesystem

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle, load_tokenizer, resolve_model
from ursa_core.errors import CheckpointError, UsageError
from ursa_core.training import checkpoints as module
from ursa_core.training.checkpoints import (
    CheckpointWriter,
    checkpoints,
    load_checkpoint_,
    read_about,
    steps_of,
)
from ursa_core.training.distributed import Ranks


def tensors(value: float = 1.0):
    return {"model.a": torch.full((3, 2), value), "optimizer.a.step": torch.tensor(value)}


def writer(run: Path, keep: int = 2, keep_every: int | None = None, is_async: bool = False):
    return CheckpointWriter(run, Ranks(), keep, keep_every, is_async)


def kept(run: Path):
    return [steps_of(folder) for folder in checkpoints(run)]


def entries(run: Path):
    return sorted(entry.name for entry in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_written_is_read(is_async, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FILE_BYTES", 8)
    to_save = tensors(2.5)
    target = writer(tmp_path, is_async=is_async)
    about = {"step": 7, "seconds": 1.5, "guard": {}, "recipe": {}}
    target.save(7, to_save, about)
    for tensor in to_save.values():  # training goes on
        tensor.zero_()
    target.finish()
    (folder,) = checkpoints(tmp_path)
    assert read_about(folder) == about
    assert len(list(folder.glob("*.safetensors"))) == 2
    found = tensors(0.0)
    load_checkpoint_(folder, found, Ranks())
    assert torch.equal(found["model.a"], torch.full((3, 2), 2.5))
    assert found["optimizer.a.step"].item() == 2.5
    assert stored(folder).keys() == found.keys()


def test_the_latest_stay_and_every_so_many(tmp_path):
    target = writer(tmp_path, keep=2, keep_every=4)
    for step in range(1, 11):
        target.save(step, tensors(), {"step": step})
    assert kept(tmp_path) == [4, 8, 9, 10]
    assert entries(tmp_path) == [f"step-{n:07d}" for n in (4, 8, 9, 10)]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_full_disk_keeps_the_last_one(is_async, tmp_path, monkeypatch):
    target = writer(tmp_path, is_async=is_async)

    def save(step: int):
        target.save(step, tensors(step), {"step": step})
        target.finish()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    save(1)
    with monkeypatch.context() as patch:
        patch.setattr(filesystem.os, "fsync", full)
        with pytest.raises(CheckpointError, match="disk is full") as caught:
            save(2)
    assert "continues from the last checkpoint" in caught.value.hint
    assert kept(tmp_path) == [1]
    assert entries(tmp_path) == ["step-0000001"]
    save(3)
    assert kept(tmp_path) == [1, 3]


def test_what_a_killed_run_left_goes_with_the_next(tmp_path):
    left = tmp_path / "checkpoints" / ".step-0000009.ranks.part"
    left.mkdir(parents=True)
    (left / "shard").write_bytes(b"half")
    assert kept(tmp_path) == []
    writer(tmp_path).save(2, tensors(), {"step": 2})
    assert entries(tmp_path) == ["step-0000002"]


def test_a_damaged_one_is_named(tmp_path):
    writer(tmp_path).save(1, tensors(), {"step": 1})
    (folder,) = checkpoints(tmp_path)
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=f"{folder} can't be read") as caught:
        load_checkpoint_(folder, tensors(), Ranks())
    assert "header" in caught.value.message
    assert caught.value.hint == "start over with --fresh"
    writer(tmp_path).save(2, tensors(), {"step": 2})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint_(folder, tensors(), Ranks())
    assert caught.value.hint.startswith("delete it to continue from the one before")
    for content in ("{", "{}", '{"step": 1, "seconds": 1, "guard": {}, "recipe": 3}'):
        (folder / "state.json").write_text(content)
        with pytest.raises(CheckpointError, match="can't be read"):
            read_about(folder)


def test_a_checkpoint_is_a_model_of_its_average_or_its_weights(generator_recipe, tmp_path, capsys):
    run = train(generator_recipe, tmp_path, "run", "train.steps=2", "train.ema_decay=0.5")
    states = {"average": run.ema.average, "weights": dict(run.learner.model.named_parameters())}
    folder = checkpoints(tmp_path / "run")[-1]
    for kind, wanted in states.items():
        found = load_bundle(folder / kind).transformer.state_dict()
        assert all(torch.equal(found[n], v.detach().half().float()) for n, v in wanted.items())
    first = next(iter(run.ema.average))
    plain = load_bundle(folder).transformer.state_dict()
    assert torch.equal(plain[first], run.ema.average[first].half().float())
    assert not all(torch.equal(run.ema.average[n], v) for n, v in states["weights"].items())
    assert train(generator_recipe, tmp_path, "run", "train.steps=3", allow_change=True).step == 3
    clip = ["sample", "a red circle", "--model", str(folder), "-o", str(tmp_path / "a.png")]
    capsys.readouterr()
    assert main([*clip, "--frames", "1", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_checkpoint_of_a_tokenizer_encodes_and_a_damaged_one_is_named(tmp_path):
    train(TOKENIZER, tmp_path, "run", "train.steps=2")
    folder = checkpoints(tmp_path / "run")[-1]
    given = load_tokenizer(folder)[0].state_dict()
    whole = load_tokenizer(tmp_path / "run")[0].state_dict()
    assert all(torch.equal(given[name], value) for name, value in whole.items())
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="can't be read"):
        resolve_model(folder / "weights")
    assert not (folder / "weights").exists()


def test_other_tensors_are_refused(tmp_path):
    writer(tmp_path).save(1, tensors(), {"step": 1})
    with pytest.raises(CheckpointError, match="can't be read"):
        load_checkpoint_(checkpoints(tmp_path)[0], {"model.b": torch.zeros(2)}, Ranks())


def test_validation_data_that_changed_are_noticed(generator_recipe, tmp_path):
    shards = Path(recipe_of(generator_recipe, tmp_path).data.shards[0])
    shutil.copytree(shards, tmp_path / "kept")
    words = [f"data.validation_shards={tmp_path / 'kept'}", "train.validate_every=1"]
    train(generator_recipe, tmp_path, "run", *words, "train.steps=1")
    train(generator_recipe, tmp_path, "run", *words, "train.steps=2")
    shutil.copy(shards / "shard-00000.parquet", tmp_path / "kept" / "shard-00001.parquet")
    with pytest.raises(CheckpointError, match="prior or validation hold other clips"):
        train(generator_recipe, tmp_path, "run", *words, "train.steps=3")


def test_a_model_without_checkpoints_is_not_overwritten(tmp_path):
    train(TOKENIZER, tmp_path, "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(UsageError, match="holds a model and no checkpoint to go on from"):
        train(TOKENIZER, tmp_path, "run")
    train(TOKENIZER, tmp_path, "run", fresh=True)
