"""What became of the clips of ``ursa tokenize``: JSON lines beside the shards.

``report.jsonl``, or a ``report-i-of-n.jsonl`` a process, begins with the settings and has a line
for each clip that was dropped, skipped or measured. From it a continued run knows which items a
filter left nothing of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ursa_core.batches.part_files import PartFile, part_files, rows_of
from ursa_core.parts import Shard
from ursa_core.tokens.shards import shard_paths
from ursa_core.tokens.writer import Made, Origin, check_settings

STEM = "report"


@dataclass(frozen=True)
class Quality:
    """How close a decoded clip is to the one that was encoded."""

    psnr: float
    ssim: float


@dataclass(frozen=True)
class ItemResult:
    """What became of one clip, or of an item that gave none.

    Attributes:
        source: its name.
        status: ``done``; ``kept`` from an earlier run; ``skipped``, for a fault; ``dropped``, by a
            filter.
        reason: why it was skipped or dropped.
        found: what the filter found.
        quality: of the round trip, where it was measured.
        origin: File of a clip that was dropped.
    """

    source: str
    status: Literal["done", "kept", "skipped", "dropped"]
    reason: str = ""
    found: str = ""
    quality: Quality | None = None
    origin: Origin | None = None

    def to_json(self) -> dict[str, Any]:
        """As reports show it."""
        quality = asdict(self.quality) if self.quality else {"psnr": None, "ssim": None}
        return {
            "source": self.source,
            "status": self.status,
            "reason": self.reason,
            "found": self.found,
            **quality,
        }


class Report(PartFile):
    """The report of one process; while it is open, no other one does the same part.

    Args:
        folder: of the shards.
        settings: that all shards have.
        shard: the part that the process does.

    Attributes:
        dropped: Files that a filter left nothing of, according to all reports.
        dropped_names: Names of such items for which no file is recorded.

    Raises:
        DataError: it can't be written, or an earlier one has other settings.
        UsageError: another process is at work on the part.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], shard: Shard) -> None:
        super().__init__(folder, STEM, shard)
        self.dropped: set[Made] = set()
        self.dropped_names: set[str] = set()
        try:
            if not self.path.stat().st_size:
                self.append_rows(dict(settings))
            for path in part_files(folder, STEM):
                for number, row in enumerate(rows_of(path)):
                    if number == 0:
                        check_settings(path, row, settings)
                    elif row.get("origin"):
                        self.dropped.add(Made(Origin(**row["origin"]), None))
                    elif row.get("nothing_of"):
                        self.dropped_names.add(row["nothing_of"])
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; a report of nothing on no shards goes."""
        is_there = self.path.exists()  # unless somebody deleted the folder meanwhile
        if is_there and self.path.read_bytes().count(b"\n") <= 1 and not shard_paths(self._folder):
            self.path.unlink(missing_ok=True)
        super().__exit__(kind, error, trace)

    def add(self, item: str, results: Sequence[ItemResult]) -> None:
        """Tell of an item's clips.

        Raises:
            DataError: the report can't be written.
        """
        told = [result for result in results if result.reason or result.quality]
        rows = [result.to_json() for result in told]
        if rows and all(result.status == "dropped" for result in results):
            rows[-1]["nothing_of"] = item
            if told[-1].origin:
                rows[-1]["origin"] = asdict(told[-1].origin)
        if rows:
            self.append_rows(*rows, sync=False)


def remove_reports(folder: Path) -> None:
    """Delete the reports of a folder."""
    for path in part_files(folder, STEM):
        path.unlink()
