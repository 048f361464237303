"""Models of a run's checkpoints, made when ``--model RUN/checkpoints/step-N`` first asks."""

import re
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ursa_core.bundle.folder import PARTS, WEIGHTS, copy_files, file_names, opened
from ursa_core.bundle.weights import save_tensors
from ursa_core.errors import CheckpointError
from ursa_core.files import whole

_KINDS = {"average": "ema.", "weights": "model."}
"""Prefix of tensors in a checkpoint by the folder's name inside it."""


def checkpoint_model(path: Path) -> Path | None:
    """Model folder of a checkpoint; None for paths of anything else.

    ``step-N``, or ``average`` in it, has the averaged weights, and ``weights`` those of that step.
    A checkpoint that is damaged, or of an adapter, is a CheckpointError.
    """
    folder, kind = (path.parent, path.name) if path.name in _KINDS else (path, "average")
    is_step = re.fullmatch(r"step-\d+", folder.name) and folder.parent.name == "checkpoints"
    if not (is_step and (folder / "state.json").is_file()):
        return None
    run, target = folder.parents[1], folder / kind
    part = next((name for name in ("transformer", "vae") if (run / name / WEIGHTS).is_file()), None)
    if part is None:
        raise CheckpointError(
            f"{run} holds no model, which its checkpoint {folder.name} would be one of",
            "give a run that trained whole weights; an adapter is given as --lora RUN",
        )
    if not target.is_dir():
        with opened(run / part / WEIGHTS) as tensors:
            state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        state |= _read(folder, _KINDS[kind], state)
        with whole(target) as made:
            own = (*PARTS, "ursa.json", "model_index.json", "subjects.json")
            names = [name for name in file_names(run) if name.partition("/")[0] in own]
            copy_files({name: run / name for name in names}, made)
            save_tensors(made / part / WEIGHTS, state)
    return target


def _read(folder: Path, prefix: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a checkpoint that the run trained, whole even if ranks wrote parts of them."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        reader = HuggingFaceStorageReader(str(folder))
        names = [n for n in like if prefix + n in reader.read_metadata().state_dict_metadata]
        found = {prefix + name: torch.empty(like[name].shape) for name in names}
        with warnings.catch_warnings(action="ignore"):  # that this is one process
            load(found, storage_reader=reader, no_dist=True)
    except (CheckpointException, OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {folder} can't be read", "it is damaged: give another one"
        ) from error
    return {name: found[prefix + name].to(like[name].dtype) for name in names}
