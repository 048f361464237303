"""LoRA: an adapter is trained, continued, sampled with and merged; others are refused."""

import hashlib
import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from tiny_qwen3 import write_qwen3
from tiny_runs import recipe_of, stored, train

from ursa_cli.main import main
from ursa_core.bundle.adapters import (
    CONFIG,
    WEIGHTS,
    Adapter,
    AdapterConfig,
    adding,
    check_adapter,
    read_adapter,
)
from ursa_core.bundle.bundle import load_bundle
from ursa_core.errors import CheckpointError, RecipeError, UrsaError
from ursa_core.grids import LatentGrid
from ursa_core.media import read_media
from ursa_core.training.checkpoints import checkpoints
from ursa_core.training.distributed import Interrupted, cast_frozen_to_bfloat16_
from ursa_core.training.run import build_learner

CPU = torch.device("cpu")
LORA = ("lora.rank=2", "lora.alpha=4", "optimizer.learning_rate=0.02", "name=mine")
PROMPT = "a red circle grows on a navy background"


@pytest.fixture(scope="module")
def base(generator_recipe, tmp_path_factory):
    """A model to adapt."""
    folder = tmp_path_factory.mktemp("base")
    train(generator_recipe, folder, "model", "train.steps=2", "train.sample_every=9")
    return folder / "model"


@pytest.fixture(scope="module")
def adapted(generator_recipe, base, tmp_path_factory):
    """The run of an adapter."""
    return train(generator_recipe, tmp_path_factory.mktemp("lora"), "run", f"init={base}", *LORA)


@pytest.fixture
def sample(tmp_path, capsys):
    """Call ``ursa sample``: its exit code, the clip, and the lines on stderr."""

    def call(name: str, *words: object):
        out = tmp_path / name
        fixed = ("--device", "cpu", "--dtype", "float32", "--steps", "3")
        code = main(["sample", "-o", str(out), *map(str, words), *fixed])
        return code, read_media(out) if out.exists() else None, capsys.readouterr().err.splitlines()

    return call


def test_a_stopped_run_continues_bit_for_bit(generator_recipe, base, adapted, tmp_path):
    def stop_after_three(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGTERM)

    words = (f"init={base}", *LORA)
    with pytest.raises(Interrupted):
        train(generator_recipe, tmp_path, "parts", *words, on_step=stop_after_three)
    train(generator_recipe, tmp_path, "parts", *words)
    whole, parts = (
        stored(checkpoints(run)[-1]) for run in (adapted.run_folder, tmp_path / "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert all(".lora_" in name for name in whole)
    for name in (WEIGHTS, CONFIG, "metrics.jsonl"):
        kept = [(run / name).read_bytes() for run in (adapted.run_folder, tmp_path / "parts")]
        assert kept[0] == kept[1] or name == "metrics.jsonl"


def test_the_models_own_weights_stay(base, adapted):
    own = load_bundle(base).transformer.state_dict()
    state = adapted.learner.model.state_dict()
    for name, value in own.items():
        module, _, _ = name.rpartition(".")
        now = state.get(name, state.get(f"{module}.base_layer.weight"))
        assert torch.equal(now, value.to(now.dtype)), name
    moved = [v for name, v in adapted.ema.average.items() if ".lora_B." in name]
    assert len(moved) == 2 * 7
    assert all(v.abs().max() > 0 for v in moved)


def test_training_an_adapter_lowers_the_loss(generator_recipe, base, tmp_path):
    words = (f"init={base}", *LORA, "train.steps=60", "lora.targets=[q_proj,v_proj,down_proj]")
    train(generator_recipe, tmp_path, "run", *words)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


def hidden(network: torch.nn.Module) -> torch.Tensor:
    codes = torch.arange(12)[None] % 9
    with torch.no_grad():
        return network(torch.arange(12)[None] % 5, codes, LatentGrid(3, 2, 2))


def test_peft_itself_reads_the_folder(base, adapted):
    from peft import PeftModel

    plain = load_bundle(base).transformer
    ours = load_bundle(base, adapters=[read_adapter(adapted.run_folder)]).transformer
    theirs = PeftModel.from_pretrained(load_bundle(base).transformer, str(adapted.run_folder))
    assert torch.allclose(hidden(ours), hidden(theirs), atol=1e-5)
    assert (hidden(ours) - hidden(plain)).abs().max() > 1e-2


def test_an_adapter_of_pefts_own_is_read(base, tmp_path):
    from peft import LoraConfig, get_peft_model

    network = get_peft_model(
        load_bundle(base).transformer,
        LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["k_proj", "up_proj"]),
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    network.save_pretrained(str(tmp_path / "theirs"))
    adapter = read_adapter(tmp_path / "theirs")
    check_adapter(adapter, base)
    ours = load_bundle(base, adapters=[adapter]).transformer
    assert torch.allclose(hidden(ours), hidden(network), atol=1e-4)


def test_adapters_add_up():
    parts = (
        Adapter(Path(), 0.5, AdapterConfig(4.0), ""),
        Adapter(Path(), 1.0, AdapterConfig(4.0, True), ""),
    )
    assert [part.factor(16) for part in parts] == [0.125, 1.0]
    weight = torch.ones(2)
    assert adding([])("any", weight) is weight


def test_sampling_with_an_adapter_is_recorded_and_replayed(base, adapted, sample, tmp_path):
    run = adapted.run_folder
    fixed = (PROMPT, "--model", base, "--seed", 3)
    _, plain, _ = sample("plain.png", *fixed, "--frames", 1)
    _, without, _ = sample("0.png", *fixed, "--frames", 1, "--lora", f"{run}:0")
    code, clip, _ = sample("1.mp4", *fixed, "--lora", f"{run}:1.5")
    assert code == 0
    assert (plain.frames == without.frames).all()
    assert "lora" not in plain.metadata
    digest = hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest()
    assert clip.metadata["lora"] == [{"path": str(run), "sha256": digest, "scale": 1.5}]
    _, other, _ = sample("2.mp4", *fixed)
    assert (clip.frames != other.frames).any()
    again = ["--replay", tmp_path / "1.mp4", "--model", base]
    assert sample("again.mp4", *again)[0] == 0
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "1.mp4").read_bytes()


def test_a_replay_refuses_an_adapter_that_changed(base, adapted, sample, tmp_path):
    copy = shutil.copytree(adapted.run_folder, tmp_path / "copy")
    assert sample("a.png", PROMPT, "--frames", 1, "--model", base, "--lora", copy)[0] == 0
    weights = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    code, _, (error, hint) = sample("b.png", "--replay", tmp_path / "a.png", "--model", base)
    assert code == 2
    assert f"was made with the adapter {copy} when its weights were" in error
    assert "--lora" in hint


@pytest.mark.parametrize("command", ["extend", "interpolate"])
def test_other_commands_take_adapters_too(command, base, adapted, sample, tmp_path, capsys):
    sample("a.png", PROMPT, "--frames", 1, "--model", base)
    image, run = str(tmp_path / "a.png"), str(adapted.run_folder)
    sample("a.mkv", PROMPT, "--model", base)
    words = {
        "extend": [str(tmp_path / "a.mkv"), PROMPT, "--frames", "13"],
        "interpolate": [PROMPT, "--first", image, "--last", image],
    }
    out = tmp_path / "out.mkv"
    fixed = ["--model", str(base), "--lora", run, "--steps", "2", "--device", "cpu", "--quiet"]
    assert main([command, *words[command], "-o", str(out), *fixed]) == 0, capsys.readouterr().err
    (told,) = read_media(out).metadata["lora"]
    assert told["path"] == run


def test_a_merged_model_needs_the_adapter_no_longer(base, adapted, tmp_path, capsys):
    out, run = tmp_path / "merged", str(adapted.run_folder)
    words = ["models", "merge", str(base), "--lora", f"{run}:0.5", "--lora", run, "-o", str(out)]
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    adapters = [read_adapter(adapted.run_folder, scale) for scale in (0.5, 1.0)]
    wanted = load_bundle(base, adapters=adapters).transformer.state_dict()
    found = load_bundle(out).transformer.state_dict()
    assert all(torch.equal(found[name], value.half().float()) for name, value in wanted.items())
    own = {p.relative_to(base) for part in ("vae", "tokenizer") for p in (base / part).iterdir()}
    assert own
    assert all((out / name).read_bytes() == (base / name).read_bytes() for name in own)
    told = json.loads((out / "merged.json").read_text())
    assert [each["scale"] for each in told["lora"]] == [0.5, 1.0]
    assert main(words) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert f"{out} is there already" in error
    assert "new folder" in hint


@pytest.mark.parametrize(
    ("words", "told"), [(["-o", "a"], "no adapter is given"), (["--lora", "a"], "no output is")]
)
def test_merging_needs_an_adapter_and_an_output(words, told, capsys):
    assert main(["models", "merge", "nano", *words]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert told in error
    assert hint.startswith("hint: add ")


def test_an_adapter_of_another_model_is_refused(generator_recipe, base, adapted, tmp_path, sample):
    train(generator_recipe, tmp_path, "other", "train.steps=1", "seed=8")
    for model, told in ((tmp_path / "other", f"belongs to the model {base}"), ("nano", "belongs")):
        code, _, (error, hint) = sample(
            "a.png", PROMPT, "--model", model, "--lora", adapted.run_folder
        )
        assert code == 1
        assert told in error
        assert f"--model {base}" in hint


def test_a_foreign_adapter_that_does_not_fit_is_refused(base, tmp_path):
    from peft import LoraConfig, get_peft_model

    theirs = LoraConfig(r=4, target_modules=["q_proj"])
    get_peft_model(load_bundle("nano").transformer, theirs).save_pretrained(str(tmp_path / "a"))
    with pytest.raises(CheckpointError, match=r"q_proj.weight by \(256, 4\) times \(4, 256\)"):
        check_adapter(read_adapter(tmp_path / "a"), base)
    with_dora = LoraConfig(r=4, target_modules=["q_proj"], use_dora=True)
    get_peft_model(load_bundle(base).transformer, with_dora).save_pretrained(str(tmp_path / "b"))
    with pytest.raises(CheckpointError, match="use_dora can't be True"):
        read_adapter(tmp_path / "b")
    config = json.loads((tmp_path / "b/adapter_config.json").read_text())
    (tmp_path / "b/adapter_config.json").write_text(json.dumps({**config, "use_dora": False}))
    with pytest.raises(CheckpointError, match="which is no plain LoRA"):
        check_adapter(read_adapter(tmp_path / "b"), base)


def test_what_is_no_adapter_is_refused(base, adapted, sample, tmp_path):
    fixed = ("a.png", PROMPT, "--model")
    code, _, (error, hint) = sample(*fixed, base, "--lora", tmp_path)
    assert (code, error) == (1, f"error: {tmp_path} is no adapter, it lacks {CONFIG}")
    assert "lora.rank" in hint
    code, _, (error, hint) = sample(*fixed, base, "--lora", f"{adapted.run_folder}:strong")
    assert code == 2
    assert "mine:0.8" in hint
    code, _, (error, hint) = sample(*fixed, adapted.run_folder)
    assert code == 1
    assert "is an adapter, not a model" in error
    assert f"--lora {adapted.run_folder}" in hint


def test_a_run_goes_on_with_the_same_model_alone(generator_recipe, base, tmp_path):
    model = shutil.copytree(base, tmp_path / "model")
    words = (f"init={model}", *LORA, "train.steps=1")
    train(generator_recipe, tmp_path, "run", *words)
    train(generator_recipe, tmp_path, "other", "train.steps=1", "seed=8")
    file = Path("transformer") / "diffusion_pytorch_model.safetensors"
    shutil.copyfile(tmp_path / "other" / file, model / file)
    with pytest.raises(CheckpointError, match="tunes a model whose files were") as caught:
        train(generator_recipe, tmp_path, "run", *words[:-1])
    assert "--fresh" in caught.value.hint


def test_a_recipe_that_does_not_fit_the_model_is_refused(generator_recipe, base, tmp_path):
    words = [f"init={base}", *LORA, "path.c=3", "model.max_prompt_length=9"]
    with pytest.raises(RecipeError, match=r"path.c 3.0, not 5.0; model.max_prompt_length 9, not"):
        build_learner(recipe_of(generator_recipe, tmp_path, *words), CPU)
    other = shutil.copytree(base, tmp_path / "other")
    told = json.loads((other / "ursa.json").read_text())
    (other / "ursa.json").write_text(json.dumps({**told, "motion_prefix": True}))
    with pytest.raises(RecipeError, match=r"data\.motion_prefix False, not True"):
        build_learner(recipe_of(generator_recipe, tmp_path, f"init={other}", *LORA), CPU)
    with pytest.raises(RecipeError, match="so init has to name the model"):
        recipe_of(generator_recipe, tmp_path, *LORA)
    write_qwen3(tmp_path / "lm", tied=True, dtype=torch.float32, shard_size="1MB")
    with pytest.raises(RecipeError, match="is a language model, without codes"):
        build_learner(recipe_of(generator_recipe, tmp_path, f"init={tmp_path / 'lm'}", *LORA), CPU)


def test_without_peft_it_says_how_to_get_it(generator_recipe, base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UrsaError, match="peft, which isn't installed") as caught:
        build_learner(recipe_of(generator_recipe, tmp_path, f"init={base}", *LORA), CPU)
    assert "pip install --upgrade peft" in caught.value.hint


def test_sampling_with_an_adapter_needs_no_peft(base, adapted, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    load_bundle(base, adapters=[read_adapter(adapted.run_folder)])


def test_frozen_matrices_in_half_precision_give_the_same_gradients(
    generator_recipe, base, tmp_path
):
    recipe = recipe_of(generator_recipe, tmp_path, f"init={base}", *LORA)
    gradients = []
    for is_halved in (False, True):
        learner = build_learner(recipe, CPU)
        if is_halved:
            cast_frozen_to_bfloat16_(learner.blocks)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = learner.loss(0, learner.objective)
        loss.backward()
        gradients.append(
            {n: p.grad for n, p in learner.model.named_parameters() if p.requires_grad}
        )
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())
    kinds = {p.dtype for layer in learner.blocks for p in layer.parameters() if p.ndim == 2}
    assert kinds == {torch.float32, torch.bfloat16}


def test_a_dry_run_plans_an_adapter(generator_recipe, base, tmp_path, capsys):
    recipe_of(generator_recipe, tmp_path)
    words = ["train", str(tmp_path / "recipe.yaml"), f"init={base}", "-o", str(tmp_path / "run")]
    assert main([*words, "--dry-run", "--json"]) == 0
    full = json.loads(capsys.readouterr().out)
    assert main([*words, *LORA, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["frozen_parameters"] == full["parameters"]
    assert plan["memory"]["optimizer"] == 8 * plan["parameters"] < full["memory"]["optimizer"]
    assert plan["seconds_per_step"] < full["seconds_per_step"] * 3  # measured, so roughly
    assert main([*words, *LORA, "--dry-run"]) == 0
    assert f"and {plan['frozen_parameters']:,} frozen" in capsys.readouterr().out
