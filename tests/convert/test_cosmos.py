"""NVIDIA's tokenizer files: all forms that they come in, and what is wrong with others."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_tokenizer
from ursa_core.bundle.settings import load_settings
from ursa_core.calibration.codebooks import load_codebook
from ursa_core.convert.cosmos import convert_cosmos, cosmos_name
from ursa_core.errors import CheckpointError, UsageError
from ursa_core.grids import Strides
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

CONFIG = VideoTokenizerConfig(
    block_out_channels=(2, 4, 4, 4),
    layers_per_block=1,
    latent_channels=3,
    patch_size=2,
    causal=True,
)
BUFFERS = {
    "encoder.patcher3d.wavelets": torch.full((2,), 0.5**0.5),
    "decoder.unpatcher3d.wavelets": torch.full((2,), 0.5**0.5),
    "quantizer._levels": torch.tensor([8, 8, 8, 5, 5, 5], dtype=torch.int32),
    "quantizer.implicit_codebook": torch.zeros(10, 6),
}


@pytest.fixture(scope="module")
def tokenizer() -> VideoTokenizer:
    torch.manual_seed(0)
    return VideoTokenizer(CONFIG).eval()


@pytest.fixture
def tensors(tokenizer: VideoTokenizer) -> dict[str, Tensor]:
    """The tokenizer's weights as NVIDIA's code has them."""
    return as_nvidias(tokenizer)


def as_nvidias(tokenizer: VideoTokenizer) -> dict[str, Tensor]:
    stages = len(CONFIG.block_out_channels) - 1
    weights = {
        cosmos_name(name, stages): value[..., None, None, None] if value.ndim == 2 else value
        for name, value in tokenizer.state_dict().items()
    }
    return {**weights, **BUFFERS}


def write_checkpoint(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """A checkpoint of a training, whose averaged weights are the tensors."""
    weights = {name: value for name, value in tensors.items() if name not in BUFFERS}
    model = {f"network.{name}": value + 1 for name, value in weights.items()}
    model |= {f"ema.network-{name.replace('.', '-')}": value for name, value in weights.items()}
    folder.mkdir()
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save(
        {"model": model, "optimizer": optimizer, "grad_scaler": {}, "iteration": 7},
        folder / "model.pt",
    )
    return folder


@pytest.mark.parametrize("form", ["checkpoint", "state"])
@torch.no_grad()
def test_every_form_gives_the_same_tokenizer(
    form: str,
    tmp_path: Path,
    tensors: dict[str, Tensor],
    tokenizer: VideoTokenizer,
) -> None:
    source = tmp_path / "cosmos"
    if form == "checkpoint":
        write_checkpoint(source, tensors)
    else:
        torch.save(tensors, source)
    out = tmp_path / "out"
    assert convert_cosmos(source, out) == CONFIG
    found, settings, _ = load_tokenizer(out)
    video = torch.rand(1, 3, 5, 16, 8) * 2 - 1
    assert torch.equal(found.encode(video), tokenizer.encode(video))
    assert settings.licence == load_settings(out).licence == "NVIDIA Open Model License"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cosmos", "out"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_precision_is_kept(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    half = {n: v.bfloat16() if v.is_floating_point() else v for n, v in tensors.items()}
    torch.save(half, tmp_path / "model.pt")
    convert_cosmos(tmp_path, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "vae" / "diffusion_pytorch_model.safetensors")
    for name, value in stored.items():
        assert torch.equal(value, half[cosmos_name(name, 3)].reshape(value.shape))


def test_unused_resizes_need_the_stride(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(UsageError, match="stride of 4x8x8, not 8x8x8"):
        convert_cosmos(tmp_path, tmp_path / "out", Strides(8, 8))
    for name in ("encoder.down.1.downsample.conv2", "decoder.up.2.upsample.conv1"):
        tensors[f"{name}.conv3d.weight"] = torch.zeros(4, 4, 3, 1, 1)
        tensors[f"{name}.conv3d.bias"] = torch.zeros(4)
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(UsageError, match="don't show"):
        convert_cosmos(tmp_path, tmp_path / "out")
    for impossible in (Strides(8, 4), Strides(3, 8), Strides(4, 16)):
        with pytest.raises(UsageError, match="can't have a stride"):
            convert_cosmos(tmp_path, tmp_path / "out", impossible)
    assert convert_cosmos(tmp_path, tmp_path / "out", Strides(4, 8)) == CONFIG


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder.mid.attn_1.1.proj_out.conv3d.weight", None),
        ("encoder.conv_in.0.conv3d.weight", None),
        ("quant_conv.conv3d.weight", torch.zeros(6)),
        ("encoder.loss.weight", torch.zeros(3)),
        ("decoder.mid.attn_1.0.q.conv3d.weight", torch.zeros(4, 4)),
        ("decoder.conv_out.1.conv3d.bias", torch.zeros(25)),
        ("decoder.norm_out.norm.weight", torch.full((4,), torch.nan)),
        ("encoder.norm_out.norm.bias", torch.zeros(4, dtype=torch.int64)),
        ("encoder.patcher3d.wavelets", torch.ones(2)),
        ("quantizer._levels", torch.tensor([8, 8, 8, 6, 5])),
    ],
)
def test_other_tensors_are_named_and_refused(
    name: str, value: Tensor | None, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(CheckpointError) as caught:
        convert_cosmos(tmp_path, tmp_path / "out")
    assert name in caught.value.message
    assert caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_cut_files_are_refused(share: float, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = tmp_path / "model.pt"
    torch.save(tensors, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="model"):
        convert_cosmos(file, tmp_path / "out")


class Harm:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["archive", "checkpoint", "bare pickle"])
def test_code_in_files_does_not_run(form: str, tmp_path: Path) -> None:
    file, made = tmp_path / "model.jit", tmp_path / "made"
    if form == "archive":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("m/constants.pkl", b"")
            archive.writestr("m/data.pkl", pickle.dumps(Harm(made), protocol=2))
    elif form == "checkpoint":
        torch.save({"model": Harm(made)}, file)
    else:
        file.write_bytes(pickle.dumps(Harm(made)))
    with pytest.raises(CheckpointError, match=r"model\.jit") as refused:
        convert_cosmos(file, tmp_path / "out")
    assert "torch.jit.load" in refused.value.hint
    assert not made.exists()


def test_expanded_tensors_of_a_checkpoint_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    tensors["encoder.conv_in.0.conv3d.weight"] = torch.zeros(1).expand(2**31, 24, 1, 3, 3)
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="no plain tensor"):
        convert_cosmos(tmp_path, tmp_path / "out")


def test_the_command_makes_a_model_to_tokenize_with(
    tmp_path: Path, tensors: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "model.pt", tmp_path / "out"
    torch.save(tensors, source)
    assert main(["models", "convert", str(source), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["output"] == str(out)
    assert (told["temporal_stride"], told["spatial_stride"]) == (4, 8)
    assert (told["num_codes"], told["patch_size"], told["causal"]) == (64_000, 2, True)
    assert len(load_codebook(str(out)).vectors) == 64_000
    cut = ["--frames", "5", "--fps", "8", "--size", "16x16", "--num", "1"]
    shards = str(tmp_path / "shards")
    assert main(["tokenize", "shapes:train", "--model", str(out), *cut, "-o", shards]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{source}"], 2, "no output is given"),
        (["{source}", "-o", "{source}"], 2, "exists already"),
        (["{source}", "-o", "{new}", "--stride", "4x8"], 2, "'4x8' is no stride"),
        (["{source}", "-o", "{new}", "--stride", "4x8x16"], 2, "'4x8x16' is no stride"),
        (["{source}", "-o", "{new}/deep"], 1, "doesn't exist"),
        (["{new}", "-o", "{new}"], 1, "there is no file or folder"),
        ([300 * "a", "-o", "{new}"], 1, "file name too long"),
        (["{source}/..", "-o", "{new}"], 1, "not a directory"),
        (["{empty}", "-o", "{new}"], 1, "holds no Cosmos tokenizer"),
        (["{source}", "-o", "{new}"], 1, "holds no Cosmos decoder"),
    ],
)
def test_wrong_use_is_told_in_two_lines(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "encoder.pt"
    torch.save({"encoder.a": torch.zeros(1)}, source)
    empty = tmp_path / "empty"
    empty.mkdir()
    names = {"source": source, "new": tmp_path / "new", "empty": empty}
    given = [text.format(**names) for text in arguments]
    assert main(["models", "convert", *given]) == code
    error, hint = capsys.readouterr().err.splitlines()
    assert message in error
    assert hint.startswith("hint: ")
    assert not (tmp_path / "new").exists()
