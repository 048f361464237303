"""Checkpoints of a run: folders written whole or not at all, by all its ranks, in safetensors.

Each rank writes what it holds, so that no one gathers the whole, and any number of ranks reads it:
``torch.distributed.checkpoint`` knows which part of a tensor lies where.
"""

import contextlib
import errno
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from ursa_core import files
from ursa_core.errors import CheckpointError, regular_file
from ursa_core.files import parse_object
from ursa_core.training.distributed import Ranks

FOLDER = "checkpoints"
_ABOUT = "state.json"
_WRITER = "ranks"
_FILE_BYTES = 1 << 30
"""Of a file, about: it is put together in memory."""

# One process is all there is, and meant so.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


def checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first.

    Raises:
        CheckpointError: there are only such of an earlier version.
    """
    files.sweep(run / FOLDER)
    found = [p for p in (run / FOLDER).glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    if not found and (old := sorted((run / FOLDER).glob("step-*.pt"))):
        raise CheckpointError(
            f"the checkpoint {old[-1]} is of an earlier version of ursa",
            f"start from its weights with init={run} and another -o, or start over with --fresh",
        )
    return sorted(found, key=steps_of)


def steps_of(folder: Path) -> int:
    """Steps after which a checkpoint was written."""
    return int(folder.name.removeprefix("step-"))


class CheckpointWriter:
    """Writes checkpoints and drops old ones.

    Args:
        run: folder of the run.
        ranks: that write together.
        keep: how many of the latest stay.
        keep_every: those after a multiple of so many steps stay too.
        is_async: write in a background thread, from a copy.
    """

    def __init__(
        self, run: Path, ranks: Ranks, keep: int, keep_every: int | None, is_async: bool
    ) -> None:
        self.folder, self.ranks = run / FOLDER, ranks
        self.keep, self.keep_every, self.is_async = keep, keep_every, is_async
        self._pending: tuple[Path, Future[Any]] | None = None

    def save(self, step: int, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Write what a run holds after ``step`` steps; all ranks call it.

        Raises:
            CheckpointError: this or the one before it can't be written; whole ones stay.
        """
        self.finish()
        target = self.folder / f"step-{step:07d}"
        partial = files.part_of(target, _WRITER)
        with _explained(f"the checkpoint {target} can't be written", _SPACE_HINT, partial):
            if self.ranks.is_first:
                for left in self.folder.glob(f".*.{_WRITER}.part"):  # of ranks that were killed
                    shutil.rmtree(left)
                partial.mkdir(parents=True)
                (partial / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
            self.ranks.wait()
            arguments: dict[str, Any] = {
                "storage_writer": HuggingFaceStorageWriter(
                    str(partial), _file_numbers(tensors), save_distributed=True
                ),
                "process_group": self.ranks.files,
                "no_dist": self.ranks.count == 1,
            }
            state = {name: _at_least_1d(value) for name, value in tensors.items()}
            if self.is_async:
                self._pending = target, cast(Future[Any], async_save(state, **arguments))
                return
            save(state, **arguments)
        self._publish(partial, target)

    def poll(self) -> None:
        """Make a checkpoint known that has been written in the background meanwhile."""
        if self._pending is not None and self._pending[1].done():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            CheckpointError: it can't be written; earlier ones stay.
        """
        if self._pending is None:
            return
        (target, future), self._pending = self._pending, None
        partial = files.part_of(target, _WRITER)
        with _explained(f"the checkpoint {target} can't be written", _SPACE_HINT, partial):
            future.result()
        self._publish(partial, target)

    def _publish(self, partial: Path, target: Path) -> None:
        if not self.ranks.is_first:
            return
        files.put(partial, target)  # one of the same step a run left that was to save once more
        whole = checkpoints(self.folder.parent)
        for old in whole[: -self.keep]:
            if not self.keep_every or steps_of(old) % self.keep_every:
                files.discard(old)


def read_about(folder: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors.

    Raises:
        CheckpointError: it is damaged.
    """
    with _explained(f"the checkpoint {folder} can't be read", _DAMAGE_HINT):
        return parse_object(regular_file(folder / _ABOUT).read_text(encoding="utf-8"))


def load_checkpoint_(folder: Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Fill tensors, whole or sharded, with those of a checkpoint; all ranks call it.

    Raises:
        CheckpointError: it is damaged, or has other tensors.
    """
    with _explained(f"the checkpoint {folder} can't be read", _DAMAGE_HINT):
        load(
            {name: _at_least_1d(value) for name, value in tensors.items()},
            storage_reader=HuggingFaceStorageReader(str(folder)),
            process_group=ranks.files,
            no_dist=ranks.count == 1,
        )


def discard_run(run: Path) -> None:
    """Forget the checkpoints and records of a run."""
    for name in (FOLDER, "samples"):
        shutil.rmtree(run / name, ignore_errors=True)
    (run / "metrics.jsonl").unlink(missing_ok=True)


_SPACE_HINT = (
    "free some space and run the same command again; it continues from the last checkpoint"
)
_DAMAGE_HINT = "delete it to continue from the one before, or start over with --fresh"


@contextlib.contextmanager
def _explained(message: str, hint: str, partial: Path | None = None) -> Iterator[None]:
    """Any failure to write or read as a CheckpointError, with what was begun taken away."""
    try:
        yield
    except (CheckpointException, OSError, RuntimeError, ValueError, SafetensorError) as error:
        cause: BaseException = error
        if isinstance(error, CheckpointException):
            cause = next(iter(error.failures.values()))[0]
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        is_full = getattr(cause, "errno", 0) in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if is_full else (str(cause).splitlines() or ["?"])[0]
        raise CheckpointError(f"{message}: {reason}", hint) from error


def _at_least_1d(tensor: Tensor) -> Tensor:
    """The same memory, with a dimension: parts of a file are told by their offsets."""
    return tensor.view(1) if tensor.ndim == 0 else tensor


def _file_numbers(tensors: dict[str, Tensor]) -> dict[str, int]:
    """The file, from 1, of each tensor."""
    numbers, size = {}, 0
    for name, tensor in tensors.items():
        numbers[name] = 1 + size // _FILE_BYTES
        size += tensor.numel() * tensor.element_size()
    return numbers
