"""Checkpoints of a run: written whole or not at all, the newest ones kept."""

import errno
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from ursa_core.errors import CheckpointError

FOLDER = "checkpoints"


def checkpoint_files(run: Path) -> list[Path]:
    """Checkpoint files of a run, oldest first."""
    found = [p for p in (run / FOLDER).glob("step-*.pt") if re.fullmatch(r"step-\d+", p.stem)]
    return sorted(found, key=lambda p: int(p.stem.removeprefix("step-")))


def save_checkpoint(run: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write ``state`` after ``step`` steps and drop all but the newest ``keep`` files.

    Raises:
        CheckpointError: the disk is full or the folder can't be written; older files stay.
    """
    target = run / FOLDER / f"step-{step:07d}.pt"
    partial = target.with_suffix(".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        partial.replace(target)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        cause = "the disk is full" if getattr(error, "errno", 0) == errno.ENOSPC else str(error)
        raise CheckpointError(
            f"the checkpoint {target} can't be written: {cause}",
            "free some space and run the same command again; it continues from the last checkpoint",
        ) from error
    for old in checkpoint_files(run)[:-keep]:
        old.unlink()
    return target


def load_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, tensors and plain values only.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint {file} can't be read: {str(error).splitlines()[0]}",
            "delete it to continue from the one before, or start over with --fresh",
        ) from error
    return state


def discard_run(run: Path) -> None:
    """Forget the checkpoints and records of a run."""
    for name in (FOLDER, "samples"):
        shutil.rmtree(run / name, ignore_errors=True)
    (run / "metrics.jsonl").unlink(missing_ok=True)
