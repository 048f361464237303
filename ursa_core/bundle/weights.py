"""Weights of a model folder: safetensors, read into a network tensor by tensor, and written."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ursa_core.bundle.folder import WEIGHTS, read_json, write_json
from ursa_core.configs import index_of, unusable, way_out
from ursa_core.errors import CheckpointError, regular_file, unreadable
from ursa_core.files import whole

_FLOATS = ("F16", "BF16", "F32", "F64")
_WRAPPERS = ("module.", "_orig_mod.")
"""Before the names of tensors that were saved from DataParallel, or a compiled model."""
_FILE_NAME = re.compile(r"[\w.-]+\.safetensors")


def load_weights(
    model: nn.Module,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> None:
    """Give a model the safetensors weights of a folder, one file or shards with an index.

    Nothing is read before names and shapes are known to fit. The tensors then replace those of
    the model one after the other, so that memory holds one copy of them and no more.

    Args:
        model: best built under ``torch.device("meta")``, where it takes no memory.
        folder: with the weights.
        device: that the weights, and all other buffers of the model, end on.
        dtype: of the weights.
        change: what becomes of a weight as it is read, by its name.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, foreign, of another
            shape, no plain float or not finite.
    """
    files = check_weights(model, folder)
    state: dict[str, Tensor] = {}
    for name, file in files.items():
        # A mapped file keeps the pages that were read until it is closed, hence one opening each.
        with opened(file) as tensors:
            weight = tensors.get_tensor(name)
            weight = weight if change is None else change(name, weight)
            state[name] = weight.to(device, dtype, copy=True)
        if not all(map(math.isfinite, torch.stack(state[name].aminmax()).tolist())):
            raise CheckpointError(
                f"{folder}: {name} holds numbers that aren't finite in {str(dtype)[6:]}",
                "get the model anew; its weights are damaged",
            )
    model.load_state_dict(state, assign=True)
    model.to(device)


def check_depth(folder: Path, file: str, key: str, layers: int, times: int = 1) -> None:
    """Refuse a config with more layers than there are tensors, before a network is built of it.

    Building takes time for each layer, even where it takes no memory.

    Args:
        folder: With the weights.
        file: Config, for messages.
        key: Name of its number of layers.
        layers: That number.
        times: How often so many are built.

    Raises:
        CheckpointError: There are fewer tensors, or a file is missing or damaged.
    """
    most = len(weight_files(folder)) // times
    if layers > most:
        raise unusable(file, key, layers, f"at most {most}, by the number of its tensors")


def check_weights(model: nn.Module, folder: Path) -> dict[str, Path]:
    """The file of each of a model's tensors in a folder, whose names and shapes are known to fit.

    Args:
        model: Best built under ``torch.device("meta")``.
        folder: With the weights.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, foreign, of another
            shape or no plain float.
    """
    files = weight_files(folder)
    check_tensors({name: tuple(v.shape) for name, v in model.state_dict().items()}, folder, files)
    return files


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A safetensors file, mapped.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with safe_open(regular_file(file), "pt") as tensors:
            yield tensors
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing", way_out(file)) from error
    except OSError as error:
        raise unreadable(file, error, way_out(file), CheckpointError) from error
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged: {error}", way_out(file)) from error


def weight_files(folder: Path, weights: str = WEIGHTS) -> dict[str, Path]:
    """The file of each tensor in a folder, by the headers of the files.

    Args:
        folder: with the weights.
        weights: name of their file; shards are listed by the index of that name.

    Raises:
        CheckpointError: a file is missing or damaged, or isn't what the index says.
    """
    index = folder / index_of(weights)
    mapped = _read_index(index) if index.exists() else None
    found: dict[str, Path] = {}
    for file_name in sorted(set(mapped.values())) if mapped else [weights]:
        file = folder / file_name
        with opened(file) as tensors:
            found.update(dict.fromkeys(tensors.keys(), file))
    if mapped is not None:
        for name in sorted(mapped.keys() | found.keys()):
            if name not in found or mapped.get(name) != found[name].name:
                raise CheckpointError(
                    f"{index} and the files that it lists differ about the tensor {name}",
                    "get the model anew; its files are of two versions",
                )
    return found


def _read_index(file: Path) -> dict[str, str]:
    """The file name of each tensor that an index lists; plain names of the same folder only."""
    mapped = read_json(file).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise CheckpointError(f"{file} has no weight_map", "get the model anew")
    for name in mapped.values():
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise CheckpointError(
                f"{file} names {name!r}, which is no safetensors file of the same folder",
                "don't use this model; get it anew from a source that you trust",
            )
    return mapped


def check_tensors(
    expected: dict[str, tuple[int, ...]], folder: Path, files: dict[str, Path]
) -> None:
    """Refuse weights that aren't those of a model, by the headers of their files.

    Args:
        expected: shapes of the model's tensors by name.
        folder: with the weights, for messages.
        files: the file of each tensor.

    Raises:
        CheckpointError: a tensor is missing, foreign, of another shape or no plain float.
    """
    for name in sorted(expected.keys() ^ files.keys()):
        what = "lacks the tensor" if name in expected else "has the foreign tensor"
        raise CheckpointError(f"{folder} {what} {name}", _hint_of(files))
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
                    raise CheckpointError(
                        f"{folder}: {name} is stored as {header.get_dtype()}",
                        f"get the model in one of {', '.join(_FLOATS)}",
                    )


def _hint_of(names: Iterable[str]) -> str:
    """What may be the matter with names that aren't those of a model."""
    prefix = next((p for p in _WRAPPERS if any(name.startswith(p) for name in names)), None)
    if prefix is None:
        return "its config.json describes another model"
    return f"save the model anew without the {prefix!r} that a training's wrapper puts before names"


def save_weights(
    folder: Path, config: dict[str, Any], weights: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """Write ``config.json`` and the weights, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()}
    save_tensors(folder / WEIGHTS, state)
    write_json(folder / "config.json", config)


def save_tensors(file: Path, state: dict[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all, readable by all."""
    with whole(file) as part:
        try:
            save_file(state, part, {"format": "pt"})
        except SafetensorError as error:  # which tells the system's number in its text alone
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error
        part.chmod(0o644)
