"""Recipes that start from a published model, planned on stand-ins of its layout."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from ursa_cli.main import main
from ursa_core.bundle.bundle import save_tokenizer, tokenizer_identity
from ursa_core.bundle.folder import write_json
from ursa_core.bundle.weights import save_weights
from ursa_core.configs import IMAGE_CLASS
from ursa_core.grids import LatentGrid
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import TransformerConfig
from ursa_core.tokenizers.image_vq import ImageTokenizer, ImageTokenizerConfig
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.tokens.shards import TokenIdentity
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training import run as run_module

ROOT = Path(__file__).parents[2]
REWARD, FEW = (ROOT / f"recipes/ursa_{name}.yaml" for name in ("images_reward", "video_few"))
TEXT = ROOT / "tests" / "golden" / "published_text" / "tokenizer"
GIGABYTES_80 = 80_000_000_000


@pytest.fixture(autouse=True)
def eight_gpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for rank in ("WORLD_SIZE=8", "RANK=0", "LOCAL_RANK=0"):
        monkeypatch.setenv(*rank.split("="))
    monkeypatch.setattr(run_module.devices, "total_memory_bytes", lambda _: GIGABYTES_80)
    Path("prompts.txt").write_text("a photo of two dogs\n")
    Path("heldout.txt").write_text("a photo of a cat\n")


def published(
    folder: Path, preset: str, codes: int, texts: tuple[int, int], **scheduler: float
) -> Path:
    """A folder with a model's sizes next to its small tokenizer, no transformer weights.

    ``texts`` is the size of the vocabulary and the id that precedes a video.
    """
    config = TransformerConfig.from_size(PRESETS[preset], texts[0], codes, texts[1])
    write_json(folder / "transformer" / "config.json", config.to_json())
    layers = {f"model.layers.{k}.stand_in": torch.zeros(1) for k in range(config.num_hidden_layers)}
    save_file(layers, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", {})
    shutil.copytree(TEXT, folder / "tokenizer")
    return folder


def planned(capsys, recipe: Path, *words: str) -> dict[str, object]:
    """The plan of a dry run that has no warning of too little memory."""
    code = main(["train", str(recipe), *words, "--dry-run", "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "more than" not in printed.err
    plan = json.loads(printed.out)
    assert plan["ranks"] == 8
    assert plan["memory"]["total"] < GIGABYTES_80
    return plan


def test_tuning_to_rewards_has_the_papers_settings(tmp_path, capsys):
    """On the layout of URSA-1.7B-IBQ512."""
    folder = tmp_path / "URSA-1.7B-IBQ512"
    image = ImageTokenizerConfig((32,) * 5, 1, num_vq_embeddings=131_072, vq_embed_dim=4)
    config_json = {"_class_name": IMAGE_CLASS, **vars(image), "block_out_channels": [32] * 5}
    save_weights(folder / "vae", config_json, ImageTokenizer(image).state_dict(), torch.float16)
    model = published(folder, "1.7B", 131_072, (151_669, 151_652), alpha=0.5, c=6.0, shift=3.0)
    command = "{kind: command, command: python3}"
    words = [f"init={model}", f"rewards=[{command}]", "watch.score={kind: frames, figure: flicker}"]
    plan = planned(capsys, REWARD, *words)
    assert 2.2e9 < plan["parameters"] < 2.3e9  # with embeddings and head of the codes
    assert plan["items_per_step"] == 16 * 8
    assert plan["tokens_per_step"] == 3 * 16 * 8 * (320 + 1 + 32 * 32)
    recipe = yaml.safe_load(REWARD.read_text())
    assert recipe["rollout"] == {
        "group_size": 8, "steps": 10, "guidance": 1.0, "temperature": 1.0,
    }  # fmt: skip
    assert (recipe["objective"]["states"], recipe["objective"]["kl"]) == (3, 0.05)
    assert float(recipe["optimizer"]["learning_rate"]) == 1e-6


def test_a_video_student_and_its_pairs_are_planned(tmp_path, capsys):
    """On the layout of URSA-0.6B-FSQ320: 20,000 pairs of 99 passes come before the training."""
    folder, grid = tmp_path / "URSA-0.6B-FSQ320", LatentGrid(13, 40, 64)
    video = VideoTokenizerConfig((8, 8, 8), 1, latent_channels=4, levels=(8, 8, 8, 5, 5, 5))
    save_tokenizer(folder, video, VideoTokenizer(video).state_dict())
    model = published(folder, "0.6B", 64_000, (292, 291), alpha=1.0, c=5.0, shift=3.0)
    identity = TokenIdentity(tokenizer_identity(model), 64_000, (), 4, 8)
    codes = torch.randint(64_000, (grid.frames, grid.rows, grid.columns))
    with ShardWriter(tmp_path / "video", identity) as writer:
        writer.add(TokenRow(codes, ("a bear",), 12.0, 0.1, "clip"))
    words = [f"init={model}", f"tokenizer={model}", "data.shards=video", "prior.shards=pairs"]
    plan = planned(capsys, FEW, *words)
    assert plan["prior_clips"] == 20_000
    assert plan["items_per_step"] == 16
    assert plan["tokens_per_step"] == 16 * (320 + 1 + grid.num_codes)
    # A pass forward is a quarter of a clip's training, which recomputes; the 8 ranks train 2 clips
    # each per step. Its head is a third, as that of training isn't recomputed.
    steps = 20_000 * 99 / 8 / (4 * 2)
    assert plan["prior_seconds"] / plan["seconds_per_step"] == pytest.approx(steps, rel=0.02)
