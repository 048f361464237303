"""Reward tuning on a tiny model: the reward rises, runs continue exactly, failures are named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import silent, stored, train

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle
from ursa_core.errors import CheckpointError, RecipeError, UrsaError, UsageError
from ursa_core.recipe.loading import load_recipe
from ursa_core.rewards.scorers import open_scorers
from ursa_core.sampling.generate import Request, generate
from ursa_core.training.checkpoints import checkpoints
from ursa_core.training.reward.objective import advantages, diversity
from ursa_core.training.run import plan_training, train_recipe

REWARD = Path(__file__).parents[2] / "stand_ins" / "tiny_reward.yaml"
HELD_OUT = "watch.prompts=[a circle on navy background]"
EIGHT = ("rollout.group_size=8", "train.batch_size=8", "train.accumulate=1", "rollout.steps=2")


def brightness(clips, prompts):
    return [float(clip.mean()) / 10 for clip in clips]


@pytest.fixture
def tune(tiny_model, tmp_path):
    """Call a run of the tiny recipe by its name; scorers by name replace those of the recipe."""

    def call(name: str, *overrides: str, on_step=silent, allow_change=False, **scorers):
        recipe = load_recipe(REWARD, [f"init={tiny_model}", *overrides])
        own = {name: (1.0, scorer) for name, scorer in scorers.items()}
        with open_scorers(recipe) as opened:
            return train_recipe(
                recipe, tmp_path / name, False, silent, on_step, scorers=own or opened,
                allow_change=allow_change,
            )  # fmt: skip

    return call


def lines(run: Path, key: str = "loss") -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if key in line]


def test_the_reward_rises_and_the_model_is_written(tune, tmp_path, tiny_model):
    high = ("optimizer.learning_rate=0.03", "train.steps=16", "train.ema_decay=0.5")
    tune("run", *EIGHT, *high, brightness=brightness)
    found = [line["reward"] for line in lines(tmp_path / "run")]
    assert sum(found[-4:]) / 4 > sum(found[:4]) / 4 + 0.15
    first, *_, last = lines(tmp_path / "run")
    assert abs(first["kl"]) < 1e-6 < last["kl"]
    assert first["clipped"] == last["clipped"] == 0  # one update per clip
    bundle = load_bundle(tmp_path / "run")
    defaults = bundle.settings.defaults
    assert (defaults.steps, defaults.guidance, defaults.temperature) == (2, 1.0, 1.0)
    assert defaults.shape == load_bundle(tiny_model).settings.shape
    assert generate(bundle, Request("a circle")).shape == (3, 2, 2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_ten_steps_are_five_a_new_process_and_five(tiny_model, tmp_path, precision):
    """Stopped between two updates on the same clips, which the checkpoint holds."""
    words = ["train", str(REWARD), f"init={tiny_model}", "rollout.updates=2", "objective.clip=0.1"]
    words += ["rollout.steps=2", "train.accumulate=1", f"train.precision={precision}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, "-o", str(whole), "--quiet"]) == 0
    assert main([*words, "-o", str(parts), "train.checkpoint_every=5", "--quiet"]) == 0
    shutil.rmtree(parts / "checkpoints" / "step-0000010")
    assert "learner.0.codes" in stored(parts / "checkpoints" / "step-0000005")
    command = [sys.executable, "-m", "ursa_cli", *words, "-o", str(parts)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert "continuing after step 5" in run.stderr
    states = [stored(checkpoints(each)[-1]) for each in (whole, parts)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    timeless = [
        [{k: v for k, v in line.items() if k not in TIMES} for line in lines(each)]
        for each in (whole, parts)
    ]
    assert timeless[0] == timeless[1]
    assert [line["step"] for line in timeless[1]] == list(range(1, 11))
    assert "reward" in timeless[1][4]
    assert "reward" not in timeless[1][5]


TIMES = ("seconds", "items_per_second", "matrix_rate_share")


def test_an_adapter_is_tuned_on_its_base_alone(tune, tmp_path, tiny_model):
    lora = ("lora.rank=2", "rollout.steps=2", "train.accumulate=1")
    tune("run", *lora, "train.steps=2", brightness=brightness)
    first, last = lines(tmp_path / "run")
    assert abs(first["kl"]) < 1e-6 < last["kl"]  # the start is the model with the adapter off
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
    sample = ["sample", "a circle", "--model", str(tiny_model), "--lora", str(tmp_path / "run")]
    assert main([*sample, "-o", str(tmp_path / "clip.mkv"), "--quiet"]) == 0
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    tune("changed", "train.steps=1", "rollout.steps=2", "train.accumulate=1", brightness=brightness)
    shutil.copytree(tmp_path / "changed" / "transformer", other / "transformer", dirs_exist_ok=True)
    state = checkpoints(tmp_path / "run")[-1] / "state.json"
    about = json.loads(state.read_text())
    about["recipe"]["init"] = str(other)  # a folder whose files have changed has the same name
    state.write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="tunes a model whose files were"):
        tune("run", f"init={other}", *lora, "train.steps=3", brightness=brightness)


def test_a_run_keeps_its_start_and_its_prompts(tune, tmp_path, tiny_model):
    start, texts = tmp_path / "start", tmp_path / "texts.txt"
    shutil.copytree(tiny_model, start)
    texts.write_text("a red circle\n")
    words = (f"init={start}", f"prompts={texts}", "rollout.steps=2", "train.accumulate=1")
    tune("run", *words, "train.steps=1", brightness=brightness)
    with pytest.raises(UsageError, match="the run's own folder"):
        tune("run", *words, f"init={tmp_path / 'run'}", brightness=brightness)
    texts.write_text("a circle\n")
    with pytest.raises(CheckpointError, match="prompts hold other texts"):
        tune("run", *words, "train.steps=2", brightness=brightness)
    texts.write_text("a red circle\n")
    shutil.copytree(tmp_path / "run" / "transformer", start / "transformer", dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match="tunes a model whose files were"):
        tune("run", *words, "train.steps=2", brightness=brightness)


def test_the_card_calls_it_a_model_and_assumes_no_licence(tune, tmp_path):
    for name, licence, stated in (("none", (), "Not stated."), ("mit", ("licence=mit",), "mit")):
        tune(name, "train.steps=1", *licence, brightness=brightness)
        card = (tmp_path / name / "README.md").read_text()
        assert "\nA text-to-video model, trained by ursa" in card
        assert "pipeline_tag: text-to-video" in card
        assert f"## Licence\n\n{stated}" in card
        own = json.loads((tmp_path / name / "ursa.json").read_text())["licence"]
        assert own == (licence[0].partition("=")[2] if licence else "not stated")


def test_advantages_are_within_groups():
    rewards = torch.tensor([1.0, 2.0, 3.0, 7.0, 7.0, 7.0, 5.0, float("nan"), 6.0]).double()
    found = advantages(rewards, 3, normalise=True)
    torch.testing.assert_close(
        found[:3], torch.tensor([-1.2247, 0, 1.2247]).double(), atol=2e-4, rtol=0
    )
    assert found[3:6].eq(0).all()
    torch.testing.assert_close(found[6:], torch.tensor([-1.0, 0, 1.0]).double(), atol=1e-3, rtol=0)
    plain = advantages(rewards, 3, normalise=False)
    assert plain.tolist() == [-1, 0, 1, 0, 0, 0, -0.5, 0, 0.5]
    assert advantages(torch.tensor([0.0] * 99 + [1e6]), 100, normalise=True).max() == 5
    assert advantages(torch.full((4,), float("nan")), 2, normalise=True).tolist() == [0] * 4


def test_diversity_is_the_share_of_codes_that_differ():
    codes = torch.tensor([[1, 2], [1, 2], [1, 2], [3, 4]])
    assert diversity(codes, 2).tolist() == [0.0, 1.0]
    assert diversity(codes, 4).item() == pytest.approx(0.5)


def test_clips_without_variation_are_counted_and_change_nothing(tune, tmp_path, tiny_model):
    tune("run", *EIGHT, "train.steps=1", same=lambda clips, _: [1.0] * len(clips))
    (line,) = lines(tmp_path / "run")
    assert line["groups_without_variation"] == 1
    assert (line["reward"], line["failed"]) == (1, 0)
    assert line["gradient_norm"] < 1e-6


@pytest.mark.parametrize(("score", "told"), [(float("nan"), "nan"), ("no face", "no face")])
def test_a_clip_without_a_score_stops_the_run_or_is_left_out(tune, tmp_path, score, told):
    def some(clips, prompts):
        return [1.0, score, 2.0, 3.0]

    words = ("train.steps=1", "train.accumulate=1", "rollout.steps=2")
    with pytest.raises(UrsaError, match=f"no score some of clip 1 of rollout 0, 'a .*': {told}"):
        tune("stopped", *words, some=some)
    assert not (tmp_path / "stopped" / "metrics.jsonl").exists()
    with pytest.warns(UserWarning, match=f"left out, no score some of clip 1 .*{told}"):
        tune("skipped", *words, "on_failure=skip", some=some)
    none = ("train.steps=5", "train.accumulate=1", "rollout.steps=2", "on_failure=skip")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(UrsaError, match="no clip has a score, up to rollout 2"),
    ):
        tune("none", *none, some=lambda clips, prompts: [score] * 4)
    (line,) = lines(tmp_path / "skipped")
    assert (line["failed"], line["reward"]) == (0.25, 2.0)
    assert line["groups_without_variation"] == 0.5


def test_a_run_whose_clips_become_similar_stops(tune, tmp_path):
    high = ("optimizer.learning_rate=0.03", "train.steps=60", "train.ema_decay=0.1")
    watch = (HELD_OUT, "watch.min_diversity=0.8", "train.validate_every=5")
    with pytest.raises(UrsaError, match=r"diversity is 0\.\d+, and was 0\.9\d+") as caught:
        tune(
            "run", *EIGHT, *high, *watch, "train.validation_passes=1", "objective.kl=0",
            brightness=brightness, held_out=lambda clips, _: [float(c.std()) for c in clips],
        )  # fmt: skip
    assert "objective.kl" in caught.value.hint
    assert "--allow-change" in caught.value.hint
    step = int(checkpoints(tmp_path / "run")[-1].name.removeprefix("step-"))
    assert step < 60
    assert f"step {step}:" in caught.value.message
    found = lines(tmp_path / "run", "validation_diversity")
    assert [line["step"] for line in found] == list(range(5, step + 1, 5))
    for line in found:
        small = line["validation_diversity"] < 0.8 * line["validation_start_diversity"]
        assert small == (line["step"] == step)
        assert line["validation_loss"] == -line["validation_score_held_out"]
        assert line["validation_start_score_brightness"] == pytest.approx(
            found[0]["validation_start_score_brightness"]
        )
    assert "score_held_out" not in lines(tmp_path / "run")[0]
    again = (*EIGHT, *high, *watch, "train.validation_passes=1", "objective.kl=0")
    with pytest.raises(UrsaError, match=f"stopped after step {step}: diversity"):
        tune("run", *again, brightness=brightness, held_out=brightness)
    assert checkpoints(tmp_path / "run")[-1].name == f"step-{step:07}"
    lower = [each.replace("0.8", "0.1") for each in again]
    with pytest.raises(CheckpointError, match=r"watch\.min_diversity is 0\.1, was 0\.8"):
        tune("run", *lower, brightness=brightness, held_out=brightness)
    trained = tune(
        "run", *lower, f"train.steps={step + 1}", allow_change=True,
        brightness=brightness, held_out=brightness,
    )  # fmt: skip
    assert trained.step == step + 1


def test_a_scorer_may_be_mended_in_a_run(tune, tmp_path):
    words = ("rollout.steps=2", "train.accumulate=1", "train.steps=1")
    tune("run", *words)
    more = (*words, "train.steps=2", "on_failure=skip")
    weight = "rewards=[{kind: frames, figure: flicker, weight: 0.5}]"
    with pytest.raises(CheckpointError, match=r"rewards\[0\]\.weight is 0\.5, was 0\.02") as caught:
        tune("run", *more, weight)
    assert "--allow-change" in caught.value.hint
    assert tune("run", *more, weight, allow_change=True).changes
    assert tune("run", *more, "train.steps=3", weight, "on_failure=stop").step == 3


def test_clips_of_a_checkpoint_keep_their_number(tune, tmp_path):
    words = ("rollout.updates=2", "rollout.steps=2", "objective.clip=0.1", "train.accumulate=1")
    tune("run", *words, "train.steps=1")
    for change in ("train.accumulate=2", "train.batch_size=2", "objective.states=1"):
        with pytest.raises(CheckpointError, match=change.partition("=")[0]) as caught:
            tune("run", *words, "train.steps=3", change, allow_change=True)
        assert "delete" not in caught.value.hint
    tune("run", *words, "train.steps=2", "objective.clip=0.2", allow_change=True)


def test_a_masked_model_is_refused_a_corrector(tune, generator_recipe, tmp_path):
    made = ("train.steps=1", "train.sample_every=9", "path={kind: masked}")
    train(generator_recipe, tmp_path, "masked", *made)
    words = (f"init={tmp_path / 'masked'}", "prompts=[a red circle]", "rollout.steps=2")
    for key in ("rollout", "sampling"):
        with pytest.raises(
            RecipeError, match=f"{key}.correct: maskgit reveals each code"
        ) as caught:
            tune("run", *words, "sampling={steps: 2, correct: 0.0}", f"{key}.correct=1")
        assert caught.value.hint == f"give {key}.correct=0"
    assert not (tmp_path / "run").exists()


def test_a_held_out_score_may_be_better_when_it_is_lower(tune, tmp_path):
    score = "watch.score={kind: frames, figure: flicker, weight: -2}"
    rewards = "rewards=[{kind: frames, figure: motion}]"
    words = ("train.steps=1", "rollout.steps=2", "train.validation_passes=1", "train.accumulate=1")
    tune("run", *words, HELD_OUT, score, rewards)
    (line,) = lines(tmp_path / "run", "validation_loss")
    assert line["validation_loss"] == pytest.approx(2 * line["validation_score_held_out"])


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("prompts=[a purple dog]", "prompts: the model doesn't know purple, dog of 'a purple dog'"),
        ("watch.prompts=[a red circle]", "watch.prompts: 'a red circle' is among the prompts"),
        ("objective.latest=0.2", "objective.states: 1 of the times of rollout.steps"),
        ("prompts=nowhere.txt", "nowhere.txt"),
        ("prompts=emoji:train", "prompts: emoji:train has none for this model"),
        ("watch.prompts=emoji:heldout", "watch.prompts: emoji:heldout has none"),
        ("watch.prompts=[a  red circle]", "watch.prompts: 'a  red circle' is among the prompts"),
        ("watch.prompts=[A Red circle]", "watch.prompts: 'A Red circle' is among the prompts"),
        ("samples.prompts=[a purple dog]", "samples.prompts: the model doesn't know purple"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_model, tmp_path, override, fault):
    recipe = load_recipe(REWARD, [f"init={tiny_model}", override])
    with pytest.raises(UrsaError) as caught:
        plan_training(recipe, tmp_path / "run")
    assert fault in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("train.batch_size=3", "train.batch_size: 3 should be a multiple of rollout.group_size"),
        ("rewards=[{kind: frames}]", "figure: is for `kind: frames`, and that needs it"),
        ("rewards=[{kind: shapes, command: x}]", "command: is for `kind: command`"),
        ("rewards=[]", "rewards: is empty"),
        (
            "watch={prompts: [a], score: {kind: frames, figure: flicker, weight: 0.3}}",
            "watch.score: is among the rewards",
        ),
        ("init=null", "init: is required"),
        ("rewards=[{kind: frames, figure: motion, weight: 0}]", "rewards: all weigh 0"),
        ("rewards=[{kind: frames, figure: motion, weight: 1e300}]", "rewards[0].weight"),
        ("train.keep_best=true", "train.keep_best: asks for a validation"),
    ],
)
def test_faults_of_a_recipe(override, fault):
    with pytest.raises(RecipeError, match="1 fault") as caught:
        load_recipe(REWARD, [override])
    assert fault in caught.value.message


def test_an_adapter_has_no_sampling_of_its_own():
    with pytest.raises(RecipeError, match="sampling: an adapter samples as the model"):
        load_recipe(REWARD, ["lora.rank=2", "sampling={steps: 4}"])


def test_a_dry_run_plans_without_a_clip(tiny_model, tmp_path, capsys):
    words = ["train", str(REWARD), f"init={tiny_model}", "--dry-run", "--json"]
    words += ["train.precision=float32"]
    assert main([*words, "-o", str(tmp_path / "run")]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["items_per_step"] == 8
    assert plan["tokens_per_step"] == 2 * 8 * (12 + 1 + 12)
    assert plan["memory"]["start"] == 4 * plan["parameters"]
    assert plan["memory"]["total"] == sum(v for k, v in plan["memory"].items() if k != "total")
    assert plan["seconds_per_step"] > 0
    assert not (tmp_path / "run").exists()
    assert main([*words, "lora.rank=2"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"].get("start") is None
    assert main([*words, "train.precision=bfloat16"]) == 0
    half = json.loads(capsys.readouterr().out)["memory"]["start"]
    assert 2 < half / plan["parameters"] < 4  # matrices alone are held in bfloat16
    assert main([*words, "rewards=[{kind: command, command: nowhere}]"]) == 2
    assert "no program nowhere" in capsys.readouterr().err
    assert main([*words, "rewards=[{kind: shapes}]"]) == 2
    assert "kind: shapes can't score 'a circle moves left'" in capsys.readouterr().err
