"""Models of a run's checkpoints, made when ``--model RUN/checkpoints/step-N`` first asks."""

import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from ursa_core.bundle.folder import PARTS, WEIGHTS, file_names, opened
from ursa_core.bundle.weights import save_tensors
from ursa_core.errors import CheckpointError
from ursa_core.files import whole

_KINDS = {"average": "ema.", "weights": "model."}
"""Prefix of tensors in a checkpoint by the folder's name inside it."""


def checkpoint_model(path: Path) -> Path | None:
    """Model folder of a checkpoint; None for paths of anything else.

    ``step-N``, or ``average`` in it, has the averaged weights, and ``weights`` those of that step.

    Raises:
        CheckpointError: It is damaged, or of an adapter.
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
            names = tensors.keys()
            state = {name: tensors.get_tensor(name) for name in names}
        read = _read(folder, _KINDS[kind])
        state = {name: read.get(name, own).to(own.dtype) for name, own in state.items()}
        with whole(target) as made:
            for name in map(Path, file_names(run)):
                if name.parts[0] in (*PARTS, "ursa.json", "model_index.json", "subjects.json"):
                    (made / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(run / name, made / name)
            save_tensors(made / part / WEIGHTS, state)
    return target


def _read(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint, whole even if ranks wrote parts of them, without their prefix."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        reader = HuggingFaceStorageReader(str(folder))
        stored = reader.read_metadata().state_dict_metadata
        state = {
            name: torch.empty(about.size, dtype=about.properties.dtype)
            for name, about in stored.items()
            if name.startswith(prefix) and isinstance(about, TensorStorageMetadata)
        }
        load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except (CheckpointException, OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {folder} can't be read", "it is damaged: give another one"
        ) from error
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
