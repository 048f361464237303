"""Training a generator from a Qwen3 language model: to a model that samples, and faults told."""

import json
import shutil

import pytest
import torch
from hub_stand_in import Hub, files_of, serve
from tiny_qwen3 import NUM_IDS, THETA, write_qwen3
from tiny_runs import recipe_of

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle
from ursa_core.errors import CheckpointError, HubUnreachableError, RecipeError
from ursa_core.sampling.generate import Request, decode, generate
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.training.generator.start import find_start
from ursa_core.training.run import build_learner

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3") / "lm"
    write_qwen3(folder, tied=True, dtype=torch.bfloat16, shard_size="40KB")
    return folder


@pytest.fixture
def copy(language_model, tmp_path):
    return shutil.copytree(language_model, tmp_path / "lm")


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_two_steps_from_a_language_model_make_a_model_that_samples(
    language_model, generator_recipe, tmp_path, capsys
):
    recipe_of(generator_recipe, tmp_path)
    run = tmp_path / "run"
    words = [str(tmp_path / "recipe.yaml"), f"init={language_model}", "train.steps=2"]
    assert main(["train", *words, "-o", str(run), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(run)
    bundle = load_bundle(run)
    config = bundle.transformer.config
    assert (config.lm_vocab_size, config.bov_token_id) == (NUM_IDS, NUM_IDS - 1)
    assert (config.rope_theta, config.rms_norm_eps) == (THETA, 1e-5)
    prompts = ["a red circle grows on a navy background", ""]
    theirs = TextTokenizer.load(language_model, 12)
    assert torch.equal(bundle.text_tokenizer.encode(prompts), theirs.encode(prompts))
    codes = generate(bundle, Request(prompts[0], seed=1))
    assert decode(bundle, codes).shape == (9, 32, 32, 3)
    # Another run may start from it.
    again = recipe_of(generator_recipe, tmp_path, f"init={run}")
    state = build_learner(again, CPU).model.state_dict()
    for name, value in bundle.transformer.state_dict().items():
        assert torch.equal(state[name], value), name


def test_the_seed_draws_what_is_new_alone(language_model, generator_recipe, tmp_path):
    first, again, other = (
        build_learner(
            recipe_of(generator_recipe, tmp_path, f"init={language_model}", f"seed={seed}"), CPU
        ).model.state_dict()
        for seed in (0, 0, 7)
    )
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    differing = {name for name, value in first.items() if not torch.equal(value, other[name])}
    assert differing == {"model.embed_tokens.weight", "lm_head.weight"}


def test_other_sizes_than_the_recipes_are_named(copy, generator_recipe, tmp_path, capsys):
    recipe_of(generator_recipe, tmp_path)
    words = ["train", str(tmp_path / "recipe.yaml"), f"init={copy}", "-o", str(tmp_path / "run")]
    assert main([*words, "model.hidden_size=48", "model.num_hidden_layers=3"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "hidden_size 32, not 48; num_hidden_layers 2, not 3" in error
    assert "that model's size" in hint
    assert not (tmp_path / "run").exists()
    sizes = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    edit(copy / "config.json", **sizes, **heads)
    with pytest.raises(RecipeError, match="intermediate_size 3072, not 32") as caught:
        build_learner(recipe_of(generator_recipe, tmp_path, f"init={copy}"), CPU)
    assert "model.preset=0.6B" in caught.value.hint


def test_a_bundle_of_another_size_is_named_likewise(generator_recipe, tmp_path):
    recipe = recipe_of(generator_recipe, tmp_path, "init=nano")
    with pytest.raises(RecipeError, match="num_hidden_layers 6, not 2") as caught:
        build_learner(recipe, CPU)
    assert "model.preset=nano" in caught.value.hint


def test_another_kind_of_model_is_named(copy, generator_recipe, tmp_path, capsys):
    recipe_of(generator_recipe, tmp_path)
    edit(copy / "config.json", model_type="llama")
    words = ["train", str(tmp_path / "recipe.yaml"), f"init={copy}", "-o", str(tmp_path / "run")]
    assert main([*words, "--dry-run"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert "config.json describes a model of type 'llama'" in error
    assert "Qwen/Qwen3-0.6B" in hint


def test_a_text_tokenizer_without_begin_of_video_is_named(copy, generator_recipe, tmp_path):
    for file in copy.glob("*token*.json"):
        file.write_text(file.read_text().replace("<|vision_start|>", "<|other|>"))
    with pytest.raises(RecipeError, match=f"{copy} has no begin-of-video") as caught:
        build_learner(recipe_of(generator_recipe, tmp_path, f"init={copy}"), CPU)
    assert "<|vision_start|>" in caught.value.hint


def test_a_language_model_comes_from_the_hub(home, language_model, copy):
    extra = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"pickle"}
    files = {**files_of(language_model), **extra}
    edit(copy / "config.json", model_type="llama")
    first, *_ = sorted(language_model.glob("model-*.safetensors"))
    lacking = {name: content for name, content in files.items() if name != first.name}
    repos = {"lab/qwen": files, "lab/llama": files_of(copy), "lab/lacking": lacking}
    with pytest.raises(HubUnreachableError):
        find_start("lab/qwen")
    with serve(Hub(repos={name: {"main": content} for name, content in repos.items()})) as hub:
        home(hub.address)
        folder = find_start("lab/qwen")
        assert first.name in hub.fetched()
        assert not set(hub.fetched()) & set(extra)
        hub.asked.clear()
        with pytest.raises(CheckpointError, match="'llama'"):
            find_start("lab/llama")
        assert not [name for name in hub.fetched() if name.endswith(".safetensors")]
        with pytest.raises(CheckpointError, match=f"lacks {first.name}"):
            find_start("lab/lacking")
    home("http://127.0.0.1:9")
    assert find_start("lab/qwen") == folder
