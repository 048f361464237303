"""What an evaluation samples: files with their prompts and seeds, in a scorer's own layout."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ursa_core.errors import DataError
from ursa_core.files import parse_json
from ursa_core.seeding import stream_seed

LISTS = Path(__file__).parent / "prompt_lists"


@dataclass(frozen=True)
class PlannedFile:
    """One output of the model: what it is given, and the groups that it is scored for."""

    name: str  # path below the folder of the scored files, with ``/``, as the scorer looks for it
    prompt_id: str  # text that the seed is derived from: one prompt has the same draws in any suite
    prompt: str
    sample: int = 0
    image: Path | None = None
    groups: tuple[str, ...] = ()  # tags or dimensions

    def seed(self, base: int) -> int:
        """A 63-bit seed that depends on the base seed, the prompt and the sample alone."""
        return stream_seed(base, self.prompt_id, self.sample)


@dataclass(frozen=True)
class Suite:
    """All files of an evaluation; fewer than ``num_full`` are a trial."""

    name: str
    files: Sequence[PlannedFile]
    num_full: int
    fixed: Mapping[str, str] = field(default_factory=dict)  # content of the layout's other files
    scratch: tuple[str, ...] = ()  # names in the folder that belong to the scorer itself

    @property
    def is_whole(self) -> bool:
        """Whether no file of the suite is left out."""
        return len(self.files) == self.num_full


@dataclass(frozen=True)
class Results:
    """What an official scorer found: scores of the whole in [0, 1], by name, and of files."""

    scores: Mapping[str, float]
    files: Mapping[str, Mapping[str, float | bool]]  # by score and file; a bool: whether right
    verdicts: Mapping[str, str] = field(default_factory=dict)  # what was seen in a file, in words


def read_rows(path: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """The objects of a JSON lines file; raises `DataError` unless each has all of ``keys``."""
    try:
        # Only "\n" ends a line: splitlines would break at characters that JSON allows in strings.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}", "check the path") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not set(keys) <= set(row):
            hint = "give the list as it comes with the benchmark"
            raise DataError(f"line {number} of {path} is no object with {', '.join(keys)}", hint)
        rows.append(row)
    return rows


def thinned(num: int, limit: int | None) -> list[int]:
    """Indices of a fixed random part of ``num`` entries that holds every smaller one, or of all."""
    return sorted(np.random.default_rng(0).permutation(num)[:limit].tolist())
