"""The recipe with the paper's settings, planned on a stand-in of the published model's layout."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from ursa_cli.main import main
from ursa_core.bundle.folder import write_json
from ursa_core.bundle.weights import save_weights
from ursa_core.configs import IMAGE_CLASS
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import TransformerConfig
from ursa_core.tokenizers.image_vq import ImageTokenizer, ImageTokenizerConfig
from ursa_core.training import run as run_module

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes" / "ursa_images_reward.yaml"
TEXT = ROOT / "tests" / "golden" / "published_text" / "tokenizer"
CODES, TEXT_IDS = 131_072, 151_669


@pytest.fixture
def model(tmp_path):
    """A folder of URSA-1.7B-IBQ512: its sizes, a small tokenizer, no transformer weights."""
    folder = tmp_path / "URSA-1.7B-IBQ512"
    image = ImageTokenizerConfig((32,) * 5, 1, num_vq_embeddings=CODES, vq_embed_dim=4)
    told = {"_class_name": IMAGE_CLASS, **vars(image), "block_out_channels": [32] * 5}
    save_weights(folder / "vae", told, ImageTokenizer(image).state_dict(), torch.float16)
    config = TransformerConfig.from_size(PRESETS["1.7B"], TEXT_IDS, CODES, 151_652)
    write_json(folder / "transformer" / "config.json", config.to_json())
    layers = {f"model.layers.{k}.stand_in": torch.zeros(1) for k in range(config.num_hidden_layers)}
    save_file(layers, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    write_json(
        folder / "scheduler" / "scheduler_config.json", {"alpha": 0.5, "c": 6.0, "shift": 3.0}
    )
    write_json(folder / "model_index.json", {})
    shutil.copytree(TEXT, folder / "tokenizer")
    return folder


def test_it_has_the_papers_settings_and_is_planned(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for rank in ("WORLD_SIZE=8", "RANK=0", "LOCAL_RANK=0"):
        monkeypatch.setenv(*rank.split("="))
    monkeypatch.setattr(run_module.devices, "total_memory_bytes", lambda _: 80_000_000_000)
    Path("prompts.txt").write_text("a photo of two dogs\n")
    Path("heldout.txt").write_text("a photo of a cat\n")
    command = "{kind: command, command: python3}"
    words = [f"init={model}", f"rewards=[{command}]", "watch.score={kind: frames, figure: flicker}"]
    assert main(["train", str(RECIPE), *words, "--dry-run", "--json"]) == 0, capsys.readouterr().err
    told = capsys.readouterr()
    plan = json.loads(told.out)
    assert 2.2e9 < plan["parameters"] < 2.3e9  # with embeddings and head of the codes
    assert plan["ranks"] == 8
    assert plan["items_per_step"] == 16 * 8
    assert plan["tokens_per_step"] == 3 * 16 * 8 * (320 + 1 + 32 * 32)
    assert plan["memory"]["total"] < 80_000_000_000
    assert "more than" not in told.err
    parts = {name: round(size / 1e9, 1) for name, size in plan["memory"].items()}
    print(parts, plan["seconds_per_step"])
    recipe = yaml.safe_load(RECIPE.read_text())
    assert recipe["rollout"] == {
        "group_size": 8, "steps": 10, "guidance": 1.0, "temperature": 1.0,
    }  # fmt: skip
    assert (recipe["objective"]["states"], recipe["objective"]["kl"]) == (3, 0.05)
    assert float(recipe["optimizer"]["learning_rate"]) == 1e-6
