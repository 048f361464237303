"""Checkpoints of a run: folders of safetensors, which any number of ranks can read."""

import contextlib
import errno
import json
import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter as StorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from ursa_core import files
from ursa_core.errors import CheckpointError
from ursa_core.files import parse_object
from ursa_core.places import regular_file
from ursa_core.recipe.fields import Recipe
from ursa_core.recipe.loading import differing_keys, may_change
from ursa_core.training.distributed import Ranks
from ursa_core.training.learner import Learner

FOLDER = "checkpoints"
_ABOUT = "state.json"
_NEEDED = {"step": int, "seconds": int | float, "guard": dict, "recipe": dict}
_WRITER = "ranks"
_FILE_BYTES = 1 << 30  # approximate size of a file, which is assembled in memory

# The errors say what is wrong with a checkpoint.
logging.getLogger("torch.distributed.checkpoint").setLevel(logging.CRITICAL)
# Training in a single process is intended.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


def checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    files.sweep(run / FOLDER)
    found = [p for p in (run / FOLDER).glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(found, key=steps_of)


def steps_of(folder: Path) -> int:
    """Number of steps done before a checkpoint."""
    return int(folder.name.removeprefix("step-"))


class CheckpointWriter:
    """Writes checkpoints, whole or not at all, of all ranks together, and deletes old ones.

    The ``keep`` latest ones stay, and those after a multiple of ``keep_every`` steps; with
    ``is_async`` a background thread writes, from a copy.
    """

    def __init__(
        self, run: Path, ranks: Ranks, keep: int, keep_every: int | None, is_async: bool
    ) -> None:
        self.folder, self.ranks = run / FOLDER, ranks
        self.keep, self.keep_every, self.is_async = keep, keep_every, is_async
        self._pending: tuple[Path, Future[Any]] | None = None

    def save(self, step: int, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Write the state after ``step`` steps; all ranks have to call this.

        If this or the previous one can't be written, others stay, and it is a CheckpointError.
        """
        self.finish()
        target = self.folder / f"step-{step:07d}"
        partial = files.part_of(target, _WRITER)
        with _explained("written", target, _SPACE_HINT, partial):
            if self.ranks.is_first:
                for left in self.folder.glob(f".*.{_WRITER}.part"):  # of killed ranks
                    shutil.rmtree(left)
                partial.mkdir(parents=True)
                (partial / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
            self.ranks.wait()
            numbers = _FileNumbers(tensors)
            arguments: dict[str, Any] = {
                "storage_writer": StorageWriter(str(partial), numbers, save_distributed=True),
                "process_group": self.ranks.files,
                "no_dist": self.ranks.count == 1,
            }
            state = _at_least_1d(tensors)
            if self.is_async:
                self._pending = target, cast(Future[Any], async_save(state, **arguments))
                return
            save(state, **arguments)
        self._publish(partial, target)

    def poll(self) -> None:
        """Publish the checkpoint in the background, if it is complete."""
        if self._pending is not None and self._pending[1].done():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint in the background, and publish it or raise as ``save``."""
        if self._pending is None:
            return
        (target, future), self._pending = self._pending, None
        partial = files.part_of(target, _WRITER)
        with _explained("written", target, _SPACE_HINT, partial):
            future.result()
        self._publish(partial, target)

    def _publish(self, partial: Path, target: Path) -> None:
        if not self.ranks.is_first:
            return
        files.put(partial, target)  # a stopped run may have left one of the same step
        whole = checkpoints(self.folder.parent)
        for old in whole[: -self.keep]:
            if not self.keep_every or steps_of(old) % self.keep_every:
                files.discard(old)


def read_about(folder: Path) -> dict[str, Any]:
    """The JSON that a checkpoint holds next to its tensors."""
    with _explained("read", folder, _DAMAGE_HINT):
        about = parse_object(regular_file(folder / _ABOUT).read_text(encoding="utf-8"))
        if wrong := [k for k, kind in _NEEDED.items() if not isinstance(about.get(k), kind)]:
            raise ValueError(f"{_ABOUT} has no right {', '.join(wrong)}")
        return about


def check_changes(run: Path, recipe: Recipe, learner: Learner, allow_change: bool) -> list[str]:
    """Changes of recipe and data since a run's last part; a CheckpointError if it can't go on.

    Data and words of a learner without the recipe's prior, whose clips aren't made yet, may differ.
    """
    if not (done := checkpoints(run)):
        return []
    about = read_about(done[-1])
    different = differing_keys(recipe, about["recipe"])
    has_all = learner.recipe == recipe
    then = {"vocabulary": learner.vocabulary, "data": learner.data_identity, **about}
    if has_all and learner.vocabulary != then["vocabulary"]:
        kept = f"text_tokenizer={run / 'tokenizer'} keeps those of the run"
        if recipe.kind == "generator" and recipe.init:
            start = recipe.init if recipe.lora.rank else run
            kept = f"another run, with init={start}, learns more of them"
        different.append(f"the words of text_tokenizer aren't those of before; {kept}")
    if has_all and learner.data_identity != then["data"]:
        where = {"generator": "data.shards, prior or validation", "tokenizer": "data.files"}
        counts = f"clips or captions: {learner.num_clips} clips, {about.get('num_clips')} before"
        held = where.get(recipe.kind)
        different.append(f"{held} hold other {counts}" if held else "prompts hold other texts")
    fixed = [each for each in different if not may_change(each, recipe)]
    if fixed or (different and not allow_change):
        going_on = "" if fixed else "go on with this by --allow-change, "
        fault = f"the run in {run} has another recipe: {'; '.join(fixed or different)}"
        raise CheckpointError(fault, f"{going_on}use another -o, or --fresh to start over")
    if about.get("base") != learner.base:
        raise CheckpointError(
            f"the run in {run} tunes a model whose files were {about.get('base')};"
            f" the recipe's is {learner.base}",
            "restore those files, use another -o, or --fresh to start over",
        )
    return different


def load_checkpoint_(folder: Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Fill whole or sharded tensors from a checkpoint; all ranks have to call this."""
    is_only = len(checkpoints(folder.parent.parent)) == 1
    with _explained("read", folder, "start over with --fresh" if is_only else _DAMAGE_HINT):
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt"):  # torch has no clear words for a damaged one
                pass
        reader, is_alone = HuggingFaceStorageReader(str(folder)), ranks.count == 1
        state = _at_least_1d(tensors)
        load(state, storage_reader=reader, process_group=ranks.files, no_dist=is_alone)


def discard_run(run: Path) -> None:
    """Delete the checkpoints, metrics and samples of a run."""
    for name in (FOLDER, "samples"):
        shutil.rmtree(run / name, ignore_errors=True)
    (run / "metrics.jsonl").unlink(missing_ok=True)


_SPACE_HINT = (
    "free some space and run the same command again; it continues from the last checkpoint"
)
_DAMAGE_HINT = "delete it to continue from the one before, or start over with --fresh"


@contextlib.contextmanager
def _explained(what: str, folder: Path, hint: str, partial: Path | None = None) -> Iterator[None]:
    """Context that turns failures into a CheckpointError, and deletes an incomplete folder."""
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
        raise CheckpointError(f"the checkpoint {folder} can't be {what}: {reason}", hint) from error


def _at_least_1d(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same memory with a dimension, as the file format finds parts by their offsets."""
    return {name: each.view(1) if each.ndim == 0 else each for name, each in tensors.items()}


class _FileNumbers(dict[str, int]):  # a class, since ranks send it to one another
    """Numbers of the tensors' files, from 1; what another rank alone holds is in the first."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        size = 0
        for name, tensor in tensors.items():
            self[name] = 1 + size // _FILE_BYTES
            size += tensor.numel() * tensor.element_size()

    def __missing__(self, name: str) -> int:
        return 1
