"""NVIDIA's discrete video tokenizer (Cosmos DV), and the model folder that it becomes.

The networks are the same; names differ, the order of the decoder's stages, and attention, whose
1×1×1 convolutions are matrices here. NVIDIA's masks attention over time: ``causal``. Facts
from github NVIDIA/Cosmos-Tokenizer (3584ae7) and nvidia-cosmos/cosmos-predict1 (4ed35fa).
"""

import math
import os
import re
from collections.abc import Callable
from functools import reduce
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from ursa_core.bundle.folder import listed
from ursa_core.bundle.settings import BundleSettings, save_settings
from ursa_core.bundle.weights import PlainTensors, read_pickle, save_weights
from ursa_core.configs import PUBLISHED_LEVELS
from ursa_core.errors import CheckpointError, UsageError, unreadable
from ursa_core.files import whole
from ursa_core.grids import Strides
from ursa_core.places import regular_file
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

LICENCE = "NVIDIA Open Model License"
_CHECKPOINT = "model.pt"
_OF_JIT = (
    "the code in a .jit isn't run here: save its tensors where you trust it, by "
    "torch.save(torch.jit.load('autoencoder.jit').state_dict(), 'model.pt')"
)
_BUFFERS = re.compile(r"(encoder\.patcher3d|decoder\.unpatcher3d|(inv_quant\.)?quantizer)\.\w+")
_RESIZES = re.compile(
    r"(encoder\.down\.\d+\.downsample|decoder\.up\.\d+\.upsample)\.conv[123]\.conv3d\.(weight|bias)"
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NOT_OURS = "give the weights of a Cosmos DV tokenizer (discrete video), such as DV4x8x8"


def convert_cosmos(
    source: Path, folder: Path, strides: Strides | None = None
) -> VideoTokenizerConfig:
    """Write a model folder whose tokenizer is NVIDIA's, whole or not at all.

    The weights keep their precision; memory holds them twice. The source is a checkpoint
    ``model.pt``, or a folder with one. Strides are given where the weights don't have them; where
    they are needed or wrong, or the folder exists, it is a UsageError, and a CheckpointError where
    the file is damaged or holds something else.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists already", "give a new folder")
    tensors = _read_checkpoint(_file(source))
    for half in ("encoder", "decoder"):
        if not any(name.startswith(f"{half}.") for name in tensors):
            hint = f"give the whole {_CHECKPOINT}"
            raise CheckpointError(f"{source} holds no Cosmos {half}", hint)
    config, weights = convert_weights(tensors, strides)
    dtype = reduce(torch.promote_types, (value.dtype for value in weights.values()))
    with whole(folder) as part:
        save_weights(part / "vae", config.to_json(), weights, dtype)
        save_settings(part, BundleSettings(motion_prefix=False, licence=LICENCE))
    return config


def _file(source: Path) -> Path:
    if os.path.isdir(source):  # noqa: PTH112 - a Path raises where a name is too long
        if (source / _CHECKPOINT).is_file():
            return source / _CHECKPOINT
        has_jit = any(source.glob("*.jit"))
        hint = _OF_JIT if has_jit else f"give a folder with {_CHECKPOINT}"
        raise CheckpointError(f"{source} holds no Cosmos tokenizer", hint)
    hint = "give the downloaded folder"
    try:
        return regular_file(source)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file or folder {source}", hint) from error
    except OSError as error:
        raise unreadable(source, error, hint, CheckpointError) from error


def _read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint of NVIDIA's training, mapped; the averaged ones where it has them."""
    hint = _OF_JIT if file.suffix == ".jit" else "get it again"
    content = read_pickle(file, hint, mmap=True)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    content = {str(k): v for k, v in content.items()} if isinstance(content, dict) else {}
    averaged = {
        name.removeprefix("ema.network-").replace("-", "."): value
        for name, value in content.items()
        if name.startswith("ema.network-")
    }
    tensors = averaged or {name.removeprefix("network."): value for name, value in content.items()}
    return PlainTensors(tensors, file)


def convert_weights(
    tensors: dict[str, Tensor], strides: Strides | None
) -> tuple[VideoTokenizerConfig, dict[str, Tensor]]:
    """Configuration of NVIDIA's tensors, and copies of them by our names, dtypes kept."""
    _check_buffers(tensors)
    weights = {name: value for name, value in tensors.items() if not _BUFFERS.fullmatch(name)}
    config = _config(weights, strides)
    with torch.device("meta"):
        ours = VideoTokenizer(config).state_dict()
    stages = len(config.block_out_channels) - 1
    theirs = {cosmos_name(name, stages): name for name in ours}
    missing = sorted(theirs.keys() - weights.keys())
    foreign = sorted(n for n in weights.keys() - theirs.keys() if not _RESIZES.fullmatch(n))
    for names, what in ((missing, "lack"), (foreign, "have the foreign")):
        if names:
            raise CheckpointError(f"the weights {what} {listed(names)}", _NOT_OURS)
    return config, {name: _converted(n, weights[n], ours[name]) for n, name in theirs.items()}


def cosmos_name(name: str, stages: int) -> str:
    """NVIDIA's name of one of our weights, for a tokenizer of so many stages of resolution."""
    name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{stages - 1 - int(m[1])}", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    for pattern, theirs in _RENAMINGS:
        name = re.sub(pattern, theirs, name)
    return name


_RENAMINGS = (
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"down_blocks\.", "down."),
    (r"resnets\.", "block."),
    (r"(down|up)samplers\.0", r"\1sample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"group_norm", "norm"),
    (r"to_out\.0", "proj_out"),
    (r"to_([qkv])", r"\1"),
    (r"(norm\w*)\.(\w+)$", r"\1.norm.\2"),
    (r"(?<!\.norm)\.(weight|bias)$", r".conv3d.\1"),
)


def _check_buffers(tensors: dict[str, Tensor]) -> None:
    """Refuse other patches and levels than Cosmos's, where the tensors have them."""
    for name, value in tensors.items():
        numbers = value.flatten()[:7].tolist() if _BUFFERS.fullmatch(name) else []
        if name.endswith(".wavelets") and not (
            len(numbers) == 2 and all(math.isclose(n, 0.5**0.5, rel_tol=0.01) for n in numbers)
        ):
            raise CheckpointError(f"{name} is {numbers}, which makes no Haar patches", _NOT_OURS)
        if name.endswith("._levels") and tuple(numbers) != PUBLISHED_LEVELS:
            raise CheckpointError(f"{name} is {numbers}, not {list(PUBLISHED_LEVELS)}", _NOT_OURS)


def _config(weights: dict[str, Tensor], strides: Strides | None) -> VideoTokenizerConfig:
    width, channels, *_ = _shape(weights, "encoder.conv_in.0.conv3d.weight")
    patch_size = 2 ** (round(math.log2(channels / 3) / 3))
    code_width, latent_channels, *_ = _shape(weights, "quant_conv.conv3d.weight")
    first_conv = "encoder.down.{}.block.{}.conv1.0.conv3d.weight".format
    stages = _num_present(weights, lambda i: first_conv(i, 0))
    layers = _num_present(weights, lambda i: first_conv(0, i))
    if channels != 3 * patch_size**3 or code_width != len(PUBLISHED_LEVELS) or stages < 1:
        raise CheckpointError(
            f"the weights are of {channels} patch channels, {stages} stages and {code_width}"
            " numbers a code, which is no Cosmos DV tokenizer",
            _NOT_OURS,
        )
    found = _strides(weights, stages - 1, patch_size, strides)
    widths = (_shape(weights, first_conv(i, 0))[0] for i in range(stages))
    return VideoTokenizerConfig(
        block_out_channels=(width, *widths),
        layers_per_block=layers,
        latent_channels=latent_channels,
        levels=PUBLISHED_LEVELS,
        spatial_stride=found.spatial,
        temporal_stride=found.temporal,
        patch_size=patch_size,
        causal=True,
    )


def _shape(weights: dict[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in weights:
        raise CheckpointError(f"the weights lack {name}", _NOT_OURS)
    shape = tuple(weights[name].shape)
    if len(shape) != 5 or min(shape) < 1:
        raise CheckpointError(f"{name} has the shape {shape}, no convolution's", _NOT_OURS)
    return shape


def _num_present(weights: dict[str, Tensor], name: Callable[[int], str]) -> int:
    return next(i for i in count() if name(i) not in weights)


def _strides(
    weights: dict[str, Tensor], changes: int, patch_size: int, given: Strides | None
) -> Strides:
    """Strides by the convolutions at ``changes`` of resolution, or the given ones."""
    spatial, temporal = (
        _num_present(weights, f"encoder.down.{{}}.downsample.conv{kind}.conv3d.weight".format)
        for kind in (1, 2)
    )
    if spatial < changes or temporal < changes:
        found = Strides(patch_size * 2**temporal, patch_size * 2**spatial)
        if given is not None and given != found:
            fault = f"the weights are those of a stride of {_text(found)}, not {_text(given)}"
            raise UsageError(fault, "leave the stride out")
        return found
    if given is None:  # NVIDIA's first code made convolutions for all changes, used or not
        hint = "add it as in the tokenizer's name: --stride 4x8x8 for DV4x8x8"
        raise UsageError("the weights don't show the tokenizer's stride", hint)
    possible = [patch_size * 2**k for k in range(changes + 1)]
    if not {given.temporal, given.spatial} <= {*possible} or given.temporal > given.spatial:
        raise UsageError(
            f"these weights can't have a stride of {_text(given)}",
            f"give powers of two from {patch_size} to {possible[-1]}, in time at most as in space",
        )
    return given


def _text(strides: Strides) -> str:
    return f"{strides.temporal}x{strides.spatial}x{strides.spatial}"


def _converted(name: str, value: Tensor, like: Tensor) -> Tensor:
    shape = (*like.shape, 1, 1, 1) if like.ndim == 2 else tuple(like.shape)
    if value.shape != shape:
        fault = f"{name} has the shape {tuple(value.shape)}, the other weights ask for {shape}"
        raise CheckpointError(fault, _NOT_OURS)
    if value.dtype not in _FLOATS or not bool(value.isfinite().all()):
        hint = "get the file again; this one is altered or of another kind"
        raise CheckpointError(f"{name} ({value.dtype}) isn't of finite floats", hint)
    return value.reshape(like.shape).clone(memory_format=torch.contiguous_format)
