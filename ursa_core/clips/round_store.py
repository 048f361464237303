"""Finished rounds of a long video, kept next to the output until it is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ursa_core import files
from ursa_core.errors import DataError, UsageError
from ursa_core.files import parse_json
from ursa_core.media import read_media
from ursa_core.tokens.token_files import load_tokens_of, save_tokens

_PLAN = "plan.json"


class RoundStore:
    """The folder OUTPUT.rounds: a token file per round, and the plan that they were made by."""

    def __init__(self, output: str) -> None:
        self._output = path = Path(output)
        self.folder = path.with_name(f"{path.name}.rounds")

    def plan(self) -> dict[str, Any] | None:
        """The plan of the rounds there, if there are any; DataError if it can't be read."""
        file = self.folder / _PLAN
        try:
            content = parse_json(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            hint = "add --fresh to make the rounds again"
            raise DataError(f"{file} can't be read: {error}", hint) from error
        return content if isinstance(content, dict) else {}

    def is_finished(self) -> bool:
        """Whether the video of the rounds there is written, by a run that was killed just then."""
        plan = self.plan()
        if plan is None or not self._output.exists():
            return False
        try:
            recorded = read_media(self._output, max_frames=1).metadata
        except DataError:
            return False
        return {**recorded, "tokenizer": plan.get("tokenizer")} == plan

    def open(self, plan: Mapping[str, Any], fresh: bool) -> None:
        """Take up the rounds there, unless ``fresh`` deletes them, if they were made by this plan.

        It has the JSON values that decide every round, ``tokenizer`` and ``fps`` among them.
        UsageError for rounds of another plan, or a folder of others; DataError if it can't be used.
        """
        with files.writing(self.folder):
            if fresh and (self.folder / _PLAN).exists():
                self.remove()
            if not self.check(plan):
                self.folder.mkdir(exist_ok=True)
                files.write(self.folder / _PLAN, json.dumps(self._plan, indent=1))

    def check(self, plan: Mapping[str, Any]) -> bool:
        """Whether there are rounds by this plan; refuses others as ``open`` does."""
        found, self._plan = self.plan(), json.loads(json.dumps(plan))
        if found is None:
            is_free = not self.folder.exists() or (
                self.folder.is_dir()
                and all(file.name.startswith(".") for file in self.folder.iterdir())
            )
            if not is_free:
                fault = f"{self.folder} is in the way: finished rounds would be kept there"
                raise UsageError(fault, "move it away, or choose another output")
            return False
        names = sorted({*found, *self._plan})
        other = [name for name in names if found.get(name) != self._plan.get(name)]
        if other:
            fault = f"the rounds in {self.folder} were made with another {', '.join(other)}"
            raise UsageError(fault, "give the same options to go on, or --fresh to start over")
        return True

    def holds(self, index: int) -> bool:
        """Whether a round is done."""
        return self._file(index).exists()

    def load(self, index: int) -> Tensor | None:
        """Codes int64 (F, H, W) of a round, None where it isn't done; DataError if damaged."""
        file = self._file(index)
        return load_tokens_of(file, self._plan["tokenizer"]).codes if file.exists() else None

    def save(self, index: int, codes: Tensor) -> None:
        """Keep a round, whole or not at all; DataError if it can't be written."""
        save_tokens(self._file(index), codes, {**self._plan, "round": index})

    def remove(self) -> None:
        """Delete the rounds and the folder, at once unless somebody has put something into it."""
        files.sweep(self.folder.parent)
        if not self.folder.exists():
            return
        own = {self.folder / _PLAN, *self.folder.glob("round-*.safetensors")}
        if all(path in own or path.name.startswith(".") for path in self.folder.iterdir()):
            files.discard(self.folder)
            return
        for path in own:
            path.unlink(missing_ok=True)

    def _file(self, index: int) -> Path:
        return self.folder / f"round-{index:04d}.safetensors"
