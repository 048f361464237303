"""Model folders that would hang, fill the memory or draw from NaN are refused with a reason."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from ursa_core.bundle.adapters import adding, read_adapter
from ursa_core.bundle.bundle import load_bundle, load_tokenizer
from ursa_core.bundle.folder import shipped_models
from ursa_core.bundle.summary import summary
from ursa_core.errors import CheckpointError
from ursa_core.tokenizers.text import TextTokenizer

NANO = shipped_models()["nano"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(NANO, folder)
    return folder


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["vae", "transformer"])
def test_weights_that_are_not_finite_are_refused(copy, part, value):
    file = copy / part / WEIGHTS
    weights = load_file(file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = value
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=f"{name} holds numbers that aren't finite"):
        load_bundle(copy)
    if part == "vae":
        with pytest.raises(CheckpointError, match="aren't finite"):
            load_tokenizer(copy)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("transformer/config.json", "num_hidden_layers", 1 << 24),
        ("transformer/config.json", "head_dim", "256"),
        ("transformer/config.json", "rope_theta", 1e30),
        ("transformer/config.json", "rms_norm_eps", 0),
        ("vae/config.json", "patch_size", 0),
        ("vae/config.json", "levels", None),
        ("vae/config.json", "layers_per_block", 1 << 24),
        ("vae/config.json", "block_out_channels", [8] * 1000),
        ("ursa.json", "steps", 2147483648),
        ("ursa.json", "height", 1 << 40),
        ("ursa.json", "temperature", 1e-39),
        ("ursa.json", "negative", None),
        ("ursa.json", "chain", ["tokens"]),
        ("ursa.json", "times", []),
        ("ursa.json", "times", [0, 0.7, 0.5, 1]),
        ("ursa.json", "times", [0.1, 1]),
        ("scheduler/scheduler_config.json", "alpha", "1"),
        ("scheduler/scheduler_config.json", "path", ["metric"]),
    ],
)
def test_values_that_hang_or_fill_the_memory_are_named(copy, file, key, value):
    edit(copy / file, **{key: value})
    with pytest.raises(CheckpointError, match=rf"{key}( of \d+)? can't be"):
        load_bundle(copy)


def test_the_summary_holds_configs_to_the_same_types(copy):
    edit(copy / "transformer" / "config.json", head_dim="256")
    with pytest.raises(CheckpointError, match="head_dim can't be '256'"):
        summary(copy)


def test_codebooks_that_are_not_plain_floats_are_refused(copy):
    stored = copy / "scheduler" / "scheduler_model.safetensors"
    codebook = load_file(stored)["path.emb"]
    save_file({"path.emb": codebook.to(torch.complex64)}, stored)
    with pytest.raises(CheckpointError, match="another codebook"):
        load_bundle(copy)
    stored.unlink()
    pickled = copy / "scheduler" / "scheduler_model.pth"
    quantized = torch.quantize_per_tensor(codebook, 0.1, 0, torch.qint8)
    for tensor in (quantized, torch.zeros(1).expand(1 << 40, 6)):
        torch.save({"path.emb": tensor}, pickled)
        with pytest.raises(CheckpointError, match="another codebook"):
            load_bundle(copy)


def tokenizer_json(**changes):
    content = json.loads((NANO / "tokenizer" / "tokenizer.json").read_text())
    return content | changes


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def replace(text, content):
    return {"type": "Replace", "pattern": {"String": text}, "content": content}


BOMBS = {
    "exponential expression": ({"pre_tokenizer": split(r"(a+)+$")}, "the pattern"),
    "reference back": ({"pre_tokenizer": split(r"(a)(b)\1")}, "the pattern"),
    "long expression": ({"pre_tokenizer": split("a" * 2000)}, "the pattern"),
    "long replacement": ({"normalizer": replace("a", "a" * 65)}, "normalizer Replace"),
    "chained replacements": (
        {"normalizer": {"type": "Sequence", "normalizers": [replace("a", "a" * 60)] * 8}},
        "normalizer Replace",
    ),
    "unknown normalizer": ({"normalizer": {"type": "Precompiled"}}, "normalizer can't be"),
    "not an object": ({"normalizer": [1]}, "normalizer can't be"),
    "no unknown token": (
        {"model": {"type": "WordLevel", "vocab": {"[PAD]": 0, "<bov>": 2}, "unk_token": "[UNK]"}},
        "lacks its own unknown token",
    ),
    "vast id": (
        {"model": {"type": "WordLevel", "vocab": {"[PAD]": 1 << 30}, "unk_token": "[PAD]"}},
        "has the id",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), BOMBS.values(), ids=BOMBS)
def test_text_tokenizers_that_explode_are_refused(copy, changes, reason):
    (copy / "tokenizer" / "tokenizer.json").write_text(json.dumps(tokenizer_json(**changes)))
    with pytest.raises(CheckpointError, match=reason):
        TextTokenizer.load(copy / "tokenizer", 16)


def test_a_panic_of_the_tokenizer_library_is_an_error_of_ours(copy):
    class PanicException(BaseException):
        """As pyo3's, which can't be had without a panic."""

    class Backend:
        def encode_batch(self, texts, add_special_tokens):
            raise PanicException("called `Result::unwrap()` on an `Err` value")

    tokenizer = TextTokenizer.load(copy / "tokenizer", 16)
    tokenizer._backend = Backend()
    with pytest.raises(CheckpointError, match="can't read the prompt"):
        tokenizer.encode(["a"])


@pytest.mark.parametrize(
    ("rank", "alpha", "number", "reason"),
    [(0, 4, 0.0, "times"), (2, 1e308, 0.0, "lora_alpha can't be 1e\\+308"),
     (2, 4, float("nan"), "aren't finite")],
)  # fmt: skip
def test_adapters_that_make_no_weights_are_refused(tmp_path, rank, alpha, number, reason):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": alpha, "r": rank})
    )
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    shapes = {f"{name}A.weight": (rank, 8), f"{name}B.weight": (8, rank)}
    weights = {key: torch.full(shape, number) for key, shape in shapes.items()}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=reason):
        adding([read_adapter(tmp_path)])


def test_help_needs_no_pydantic():
    code = (
        "import sys; sys.modules['pydantic'] = None;"
        "from ursa_cli.main import main; main(['--help'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
