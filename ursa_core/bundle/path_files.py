"""The ``scheduler/`` folder of a model: its probability path, and the codebook of its training.

Paths themselves know no files; the published models keep their codebook in a pickle, of which
tensors alone are read.
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ursa_core.bundle.folder import opened, write_json
from ursa_core.bundle.settings import PathConfig
from ursa_core.bundle.weights import save_tensors
from ursa_core.configs import SCHEDULER_CLASS, read_config
from ursa_core.errors import CheckpointError, UsageError, regular_file

if TYPE_CHECKING:
    from ursa_core.path.base import Path as ProbabilityPath

CODEBOOK = "scheduler_model.safetensors"
PICKLED_CODEBOOK = "scheduler_model.pth"
CODEBOOK_KEY = "path.emb"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_path(folder: Path, path: "ProbabilityPath", codebook: Tensor, shift: float) -> None:
    """Write a path and its codebook.

    Args:
        folder: of the scheduler.
        path: to write.
        codebook: float (K, C) vectors of the codes.
        shift: time shift of the steps.
    """
    write_json(folder / "scheduler_config.json", path_to_json(path, shift))
    save_tensors(folder / CODEBOOK, {CODEBOOK_KEY: codebook.cpu().float().contiguous()})


def stored_codebook(folder: Path, expected: Tensor) -> Tensor:
    """The codebook that a path was trained with: the one stored beside it, else the tokenizer's.

    The published models store theirs in float16; their paths have seen that rounding.

    Args:
        folder: of the scheduler.
        expected: float32 (K, C) vectors of the tokenizer's codes.

    Returns:
        float32 (K, C), on the device of ``expected``.

    Raises:
        CheckpointError: the stored one is damaged or another.
    """
    found = _read_codebook(folder)
    if found is None:
        return expected
    file, stored = found
    tolerance = 2.0**-8  # that of bfloat16, the coarsest that a codebook may be stored in
    scale = float(expected.abs().max())
    # Shape and type first: a few bytes can stand for a tensor of any size.
    is_alike = stored.shape == expected.shape and stored.dtype in _FLOATS
    if is_alike:
        stored = stored.to(expected)
        is_alike = torch.allclose(stored, expected, rtol=tolerance, atol=tolerance * scale)
    if not is_alike:
        raise CheckpointError(
            f"{file} holds another codebook than the tokenizer's", "use the parts of one model"
        )
    return stored


def _read_codebook(folder: Path) -> tuple[Path, Tensor] | None:
    """The file of a stored codebook and the tensor in it, if there is one."""
    file = folder / CODEBOOK
    try:
        if file.exists():
            with opened(file) as tensors:
                return file, tensors.get_tensor(CODEBOOK_KEY)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is damaged: {error}", "get the model anew") from error
    file = folder / PICKLED_CODEBOOK
    if not file.exists():
        return None
    try:
        content = torch.load(regular_file(file), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles surface as many kinds
        raise CheckpointError(
            f"{file} can't be read: it is damaged, or holds more than tensors",
            "get the model anew, from a source that you trust",
        ) from error
    stored = content.get(CODEBOOK_KEY) if isinstance(content, dict) else None
    if not isinstance(stored, Tensor) or stored.layout != torch.strided:
        raise CheckpointError(f"{file} has no tensor {CODEBOOK_KEY}", "get the model anew")
    return file, stored.detach()


def path_to_json(path: "ProbabilityPath", shift: float) -> dict[str, Any]:
    """The published ``scheduler_config.json``; alpha is null where the path has none."""
    from ursa_core.path.masked import MaskedPath
    from ursa_core.path.metric import MetricPath
    from ursa_core.path.schedules import LinearSchedule, PowerSchedule

    config: dict[str, Any] = {
        "_class_name": SCHEDULER_CLASS,
        "alpha": None,
        "c": None,
        "eps": 1e-5,
        "shift": shift,
    }
    schedule = path.schedule if isinstance(path, MetricPath) else None
    if isinstance(schedule, PowerSchedule):
        return {**config, **asdict(schedule)}
    if isinstance(schedule, LinearSchedule):
        return {**config, "path": "linear", "schedule": asdict(schedule)}
    return {**config, "path": "masked"} if isinstance(path, MaskedPath) else config


def build_path(config: dict[str, Any], codebook: Tensor) -> "ProbabilityPath":
    """The probability path that a ``scheduler_config.json`` describes.

    A linear path without a ``schedule`` gets the one that its codebook asks for.

    Raises:
        CheckpointError: alpha, c or the schedule can't shape a path.
    """
    from ursa_core.path.calibration import distance_curve
    from ursa_core.path.masked import MaskedPath
    from ursa_core.path.metric import MetricPath
    from ursa_core.path.mixture import MixturePath
    from ursa_core.path.schedules import LinearSchedule, PowerSchedule

    found = read_config(PathConfig, config, "scheduler_config.json")
    kind, alpha, c = found.kind, found.alpha, found.c
    if kind == "masked":
        return MaskedPath(len(codebook))
    try:
        if kind == "linear" and config.get("schedule") is None:
            return MetricPath(codebook, LinearSchedule.of(distance_curve(codebook)))
        if kind == "linear":
            table = {name: tuple(map(float, v)) for name, v in config["schedule"].items()}
            return MetricPath(codebook, LinearSchedule(**table))
        if alpha is None or kind == "mixture":
            return MixturePath(len(codebook))
        return MetricPath(codebook, PowerSchedule(alpha, math.nan if c is None else c))
    except (UsageError, TypeError, ValueError, AttributeError) as error:
        what = "schedule" if kind == "linear" else f"alpha {alpha!r} and c {c!r}"
        raise CheckpointError(
            f"scheduler_config.json: its {what} can't shape a path",
            "give numbers above 0, as 1.0 and 5.0, or get the model anew",
        ) from error
