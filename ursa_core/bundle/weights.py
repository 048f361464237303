"""Weights of a model folder: safetensors, read into a network tensor by tensor, and written."""

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ursa_core.bundle.folder import WEIGHTS, opened, read_index, write_json
from ursa_core.configs import index_of, is_pointer, unusable, way_out
from ursa_core.errors import CheckpointError, unreadable
from ursa_core.files import whole
from ursa_core.places import regular_file

_FLOATS = ("F16", "BF16", "F32", "F64")
_ADVICE = "get the file as .safetensors, or from a source that you trust"
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of tensor names that DataParallel and compiled models add."""


def load_weights(
    model: nn.Module,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    change: Callable[[str, Tensor], Tensor] = lambda _, weight: weight,
) -> None:
    """Give a model the safetensors weights of a folder, one file or shards with an index.

    Names and shapes are checked before anything is read. The tensors then replace those of the
    model, which is best built under ``torch.device("meta")``, one after the other, so that memory
    never holds two copies. ``change`` gives from a weight's name and value the one to take. What is
    missing, damaged, foreign, of another shape, no plain float or not finite is a CheckpointError.
    """
    files = weight_files(folder)
    check_tensors({name: tuple(v.shape) for name, v in model.state_dict().items()}, folder, files)
    state: dict[str, Tensor] = {}
    for name, file in files.items():
        # A mapped file keeps the pages that were read until it is closed: open it per tensor.
        with opened(file) as tensors:
            weight = change(name, tensors.get_tensor(name))
            state[name] = weight.to(device, dtype, copy=True)
        if not all(map(math.isfinite, torch.stack(state[name].aminmax()).tolist())):
            fault = f"{folder}: {name} holds numbers that aren't finite in {str(dtype)[6:]}"
            raise CheckpointError(fault, "get the model again; its weights are damaged")
    model.load_state_dict(state, assign=True)
    model.to(device)


def check_depth(folder: Path, file: str, key: str, layers: int, times: int = 1) -> None:
    """Refuse, with a CheckpointError, more layers, ``times`` over, than tensors, before a build."""
    most = len(weight_files(folder)) // times
    if layers > most:
        raise unusable(file, key, layers, f"at most {most}, by the number of its tensors")


def weight_files(folder: Path, weights: str = WEIGHTS) -> dict[str, Path]:
    """The file of each tensor in a folder, by headers; CheckpointError if its index differs."""
    index = folder / index_of(weights)
    mapped = read_index(index) if index.exists() else None
    found: dict[str, Path] = {}
    for file_name in sorted(set(mapped.values())) if mapped else [weights]:
        file = folder / file_name
        with opened(file) as tensors:
            found.update(dict.fromkeys(tensors.keys(), file))
    if mapped is not None:
        for name in sorted(mapped.keys() | found.keys()):
            if name not in found or mapped.get(name) != found[name].name:
                fault = f"{index} and the files that it lists differ about the tensor {name}"
                raise CheckpointError(fault, "get the model again; its files are of two versions")
    return found


def check_tensors(
    expected: dict[str, tuple[int, ...]], folder: Path, files: dict[str, Path]
) -> None:
    """Refuse, with a CheckpointError, weights of others than a model's names, shapes and floats.

    ``expected`` are shapes by name, ``files`` the files of tensors, whose headers are read.
    """
    for name in sorted(expected.keys() ^ files.keys()):
        what = "lacks the tensor" if name in expected else "has the foreign tensor"
        hint = "its config.json describes another model"
        for wrapper in WRAPPERS[::-1]:
            if any(key.startswith(wrapper) for key in files):
                hint = f"ursa models convert takes off the {wrapper!r} that a training's wrapper"
                hint += " puts before names"
        raise CheckpointError(f"{folder} {what} {name}", hint)
    for file in sorted(set(files.values())):
        with opened(file) as tensors:
            for name in (name for name, home in files.items() if home == file):
                header = tensors.get_slice(name)
                shape, wanted = tuple(header.get_shape()), expected[name]
                if shape != wanted:
                    raise CheckpointError(
                        f"{folder}: {name} has shape {shape}, its config.json asks for {wanted}",
                        "use the config.json that belongs to these weights",
                    )
                if header.get_dtype() not in _FLOATS:
                    fault = f"{folder}: {name} is stored as {header.get_dtype()}"
                    raise CheckpointError(fault, f"get the model in one of {', '.join(_FLOATS)}")


def read_pickle(file: Path, hint: str, *, mmap: bool = False) -> Any:
    """Content of a pickle, on the CPU; CheckpointError if damaged or more than tensors."""
    try:
        return torch.load(regular_file(file), map_location="cpu", weights_only=True, mmap=mmap)
    except OSError as error:
        raise unreadable(file, error, hint, CheckpointError) from error
    except Exception as error:  # damaged pickles raise many kinds
        fault = f"{file} can't be read: it is damaged, or holds more than tensors"
        raise CheckpointError(fault, way_out(file) if is_pointer(file) else hint) from error


class PlainTensors(dict[str, Tensor]):
    """Tensors by name out of a file's pickle; CheckpointError if it holds something else."""

    def __init__(self, content: object, file: Path, advice: str = _ADVICE) -> None:
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise CheckpointError(f"{file} holds no tensors by name", advice)
        for name, value in content.items():
            is_plain = (
                isinstance(value, Tensor)
                and value.layout == torch.strided
                and value.device.type == "cpu"
                and not value.is_quantized
                and value.numel() * value.itemsize <= value.untyped_storage().nbytes()
            )
            if not is_plain:
                raise CheckpointError(f"{file}: {name} is no plain tensor", advice)
        super().__init__(content)

    def get_tensor(self, name: str) -> Tensor:
        """A tensor by name."""
        return self[name].detach()


def read_tensors(file: Path) -> PlainTensors:
    """Tensors of a pickled file, mapped; CheckpointError if it is damaged or holds more."""
    hint = "get it again as .safetensors, from a source that you trust"
    return PlainTensors(read_pickle(file, hint, mmap=zipfile.is_zipfile(file)), file)


def save_weights(
    folder: Path, config: dict[str, Any], weights: dict[str, Tensor], dtype: torch.dtype | None
) -> None:
    """Write ``config.json`` and the weights, in a number format or their own; each file whole."""
    save_tensors(folder / WEIGHTS, weights, dtype)
    write_json(folder / "config.json", config)


def save_tensors(
    file: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> None:
    """Write a safetensors file, whole or not at all, readable by all."""
    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as part:
        try:
            save_file(state, part, {"format": "pt"})
        except SafetensorError as error:  # which gives the system's number in its text alone
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error
        part.chmod(0o644)
