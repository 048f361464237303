"""What tests of several folders share."""

import contextlib
import functools
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from ursa_core import devices
from ursa_core.bundle.bundle import load_tokenizer, save_bundle, save_tokenizer
from ursa_core.bundle.settings import BundleSettings
from ursa_core.encoding.cuts import ClipCut
from ursa_core.encoding.encode import Tokenizing, token_identity
from ursa_core.encoding.items import find_items
from ursa_core.files import part_of
from ursa_core.grids import PixelShape
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.tokens.writer import ShardWriter

if not torch.cuda.is_available():
    # Before the first gradient, which starts autograd's threads, one for each device that there is.
    with contextlib.suppress(ImportError):
        import simulated_device

        simulated_device.register()

GOLDEN = Path(__file__).parent / "golden"
# What is measured for `auto` each time that a model is loaded or trained is measured once, before
# what takes it by its name is imported; and torch keeps no record of each tensor of a checkpoint.
devices.matmul_rates = functools.cache(devices.matmul_rates)
logging.getLogger("c10d-NullHandler-dcp_logger").disabled = True
# The small model, for all that doesn't ask for another one, in subprocesses too.
os.environ["URSA_MODEL"] = "nano"


@pytest.fixture(scope="session")
def published_image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's random image checkpoint, whole, of its golden parts; copy it to change it."""
    folder = tmp_path_factory.mktemp("models") / "published_image"
    no_outputs = shutil.ignore_patterns("expected.*")
    shutil.copytree(GOLDEN / "published_image", folder, ignore=no_outputs)
    shutil.copytree(GOLDEN / "published_transformer", folder / "transformer", ignore=no_outputs)
    shutil.copytree(GOLDEN / "published_text" / "tokenizer", folder / "tokenizer")
    return folder


@pytest.fixture
def part_of_dead():
    """Where a process that was killed has left what it was writing to a path."""
    above_all = 1 << 22  # no process has such a number
    return lambda path: part_of(path).with_name(
        part_of(path).name.replace(f"-{os.getpid()}.", f"-{above_all}.")
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A machine without models; returns what points the hub library at an address."""
    from huggingface_hub import constants

    monkeypatch.setenv("URSA_HOME", str(tmp_path / "ursa"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def connect(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    connect("http://127.0.0.1:9")  # discard: nothing listens
    return connect


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random video model of 9 frames of 16x16 pixels, two steps, that samples in an instant."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = VideoTokenizerConfig(
        block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4, levels=(7, 5, 5)
    )
    tokenizer = VideoTokenizer(config)
    with torch.no_grad():  # fresh convolutions over time pass on their input
        for parameter in tokenizer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    save_tokenizer(folder, config, tokenizer.state_dict())
    codebook = tokenizer.codebook
    words = TextTokenizer.from_words(["a red circle moves right left on navy background"], 12)
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    ids = {"lm_vocab_size": words.max_id + 1, "lm_head_size": len(codebook), "bov_token_id": 2}
    transformer = Transformer(TransformerConfig(**size, **heads, **ids))
    transformer.initialise_(codebook, torch.Generator().manual_seed(0))
    path = MetricPath(codebook, PowerSchedule(1.0, 4.0))
    shape = {"frames": 9, "height": 16, "width": 16, "fps": 8.0, "max_prompt_length": 12}
    settings = BundleSettings(**shape, steps=2, guidance=2.0, shift=1.0, motion_prefix=False)
    weights = transformer.state_dict()
    save_bundle(folder, transformer, weights, path, codebook, words, folder, settings)
    return folder


@pytest.fixture(scope="session")
def trained_tokenizer(tmp_path_factory) -> Path:
    """Run folder of the tiny tokenizer recipe after a step."""
    from tiny_runs import TOKENIZER, train  # asks for pydantic

    folder = tmp_path_factory.mktemp("tokenizer")
    train(TOKENIZER, folder, "tokenizer", "train.steps=1")
    return folder / "tokenizer"


@pytest.fixture(params=["tokenizer", "generator"])
def recipe_text(request):
    """Text of a recipe of each kind that trains at once."""
    from tiny_runs import TOKENIZER  # asks for pydantic

    is_tokenizer = request.param == "tokenizer"
    return TOKENIZER if is_tokenizer else request.getfixturevalue("generator_recipe")


@pytest.fixture(scope="session")
def generator_recipe(tmp_path_factory, trained_tokenizer):
    """Text of a generator recipe whose tokenizer and shards exist."""
    from tiny_runs import GENERATOR  # asks for pydantic

    folder = tmp_path_factory.mktemp("generator")
    tokenizer, _, digest = load_tokenizer(trained_tokenizer)
    cut = ClipCut(8.0, PixelShape(9, 32, 32))
    writer = ShardWriter(folder / "shards", token_identity(tokenizer, digest))
    items = find_items(["shapes:train"], num=24, seed=3, fps=8.0)
    for _ in Tokenizing(tokenizer, cut, writer, num_checked=0).run(items):
        pass
    return GENERATOR.replace("TOKENIZER", str(trained_tokenizer)).replace(
        "SHARDS", str(folder / "shards")
    )
