"""The recipes of the paper's settings, planned on the meta device at every size of theirs.

Tokenizers, text vocabulary and data are stand-ins with the published codebooks and grids; the
language models are their configurations, without weights, which a plan doesn't read.
"""

import json
from pathlib import Path

import pytest
import torch

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle, save_tokenizer, tokenizer_identity
from ursa_core.bundle.folder import read_json, write_json
from ursa_core.bundle.settings import load_settings
from ursa_core.bundle.weights import save_weights
from ursa_core.configs import IMAGE_CLASS
from ursa_core.grids import LatentGrid
from ursa_core.models.presets import PRESETS
from ursa_core.tokenizers.image_vq import ImageTokenizer, ImageTokenizerConfig
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.tokens.shards import TokenIdentity
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training import run as run_module

RECIPES = Path(__file__).parents[2] / "recipes"
TEXT = Path(__file__).parents[1] / "golden" / "published_text" / "tokenizer"
VIDEO_CODES, IMAGE_CODES = 64_000, 131_072
GRIDS = {
    "ursa_images": (VIDEO_CODES, LatentGrid(1, 32, 32)),  # 256×256
    "ursa_images_1024": (IMAGE_CODES, LatentGrid(1, 64, 64)),  # 1024×1024
    "ursa_video": (VIDEO_CODES, LatentGrid(7, 30, 48)),  # 25×240×384
    "ursa_video_async": (VIDEO_CODES, LatentGrid(13, 40, 64)),  # 49×320×512
    "qwen3_video": (VIDEO_CODES, LatentGrid(7, 30, 48)),
    "ursa_images_finetune": (IMAGE_CODES, LatentGrid(1, 64, 64)),
    "ursa_video_finetune": (VIDEO_CODES, LatentGrid(13, 40, 64)),
}
GIGABYTES_80 = 80_000_000_000


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Folders of a video and an image tokenizer with the published numbers of codes."""
    folder = tmp_path_factory.mktemp("tokenizers")
    video = VideoTokenizerConfig((8, 8, 8), 1, latent_channels=4, levels=(8, 8, 8, 5, 5, 5))
    save_tokenizer(folder / "video", video, VideoTokenizer(video).state_dict())
    image = ImageTokenizerConfig((32,) * 5, 1, num_vq_embeddings=IMAGE_CODES, vq_embed_dim=4)
    told = {"_class_name": IMAGE_CLASS, **vars(image), "block_out_channels": [32] * 5}
    weights = ImageTokenizer(image).state_dict()
    save_weights(folder / "image" / "vae", told, weights, torch.float16)
    return {VIDEO_CODES: folder / "video", IMAGE_CODES: folder / "image"}


@pytest.fixture(scope="module")
def data(tokenizers, tmp_path_factory):
    """Folders of token shards, a clip of each grid."""
    folder = tmp_path_factory.mktemp("data")
    for name, (num_codes, grid) in GRIDS.items():
        identity = TokenIdentity(tokenizer_identity(tokenizers[num_codes]), num_codes, (), 4, 8)
        codes = torch.randint(num_codes, (grid.frames, grid.rows, grid.columns))
        with ShardWriter(folder / name, identity) as writer:
            writer.add(TokenRow(codes, ("a bear",), 12.0, 0.1, "clip"))
    return folder


def language_model(folder: Path, preset: str) -> Path:
    fixed = {"model_type": "qwen3", "vocab_size": 151_936, "rope_theta": 1e6, "rms_norm_eps": 1e-6}
    write_json(folder / "config.json", {**fixed, **vars(PRESETS[preset])})
    (folder / "model.safetensors").touch()
    for file in TEXT.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def plan(tokenizers, data, tmp_path, capsys, monkeypatch):
    """A dry run of a recipe as on 8 GPUs: its exit code, its plan and its warnings."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")

    def call(recipe: str, preset: str, *words: str, device_bytes: int = GIGABYTES_80):
        monkeypatch.setattr(run_module.devices, "total_memory_bytes", lambda _: device_bytes)
        init = language_model(tmp_path / preset, preset)
        fixed = [f"tokenizer={tokenizers[GRIDS[recipe][0]]}", f"data.shards={data / recipe}"]
        fixed += [f"init={init}", f"model.preset={preset}", "--dry-run", "--json"]
        code = main(["train", str(RECIPES / f"{recipe}.yaml"), *words, *fixed])
        told = capsys.readouterr()
        return code, json.loads(told.out or "{}"), told.err

    return call


@pytest.mark.parametrize("preset", ["0.6B", "1.7B", "4B"])
@pytest.mark.parametrize("recipe", GRIDS)
def test_every_setting_is_planned(recipe, preset, plan):
    words = () if preset == "0.6B" else ("train.distributed=fsdp", "train.recompute=true")
    code, told, err = plan(recipe, preset, *words)
    assert code == 0, err
    billions = {"0.6B": (0.5, 0.8), "1.7B": (1.5, 2.1), "4B": (3.6, 4.5)}[preset]
    assert billions[0] < told["parameters"] / 1e9 < billions[1]
    assert told["ranks"] == 8
    _, grid = GRIDS[recipe]
    assert told["tokens_per_step"] == told["items_per_step"] * (320 + 1 + grid.num_codes)
    assert 0 < told["memory"]["total"] < GIGABYTES_80
    assert told["seconds_per_step"] > 0
    assert "more than" not in err


@pytest.mark.parametrize("recipe", GRIDS)
def test_a_device_that_is_too_small_is_told(recipe, plan):
    code, told, err = plan(recipe, "4B", device_bytes=16_000_000_000)
    assert code == 0
    assert told["memory"]["total"] > told["device_bytes"]
    assert "are more than the 16.0 GB" in err
    assert "train.recompute=true" in err


@pytest.mark.parametrize("recipe", GRIDS)
def test_the_optimizer_is_the_papers(recipe):
    from ursa_core.recipe.loading import load_recipe

    found = load_recipe(RECIPES / f"{recipe}.yaml", [])
    optimizer = found.optimizer
    assert (optimizer.kind, optimizer.beta1, optimizer.beta2) == ("adamw", 0.9, 0.95)
    rate = 3e-5 if recipe.endswith("finetune") else 1e-4
    assert (optimizer.weight_decay, optimizer.learning_rate) == (0.05, rate)
    assert found.model.max_prompt_length == 320
    path = (0.5, 6.0) if GRIDS[recipe][0] == IMAGE_CODES else (1.0, 5.0)
    assert (found.path.alpha, found.path.c) == path


@pytest.mark.parametrize(
    ("recipe", "steps", "clips", "is_async", "motion_share"),
    [
        ("ursa_video_finetune", 20_000, 256, 1.0, 0.6),
        ("ursa_images_finetune", 120_000, 512, 0.0, None),
    ],
)
def test_fine_tuning_is_the_official_one(recipe, steps, clips, is_async, motion_share):
    """As configs/*.yaml, flex_transforms.py and pipeline_train.py of baaivision/URSA have it."""
    from ursa_core.bundle.settings import NEGATIVE
    from ursa_core.recipe.loading import load_recipe

    found = load_recipe(RECIPES / f"{recipe}.yaml", [])
    optimizer, train, data = found.optimizer, found.train, found.data
    assert optimizer.final_ratio * optimizer.learning_rate == pytest.approx(1e-5)
    assert (optimizer.warmup_steps, optimizer.decay_all, optimizer.clip_norm) == (500, True, None)
    assert (train.steps, train.batch_size * train.accumulate) == (steps, clips)
    assert train.precision == "bfloat16"
    objective = found.objective
    assert (objective.async_probability, objective.caption_dropout) == (is_async, 0.1)
    assert not any(
        value
        for name, value in objective
        if name.endswith("_probability") and name != "async_probability"
    )
    assert (data.motion_share if data.motion_prefix else None) == motion_share
    assert data.short_captions == 0.5
    assert found.init == found.tokenizer == found.init
    assert found.sampling.negative == NEGATIVE


def test_a_published_model_is_fine_tuned(published_image_model, tmp_path, capsys):
    """A real step of the recipe of images, from a small model in the published layout."""
    identity = TokenIdentity(tokenizer_identity(published_image_model), 512, (), 1, 16)
    with ShardWriter(tmp_path / "shards", identity) as writer:
        for clip in range(4):
            codes = torch.randint(512, (1, 4, 4), generator=torch.Generator().manual_seed(clip))
            captions = ("A bear walks. It snows.", "a bear")[: 1 + clip % 2]
            writer.add(TokenRow(codes, captions, 12.0, 0.0, str(clip)))
    theirs = read_json(published_image_model / "transformer" / "config.json")
    sizes = {name: theirs.get(name, 128) for name in vars(PRESETS["0.6B"])}
    words = [f"model.{name}={value}" for name, value in sizes.items()]
    words += [f"init={published_image_model}", f"tokenizer={published_image_model}"]
    words += [f"data.shards={tmp_path / 'shards'}", "train.steps=1", "train.accumulate=2"]
    words += ["optimizer.warmup_steps=0", "samples.prompts=[]", "train.device=cpu"]
    out = tmp_path / "run"
    recipe = str(RECIPES / "ursa_images_finetune.yaml")
    assert main(["train", recipe, *words, "-o", str(out)]) == 0, capsys.readouterr().err
    settings = load_settings(out)
    assert settings.negative.startswith("worst quality")
    before, after = (
        load_bundle(each).transformer.state_dict() for each in (published_image_model, out)
    )
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)
