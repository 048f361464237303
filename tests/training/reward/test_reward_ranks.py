"""Reward tuning by two ranks: the same training as in one process, stopped in a round, resumed."""

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import silent

from ursa_core.recipe.loading import load_recipe
from ursa_core.rewards.scorers import open_scorers
from ursa_core.training.run import train_recipe

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_distributed import finished, last, launch, losses

REWARD = Path(__file__).parents[2] / "stand_ins" / "tiny_reward.yaml"
SHARED = ("train.steps=4", "rollout.updates=3", "rollout.steps=2", "objective.clip=0.2")
WATCH = "watch={prompts: [a circle on navy background], min_diversity: 0}"
FSDP = "train.distributed=fsdp"
CASES = {
    "ddp": (),
    "fsdp": (FSDP,),
    "lora": (FSDP, "lora.rank=2"),
}


@pytest.fixture(scope="module")
def runs(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward_ranks")
    always = (f"init={tiny_model}", WATCH, "train.validate_every=2", "train.precision=float32")
    fixed = (*always, *SHARED)

    def jobs(suffix="", **at):
        return [
            {
                "recipe": str(REWARD),
                "overrides": [*fixed, *words],
                "run": str(folder / f"{name}{suffix}"),
                **at,
            }
            for name, words in CASES.items()
        ]

    ends = finished(launch(folder / "a.json", *jobs(), *jobs("_parts", stop_at=2)))
    ends += finished(launch(folder / "b.json", *jobs("_parts")))
    for name in CASES:
        recipe = load_recipe(REWARD, [*fixed, *(w for w in CASES[name] if w != FSDP)])
        with open_scorers(recipe) as scorers:
            train_recipe(recipe, folder / f"{name}_one", False, silent, silent, scorers=scorers)
    return folder, ends


def test_in_bfloat16_nothing_diverges_from_the_start_before_the_first_step(tiny_model, tmp_path):
    half = (f"init={tiny_model}", "train.precision=bfloat16", "train.steps=1", "rollout.steps=2")
    jobs = [
        {"recipe": str(REWARD), "overrides": [*half, *words], "run": str(tmp_path / name)}
        for name, words in CASES.items()
    ]
    assert finished(launch(tmp_path / "jobs.json", *jobs)) == [["1 steps"] * 3] * 2
    for name in CASES:
        (line,) = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        assert abs(json.loads(line)["kl"]) < 1e-6, name


def difference(run: Path, other: Path) -> float:
    ours, theirs = last(run), last(other)
    assert ours.keys() == theirs.keys()
    assert {name.partition(".")[0] for name in ours} == {"model", "ema", "optimizer", "learner"}
    return max(float((ours[n].double() - theirs[n].double()).abs().max()) for n in ours)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_as_one_process(name, runs):
    folder, ends = runs
    assert ends[0][:3] == ends[1][:3] == ["4 steps"] * 3
    assert difference(folder / name, folder / f"{name}_one") < 1e-4
    torch.testing.assert_close(
        losses(folder / name), losses(folder / f"{name}_one"), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", CASES)
def test_a_run_stopped_between_updates_continues_bit_for_bit(name, runs):
    folder, ends = runs
    assert all("stopped after step 2" in end for end in ends[0][3:])
    assert ends[2] == ends[3] == ["4 steps"] * 3
    assert difference(folder / name, folder / f"{name}_parts") == 0
    assert losses(folder / name) == losses(folder / f"{name}_parts")
