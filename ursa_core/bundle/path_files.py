"""The ``scheduler/`` folder of a model: its probability path, and the codebook of its training."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ursa_core.bundle.folder import opened
from ursa_core.bundle.settings import PathConfig
from ursa_core.bundle.weights import read_pickle
from ursa_core.configs import SCHEDULER_CLASS, read_config
from ursa_core.errors import CheckpointError, UsageError
from ursa_core.path.base import ProbPath
from ursa_core.path.calibration import distance_curve
from ursa_core.path.metric import MetricPath
from ursa_core.path.mixture import MaskedPath, MixturePath
from ursa_core.path.schedules import LinearSchedule, PowerSchedule

CODEBOOK = "scheduler_model.safetensors"
PICKLED_CODEBOOK = "scheduler_model.pth"
CODEBOOK_KEY = "path.emb"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def stored_codebook(folder: Path, expected: Tensor) -> Tensor:
    """The codebook float32 (K, C) of a path: the one stored in its folder, or the tokenizer's.

    The published models store theirs in float16, and their paths were trained with that rounding.
    ``expected`` is the tokenizer's, on whose device the stored one comes. Another codebook, or a
    damaged one, is a CheckpointError.
    """
    file, pickled = folder / CODEBOOK, folder / PICKLED_CODEBOOK
    if file.exists():
        with opened(file) as tensors:
            stored = tensors.get_tensor(CODEBOOK_KEY)
    elif pickled.exists():
        file = pickled
        content = read_pickle(file, "download the model again, from a source that you trust")
        stored = content.get(CODEBOOK_KEY) if isinstance(content, dict) else None
        if not isinstance(stored, Tensor) or stored.layout != torch.strided:
            what = f"{file} has no tensor {CODEBOOK_KEY}"
            raise CheckpointError(what, "download the model again")
        stored = stored.detach()
    else:
        return expected
    tolerance = 2.0**-8  # of bfloat16, the coarsest format that a codebook may be stored in
    scale = float(expected.abs().max())
    # Shape and type first: a few bytes can stand for a tensor of any size.
    is_same = stored.shape == expected.shape and stored.dtype in _FLOATS
    if is_same:
        stored = stored.to(expected)
        is_same = torch.allclose(stored, expected, rtol=tolerance, atol=tolerance * scale)
    if not is_same:
        hint = "use the parts of one model"
        raise CheckpointError(f"{file} holds another codebook than the tokenizer's", hint)
    return stored


def path_to_json(path: ProbPath, shift: float) -> dict[str, Any]:
    """Content of ``scheduler_config.json``; alpha is null where the path has none."""
    config: dict[str, Any] = {"_class_name": SCHEDULER_CLASS, "alpha": None, "c": None}
    config |= {"eps": 1e-5, "shift": shift}
    schedule = path.schedule if isinstance(path, MetricPath) else None
    if isinstance(schedule, PowerSchedule):
        return {**config, **asdict(schedule)}
    if isinstance(schedule, LinearSchedule):
        return {**config, "path": "linear", "schedule": asdict(schedule)}
    return {**config, "path": "masked"} if isinstance(path, MaskedPath) else config


def make_path(kind: str, codebook: Tensor, alpha: float | None, c: float | None) -> ProbPath:
    """A new ``metric``, ``linear``, ``mixture`` or ``masked`` path over a codebook float (K, C).

    A linear one takes the schedule that its codebook asks for; alpha and c shape a metric one,
    and are a UsageError if they can't.
    """
    if kind == "masked":
        return MaskedPath(len(codebook))
    if kind == "mixture":
        return MixturePath(len(codebook))
    if kind == "linear":
        return MetricPath(codebook, LinearSchedule.of(distance_curve(codebook)))
    alpha, c = (math.nan if value is None else value for value in (alpha, c))
    return MetricPath(codebook, PowerSchedule(alpha, c))


def build_path(config: dict[str, Any], codebook: Tensor) -> ProbPath:
    """The path of a ``scheduler_config.json``; CheckpointError if its numbers can't shape one."""
    found = read_config(PathConfig, config, "scheduler_config.json")
    schedule = config.get("schedule") if found.kind == "linear" else None
    try:
        if schedule is not None:
            table = {name: tuple(map(float, values)) for name, values in schedule.items()}
            return MetricPath(codebook, LinearSchedule(**table))
        kind = "mixture" if found.kind == "metric" and found.alpha is None else found.kind
        return make_path(kind, codebook, found.alpha, found.c)
    except (UsageError, TypeError, ValueError, AttributeError) as error:
        numbers = f"alpha {found.alpha!r} and c {found.c!r}"
        what = "schedule" if found.kind == "linear" else numbers
        raise CheckpointError(
            f"scheduler_config.json: its {what} can't shape a path",
            "give numbers above 0, as 1.0 and 5.0, or download the model again",
        ) from error
