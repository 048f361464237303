"""Two ranks over gloo: the same training as one process, stopped, resumed and failing together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import recipe_of, stored, train

from ursa_core.bundle.adapters import WEIGHTS, WORD_ROWS
from ursa_core.devices import local_device
from ursa_core.errors import DeviceError, UsageError
from ursa_core.recipe.loading import load_recipe
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.training.checkpoints import checkpoints, steps_of
from ursa_core.training.distributed import Ranks, joined_ranks, pick_own_device, recompute_
from ursa_core.training.run import build_learner

STEPS = "train.steps=10"
SHARED = (
    "train.accumulate=4",
    "train.batch_size=2",
    "train.keep_every=10",
    "train.precision=float32",
    "optimizer.warmup_steps=5",
)
CPU = torch.device("cpu")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(rank: int, port: int, count: int = 2) -> dict[str, str]:
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def runs(generator_recipe, tmp_path_factory):
    """Runs of two ranks, how they ended, and the run of one process that they should equal."""
    folder = tmp_path_factory.mktemp("ranks")
    recipe = folder / "recipe.yaml"
    recipe.write_text(generator_recipe)

    def job(run, *overrides, **at):
        words = [STEPS, *SHARED, *overrides]
        return {"recipe": str(recipe), "overrides": words, "run": str(folder / run), **at}

    fsdp, muon = "train.distributed=fsdp", "optimizer.kind=muon"
    # Adapters that have new words, too.
    TextTokenizer.from_words(["a red circle grows on a navy background"], 12).save(folder / "words")
    train(generator_recipe, folder, "base", "train.steps=1", f"text_tokenizer={folder / 'words'}")
    lora = (f"init={folder / 'base'}", "lora.rank=2", "train.steps=8", "vocabulary=extend")
    shards = load_recipe(recipe, []).data.shards
    validated = (f"data.validation_shards={shards}", "train.validate_every=4")
    half = ("train.precision=bfloat16", "train.steps=6")
    started = launch(
        folder / "started.json",
        job("ddp"),
        job("ddp_parts", stop_at=5),
        job("fsdp", fsdp),
        job("fsdp_parts", fsdp, *validated, stop_at=5),
        job("fsdp_async", fsdp, "train.checkpoint_every=3", is_async=True),
        job("fewer", fsdp, stop_at=5),
        job("muon", fsdp, muon),
        job("ddp_half", *half),
        job("fsdp_half", fsdp, *half),
        job("lora", *lora),
        job("lora_fsdp", fsdp, *lora),
        job("lora_fsdp_parts", fsdp, *lora, stop_at=5),
        job("failing", fail_at=2),
    )
    for name, overrides in (("one", ()), ("one_muon", (muon,)), ("one_lora", lora)):
        train(generator_recipe, folder, name, STEPS, *SHARED, *overrides)
    train(generator_recipe, folder, "one_half", *SHARED, *half)
    ends = finished(started)
    continued = launch(
        folder / "continued.json",
        job("ddp_parts"),
        job("fsdp_parts", fsdp, *validated),
        job("lora_fsdp_parts", fsdp, *lora),
        job("killed", kill_at=2),
    )
    return folder, ends, finished(continued)


def launch(file: Path, *jobs: dict) -> list[subprocess.Popen]:
    """Two new processes that do the jobs together, one after the other."""
    file.write_text(json.dumps(jobs))
    port = free_port()
    script = str(Path(__file__).parents[1] / "stand_ins" / "rank_runs.py")
    return [
        subprocess.Popen(
            [sys.executable, script, str(file)],
            env=environment(rank, port),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finished(processes: list[subprocess.Popen]) -> list[list[str]]:
    """How the jobs of each process ended; nothing of one that was killed."""
    outputs = [process.communicate(timeout=1800)[0].splitlines() for process in processes]
    return [json.loads(lines[-1])["ends"] if lines else [] for lines in outputs]


def last(run: Path):
    return stored(checkpoints(run)[-1])


def largest_difference(run: Path, other: Path) -> float:
    ours, theirs = last(run), last(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.parametrize("kind", ["ddp", "fsdp", "lora_fsdp"])
def test_a_stopped_run_of_two_ranks_continues_bit_for_bit(kind, runs):
    folder, (first, second), (continued, _) = runs
    assert first[:-1] == second[:-1]
    assert continued[:-1] == ["10 steps", "10 steps", "8 steps"]
    assert [end.rpartition(" of ")[0] for end in first].count("stopped after step 5") == 4
    assert largest_difference(folder / kind, folder / f"{kind}_parts") == 0
    assert losses(folder / kind) == losses(folder / f"{kind}_parts")
    assert len(losses(folder / kind)) == (8 if "lora" in kind else 10)


@pytest.mark.parametrize(
    ("kind", "one"),
    [
        ("ddp", "one"),
        ("fsdp", "one"),
        ("muon", "one_muon"),
        ("lora", "one_lora"),
        ("lora_fsdp", "one_lora"),
    ],
)
def test_two_ranks_equal_one_process(kind, one, runs):
    folder, *_ = runs
    assert largest_difference(folder / kind, folder / one) < 1e-5
    for ours, theirs in zip(losses(folder / kind), losses(folder / one), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("kind", ["ddp_half", "fsdp_half"])
def test_half_precision_is_near_that_of_one_process(kind, runs):
    folder, *_ = runs
    ours, theirs = losses(folder / kind), losses(folder / "one_half")
    assert ours == pytest.approx(theirs, rel=2e-3)
    assert ours != losses(folder / "one")[:6]
    assert {value.dtype for value in last(folder / kind).values()} == {torch.float32}


def test_checkpoints_written_meanwhile_are_the_same(runs):
    folder, *_ = runs
    assert [steps_of(found) for found in checkpoints(folder / "fsdp_async")] == [9, 10]
    assert largest_difference(folder / "fsdp_async", folder / "fsdp") == 0


def test_a_sharded_run_goes_on_alone(runs, generator_recipe):
    folder, *_ = runs
    assert [steps_of(found) for found in checkpoints(folder / "fewer")] == [5]
    train(generator_recipe, folder, "fewer", STEPS, *SHARED)
    assert largest_difference(folder / "fewer", folder / "one") < 1e-5


def test_all_ranks_end_with_the_error_of_one(runs):
    _, (first, second), _ = runs
    assert second[-1] == "the shard is torn\nhint: make it anew"
    assert first[-1] == "rank 1 failed: the shard is torn\nhint: make it anew"


def test_the_others_end_when_a_rank_is_killed(runs):
    *_, (first, second) = runs
    assert second == []
    assert first[-1].startswith(
        "another rank of the run ended without an error message\nhint: see the log"
    )


def test_ranks_validate_together(runs):
    folder, *_ = runs
    lines = map(json.loads, (folder / "fsdp_parts" / "metrics.jsonl").open())
    told = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    assert list(told) == [4, 8, 10]
    assert told[8] < told[4]


def test_the_sheet_is_drawn_and_the_bundle_whole(runs):
    folder, *_ = runs
    assert (folder / "fsdp" / "samples" / "step-0000010.png").stat().st_size > 0
    names = [Path("transformer") / "config.json", Path("model_index.json")]
    assert all((folder / "fsdp" / name).is_file() for name in names)
    ours, theirs = (load_file(folder / run / WEIGHTS) for run in ("lora_fsdp", "one_lora"))
    assert all((ours[name] - value).abs().max() < 1e-5 for name, value in theirs.items())
    assert theirs[WORD_ROWS].abs().amax(1).min() > 0


def test_a_port_in_use_is_told(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in environment(0, port).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=f"port {port} .* in use") as caught:
            joined_ranks(CPU).__enter__()
    assert "--master-port" in caught.value.hint


def test_micro_batches_that_ranks_cannot_share_are_refused():
    assert list(Ranks(1, 2).share(4)) == [1, 3]
    with pytest.raises(UsageError, match="accumulate 3 can't be shared by 2 ranks") as caught:
        Ranks(0, 2).share(3)
    assert "train.accumulate=4" in caught.value.hint


def test_recomputed_layers_have_the_same_gradients_and_keep_less(generator_recipe, tmp_path):
    recipe = recipe_of(generator_recipe, tmp_path)
    gradients, kept = [], []
    for is_recomputed in (False, True):
        learner = build_learner(recipe, CPU)
        if is_recomputed:
            recompute_(learner.blocks)
        saved = []

        def keep(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = learner.loss(0, learner.objective)
        loss.backward()
        kept.append(sum(saved))
        gradients.append({name: p.grad for name, p in learner.model.named_parameters()})
    assert kept[1] < kept[0] / 2
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_processes_of_a_machine_share_out_its_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    ranks = [{"LOCAL_RANK": str(rank)} for rank in range(3)]
    assert [local_device("auto", rank).index for rank in ranks] == [0, 1, 0]
    assert [local_device("cuda:1", rank).index for rank in ranks] == [1, 1, 1]
    assert local_device("cuda", {}).index is None
    assert local_device("cpu", ranks[1]) == CPU
    assert pick_own_device("cuda", ranks[1]).index == 1
    with pytest.raises(DeviceError, match="has 2 GPUs and more ranks"):  # each trains on its own
        pick_own_device("cuda", ranks[2])
