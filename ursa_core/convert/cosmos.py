"""NVIDIA's Cosmos tokenizer files, and the model folder with a tokenizer that they become."""

import os
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from ursa_core.bundle.settings import BundleSettings, save_settings
from ursa_core.bundle.weights import PlainTensors, read_pickle, save_weights
from ursa_core.convert.cosmos_weights import convert_weights
from ursa_core.convert.torchscript import is_torchscript, read_torchscript
from ursa_core.errors import CheckpointError, UsageError, regular_file, unreadable
from ursa_core.files import whole
from ursa_core.grids import Strides
from ursa_core.tokenizers.video_fsq import VideoTokenizerConfig

LICENCE = "NVIDIA Open Model License"
_WHOLE, _HALVES, _CHECKPOINT = "autoencoder.jit", ("encoder.jit", "decoder.jit"), "model.pt"


def convert_cosmos(
    source: Path, folder: Path, strides: Strides | None = None
) -> VideoTokenizerConfig:
    """Write a model folder whose tokenizer is NVIDIA's, whole or not at all.

    The weights keep their precision. Memory holds them twice. The source is ``autoencoder.jit``, a
    checkpoint ``model.pt``, or a folder with one of them or with ``encoder.jit`` and
    ``decoder.jit``. Strides are given where the weights don't have them.

    Raises:
        CheckpointError: The files are missing or damaged, or hold something else.
        UsageError: The folder exists, or the strides are needed or wrong.
        DataError: The folder can't be written.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists already", "give a new folder")
    tensors: dict[str, Tensor] = {}
    for file in _files(source):
        tensors |= read_torchscript(file) if is_torchscript(file) else _read_checkpoint(file)
    for half in ("encoder", "decoder"):
        if not any(name.startswith(f"{half}.") for name in tensors):
            raise CheckpointError(
                f"{source} holds no Cosmos {half}",
                f"give {_WHOLE}, or the folder that {' and '.join(_HALVES)} lie in",
            )
    config, weights = convert_weights(tensors, strides)
    dtype = reduce(torch.promote_types, (value.dtype for value in weights.values()))
    with whole(folder) as part:
        save_weights(part / "vae", config.to_json(), weights, dtype)
        save_settings(part, BundleSettings(motion_prefix=False, licence=LICENCE))
    return config


def _files(source: Path) -> list[Path]:
    """The files to read: those of a folder that make a whole tokenizer."""
    if os.path.isdir(source):  # noqa: PTH112 - a Path raises where a name is too long
        for names in ((_WHOLE,), _HALVES, (_CHECKPOINT,)):
            files = [source / name for name in names]
            if all(file.is_file() for file in files):
                return files
        raise CheckpointError(
            f"{source} holds no Cosmos tokenizer",
            f"give a folder with {_WHOLE}, {' and '.join(_HALVES)}, or {_CHECKPOINT}",
        )
    hint = "give the downloaded folder"
    try:
        return [regular_file(source)]
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file or folder {source}", hint) from error
    except OSError as error:
        raise unreadable(source, error, hint, CheckpointError) from error


def _read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint of NVIDIA's training, mapped; the averaged ones where it has them."""
    content = read_pickle(file, f"get it again, or use {_WHOLE}", mmap=True)
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
