"""Weights of a model folder: exact, tensor by tensor, and hostile or damaged files refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ursa_core.bundle.folder import URSA_MODEL, WEIGHTS, index_of, part_sizes
from ursa_core.bundle.weights import load_weights, save_weights
from ursa_core.errors import CheckpointError
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

INDEX = index_of(WEIGHTS)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "1.weight": (2, 4)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def write_shards(folder: Path, **index: object) -> None:
    """The network's weights in two files with an index, of which `index` changes entries."""
    state = tensors()
    homes = {"0.weight": SHARDS[0], "0.bias": SHARDS[0], "1.weight": SHARDS[1]}
    for shard in SHARDS:
        save_file({name: state[name] for name in state if homes[name] == shard}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"weight_map": homes, **index}))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        load_weights(network(), folder)
    assert caught.value.hint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_arrive_in_the_dtype_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file(tensors(), tmp_path / WEIGHTS)
    model = network()
    load_weights(model, tmp_path, dtype=dtype)
    for name, value in model.state_dict().items():
        assert torch.equal(value, tensors()[name].to(dtype))
        assert value.dtype == dtype
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_weights_stay_when_their_file_goes(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / WEIGHTS)
    model = network()
    load_weights(model, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"")  # a mapped file cut short would end the process
    assert torch.equal(model.state_dict()["0.bias"], tensors()["0.bias"])


def test_shards_are_joined(tmp_path: Path) -> None:
    write_shards(tmp_path)
    model = network()
    load_weights(model, tmp_path)
    assert all(torch.equal(v, tensors()[k]) for k, v in model.state_dict().items())


def test_buffers_that_no_file_holds_are_right(tmp_path: Path) -> None:
    config = VideoTokenizerConfig((8, 8, 8), 1, 4, levels=(8, 5, 5))
    original = VideoTokenizer(config)
    save_weights(tmp_path, config.to_json(), original.state_dict(), torch.float32)
    with torch.device("meta"):
        loaded = VideoTokenizer(config)
    load_weights(loaded, tmp_path)
    assert torch.equal(loaded.codebook, original.codebook)
    buffers = dict(loaded.named_buffers())
    for name, value in original.named_buffers():
        assert torch.equal(buffers[name], value)
    video = torch.rand(1, 3, 5, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.encode(video), original.encode(video))


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x.bin", 3, None]
)
def test_an_index_may_only_name_files_of_its_folder(tmp_path: Path, name: object) -> None:
    save_file(tensors(), tmp_path / "other.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    write_shards(folder, weight_map=dict.fromkeys(tensors(), name))
    refused(folder, "which is no safetensors file of the same folder")


@pytest.mark.parametrize("weight_map", [None, {}, [], "all"])
def test_an_index_needs_its_map(tmp_path: Path, weight_map: object) -> None:
    write_shards(tmp_path, weight_map=weight_map)
    refused(tmp_path, "has no weight_map")


def test_an_index_must_agree_with_its_files(tmp_path: Path) -> None:
    homes = {"0.weight": SHARDS[0], "0.bias": SHARDS[1], "1.weight": SHARDS[1]}
    write_shards(tmp_path, weight_map=homes)
    refused(tmp_path, r"differ about the tensor 0\.bias")
    write_shards(tmp_path, weight_map={**homes, "2.weight": SHARDS[0], "0.bias": SHARDS[0]})
    refused(tmp_path, r"differ about the tensor 2\.weight")
    (tmp_path / INDEX).write_text("[" * 100_000)
    refused(tmp_path, "can't be read")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    refused(tmp_path, f"{WEIGHTS} is missing")
    save_file(tensors(), tmp_path / WEIGHTS)
    whole = (tmp_path / WEIGHTS).read_bytes()
    huge_header = (2**62).to_bytes(8, "little") + whole[8:]
    for content in (b"", whole[:4], whole[:60], whole[:-4], whole + b"more", huge_header):
        (tmp_path / WEIGHTS).write_bytes(content)
        refused(tmp_path, f"{WEIGHTS} is damaged")
    write_shards(tmp_path)
    (tmp_path / SHARDS[1]).unlink()
    refused(tmp_path, f"{SHARDS[1]} is missing")


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        (WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (WEIGHTS, b"cut", "cut short"),
        (f"{WEIGHTS[:-12]}.fp16.safetensors", b"", "try ursa models convert"),
        (f"{WEIGHTS[:-12]}-00001-of-00002.fp16.safetensors", b"", "try ursa models convert"),
        ("diffusion_pytorch_model.bin", b"", "try ursa models convert"),
        ("README.md", b"", "get the model again"),
    ],
)
def test_weights_of_another_form_are_told(
    tmp_path: Path, name: str, content: bytes, hint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=WEIGHTS) as caught:
        load_weights(network(), tmp_path)
    assert hint in caught.value.hint
    part = tmp_path / "transformer"
    part.mkdir()
    (tmp_path / name).rename(part / name)
    with pytest.raises(CheckpointError) as caught:
        part_sizes(tmp_path)
    assert hint in caught.value.hint
    if name != WEIGHTS:
        with pytest.raises(CheckpointError, match="it lacks") as caught:
            URSA_MODEL.check(tmp_path)
        assert hint in caught.value.hint or name == "README.md"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_names_of_wrapped_networks_are_told(tmp_path: Path, prefix: str) -> None:
    save_file({prefix + name: value for name, value in tensors().items()}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="tensor") as caught:
        load_weights(network(), tmp_path)
    assert f"ursa models convert takes off the '{prefix}'" in caught.value.hint


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    whole = tensors()
    for state, match in (
        ({k: v for k, v in whole.items() if k != "0.bias"}, r"lacks the tensor 0\.bias"),
        ({**whole, "2.bias": torch.zeros(4)}, r"has the foreign tensor 2\.bias"),
        ({**whole, "0.bias": torch.zeros(5)}, r"0\.bias has shape \(5,\).* asks for \(4,\)"),
        ({**whole, "0.bias": torch.zeros(4, dtype=torch.int8)}, r"0\.bias is stored as I8"),
    ):
        save_file(state, tmp_path / WEIGHTS)
        refused(tmp_path, match)


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_holds_one_copy(tmp_path: Path) -> None:
    state = {f"{k}.weight": torch.ones(1024, 1024, dtype=torch.float16) for k in range(32)}
    save_file(state, tmp_path / WEIGHTS)
    program = """
import sys, torch
from pathlib import Path
from torch import nn
sys.path.append(sys.argv[2])
from peak_memory import peak_memory
from ursa_core.bundle.weights import load_weights
with torch.device("meta"):
    model = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(32)))
before = peak_memory()
load_weights(model, Path(sys.argv[1]))
print(peak_memory() - before)
"""
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    run = [sys.executable, "-c", program, str(tmp_path), str(benchmarks)]
    grown = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert 128 * 2**20 <= grown < 1.25 * 128 * 2**20  # float32; the mapped file would add 64 MiB
