"""Training on a device: losses as on the CPU, adapters, checkpoints, exact continuation."""

import signal

import pytest
import torch

pytest.importorskip("pydantic")
pytest.importorskip("yaml")

from tiny_runs import REWARD, TOKENIZER, recipe_of, stored

from ursa_core.bundle.adapters import read_adapter
from ursa_core.bundle.bundle import load_bundle
from ursa_core.sampling.generate import Request, generate
from ursa_core.training import trainer as trainer_module
from ursa_core.training.checkpoints import checkpoints
from ursa_core.training.distributed import Interrupted, Ranks
from ursa_core.training.run import NO_SCORERS, build_learner
from ursa_core.training.trainer import Trainer

CPU = torch.device("cpu")
PRECISE = ("train.precision=float32", "train.steps=3", "train.batch_size=2")


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch):
    """No measured rate of large matrix products, which takes long on the simulated device."""
    monkeypatch.setattr(trainer_module, "matmul_rates", lambda _: {"float32": 1e9, "bfloat16": 1e9})


def trained(text, device, run, *overrides, stop_at=None, scorers=NO_SCORERS):
    """A run of a recipe on a device, and its losses."""
    recipe = recipe_of(text, run.parent, *PRECISE, *overrides)
    trainer = Trainer(recipe, build_learner(recipe, device, scorers), run, Ranks())
    trainer.resume()
    run.mkdir(exist_ok=True)
    losses = []

    def on_step(now):
        losses.append(now.loss)
        if now.step == stop_at:
            signal.raise_signal(signal.SIGINT)

    if stop_at:
        with pytest.raises(Interrupted):
            trainer.train(on_step)
    else:
        trainer.train(on_step)
    assert {p.device.type for p in trainer.learner.model.parameters()} == {device.type}
    return trainer, losses


def assert_agree(device, made, expected):
    """Losses agree; on a GPU, rounding of gradients tells after the first step."""
    on_sim = device.type == "sim"
    assert made[0] == pytest.approx(expected[0], rel=1e-6 if on_sim else 1e-4)
    assert made == pytest.approx(expected, rel=1e-6 if on_sim else 1e-3)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("metric", ("objective.async_probability=1", "train.recompute=true")),
        (
            "metric",
            ("optimizer.decay_all=true", "optimizer.clip_norm=null", "data.short_captions=0.5"),
        ),
        ("linear", ("optimizer.kind=muon",)),
        ("mixture", ("data.validation_shards=SHARDS", "train.validation_passes=1")),
        ("masked", ()),
    ],
)
def test_losses_of_a_generator(path, words, generator_recipe, device, tmp_path):
    shards = recipe_of(generator_recipe, tmp_path).data.shards
    words = [f"path.kind={path}", *(w.replace("SHARDS", str(shards)) for w in words)]
    runs = [
        trained(generator_recipe, place, tmp_path / place.type, *words) for place in (device, CPU)
    ]
    # On a GPU muon multiplies in bfloat16, which tells after its first step.
    steps = 1 if device.type == "cuda" and path == "linear" else 3
    assert_agree(device, runs[0][1][:steps], runs[1][1][:steps])
    assert list((tmp_path / device.type / "samples").glob("*.png"))
    bundle = load_bundle(tmp_path / device.type, device)
    codes = generate(bundle, Request("a red circle"))
    assert codes.shape == (3, 2, 2)


def test_losses_of_a_tokenizer(device, tmp_path):
    words = ("loss.l1=0.5", "loss.log_mse=0.1", "loss.saturation=0.1")
    runs = [trained(TOKENIZER, place, tmp_path / place.type, *words) for place in (device, CPU)]
    assert_agree(device, runs[0][1], runs[1][1])


@pytest.mark.parametrize("words", [(), ("lora.rank=2",), ("rollout.updates=2",)])
def test_losses_of_reward_tuning(words, tiny_model, device, tmp_path):
    brightness = {"brightness": (1.0, lambda clips, _: [float(clip.mean()) for clip in clips])}
    watch = "watch={prompts: [a circle on navy background]}"
    words = (f"init={tiny_model}", "rollout.steps=2", "train.validation_passes=1", watch, *words)
    runs = [
        trained(REWARD, place, tmp_path / place.type, *words, scorers=brightness)
        for place in (device, CPU)
    ]
    (ours, losses), (other, expected) = runs
    assert losses == pytest.approx(expected, abs=1e-6 if device.type == "sim" else 1e-2)
    if device.type == "sim":
        theirs = other.learner.model.state_dict()
        for name, weight in ours.learner.model.state_dict().items():
            torch.testing.assert_close(weight.cpu(), theirs[name], atol=1e-4, rtol=0, msg=name)


def test_a_stopped_run_continues_exactly(generator_recipe, device, tmp_path):
    whole, losses = trained(generator_recipe, device, tmp_path / "whole")
    _, first = trained(generator_recipe, device, tmp_path / "parts", stop_at=1)
    parts, rest = trained(generator_recipe, device, tmp_path / "parts")
    assert_agree(device, [*first, *rest], losses)
    states = [stored(checkpoints(run.run_folder)[-1]) for run in (whole, parts)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        # The parts of a GPU's sums that no fixed order is known for.
        tolerance = 0 if device.type == "sim" else 1e-5
        torch.testing.assert_close(states[1][name], value, rtol=tolerance, atol=tolerance)


def test_an_adapter(generator_recipe, device, tmp_path):
    pytest.importorskip("peft")
    base = trained(generator_recipe, CPU, tmp_path / "base", "train.steps=1")[0].run_folder
    words = (f"init={base}", "lora.rank=2", "name=mine", "optimizer.learning_rate=0.02")
    runs = [
        trained(generator_recipe, place, tmp_path / place.type, *words) for place in (device, CPU)
    ]
    assert_agree(device, runs[0][1], runs[1][1])
    adapter = read_adapter(tmp_path / device.type)
    options = Request("a red circle", seed=3)
    codes = []
    for place in (device, CPU):
        bundle = load_bundle(base, place, adapters=[adapter])
        codes.append(generate(bundle, options).cpu())
    if device.type == "sim":
        assert torch.equal(*codes)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", ["false", "true"])
def test_a_bfloat16_step_is_close(compiled, generator_recipe, cuda, tmp_path):
    words = ("train.precision=bfloat16", "train.steps=2", f"train.compile={compiled}")
    trainer, losses = trained(generator_recipe, cuda, tmp_path / "cuda", *words)
    assert trainer.is_bfloat16
    _, expected = trained(generator_recipe, CPU, tmp_path / "cpu", "train.steps=2")
    assert losses == pytest.approx(expected, rel=0.02)
