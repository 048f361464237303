"""Results of tokenizing: JSON lines next to the shards.

``report.jsonl``, or a ``report-i-of-n.jsonl`` per process, begins with the settings and has a line
for each clip that was dropped, skipped or measured, by which a continued run knows what is done.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ursa_core.batches.part_files import PartFile, part_files, rows_of
from ursa_core.files import make_folder
from ursa_core.parts import Part
from ursa_core.places import delete
from ursa_core.tokens.shards import shard_paths
from ursa_core.tokens.writer import Made, Origin, check_settings

STEM = "report"
Status = Literal["done", "kept", "skipped", "dropped"]


@dataclass(frozen=True)
class Quality:
    """How close a decoded clip is to the one that was encoded."""

    psnr: float
    ssim: float


@dataclass(frozen=True, slots=True)
class ItemResult:
    """Result of one clip, or of an item that gave none."""

    source: str
    status: Status
    reason: str = ""  # why it was skipped (for a fault) or dropped (by a filter)
    found: str = ""  # value that the filter found
    quality: Quality | None = None
    origin: Origin | None = None  # file of a clip that was dropped
    notes: tuple[str, ...] = ()  # what was assumed of the file
    is_uncaptioned: bool = False


def summary(results: Sequence[ItemResult]) -> dict[str, Any]:
    """Number of clips per status and filter, mean quality, and the clips that have a report."""
    counts = Counter(result.status for result in results)
    dropped = Counter(result.reason for result in results if result.status == "dropped")
    measured = [result.quality for result in results if result.quality]
    return {
        **{f"num_{name}": counts[name] for name in get_args(Status)},
        "num_uncaptioned": sum(result.is_uncaptioned for result in results),
        "dropped": dict(dropped.most_common()),
        "psnr": sum(each.psnr for each in measured) / len(measured) if measured else None,
        "ssim": sum(each.ssim for each in measured) / len(measured) if measured else None,
        "items": _shown(results),
    }


def _shown(results: Sequence[ItemResult]) -> list[dict[str, Any]]:
    return [
        {name: getattr(each, name) for name in ("source", "status", "reason", "found")}
        | (asdict(each.quality) if each.quality else {"psnr": None, "ssim": None})
        for each in results
        if each.quality or each.reason
    ]


class TokenizeReport(PartFile):
    """The report of one process on a part; while it is open, no other process does the part."""

    def __init__(self, folder: Path, shard: Part) -> None:
        self._new_folders = [each for each in (folder, *folder.parents) if not each.exists()]
        super().__init__(make_folder(folder), STEM, shard)
        self.dropped: set[Made] = set()  # files that a filter left nothing of, by all reports
        self.dropped_names: set[str] = set()  # such items for which no file is recorded

    def begin(self, settings: Mapping[str, Any], *, keep: bool = True) -> None:
        """Read all reports, once those of other settings are gone where no shard is.

        Without ``keep`` all are deleted.
        """
        for path in [] if keep and shard_paths(self._folder) else part_files(self._folder, STEM):
            if keep and next(rows_of(path), settings) == settings:
                continue
            if path == self.path:
                os.ftruncate(self._file, 0)
            else:
                delete(path)
        if not self.path.stat().st_size:
            self.append_rows(dict(settings))
        for path in part_files(self._folder, STEM):
            for number, row in enumerate(rows_of(path)):
                if number == 0:
                    check_settings(path, row, settings)
                elif origin := row.get("origin"):
                    self.dropped.add(Made(Origin(**origin), None))
                elif name := row.get("nothing_of"):
                    self.dropped_names.add(name)

    def __exit__(self, *error: Any) -> None:
        """Close the file; delete it, and folders that were made, if no shard or row is there."""
        if self.path.exists():  # somebody may have deleted the folder
            rows = self.path.read_bytes().count(b"\n")
            if not rows or (rows == 1 and not shard_paths(self._folder)):
                delete(self.path)
        super().__exit__(*error)
        with suppress(OSError):  # where something is in it
            for folder in self._new_folders:
                folder.rmdir()

    def add(self, item: str, results: Sequence[ItemResult]) -> None:
        """Report an item's clips."""
        rows = _shown(results)
        if rows and all(result.status == "dropped" for result in results):
            rows[-1]["nothing_of"] = item
            if origin := results[-1].origin:
                rows[-1]["origin"] = asdict(origin)
        if rows:
            self.append_rows(*rows, sync=False)
