"""How work is shared: parts of a list among processes, cores among ranks before torch is loaded."""

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from ursa_core.errors import UsageError


@dataclass(frozen=True)
class Part:
    """Part ``number`` of ``count``, from 1; every ``count``-th item is its own."""

    number: int = 1
    count: int = 1

    def owns(self, index: int) -> bool:
        """Whether the item is in this part."""
        return index % self.count == self.number - 1

    @property
    def suffix(self) -> str:
        """Suffix of the names of this part's own files; empty if it is the whole."""
        return "" if self.count == 1 else f"-{self.number}-of-{self.count}"


def parse_part(text: str) -> Part:
    """A part from ``i/n``, 1 <= i <= n; of another form it is a UsageError."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"{text!r} is no shard", "give i/n with 1 <= i <= n, as 2/4")
    return Part(int(match[1]), int(match[2]))


def launched_part(environment: Mapping[str, str]) -> Part | None:
    """The part of a process that ``torchrun`` started, by RANK and WORLD_SIZE; else None."""
    rank, size = environment.get("RANK"), environment.get("WORLD_SIZE")
    if rank is None or size is None:
        return None
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        hint = "start with torchrun, or unset them"
        raise UsageError(f"RANK={rank} and WORLD_SIZE={size} are no rank of a launcher", hint)
    return Part(int(rank) + 1, int(size))


def num_cores(environment: Mapping[str, str] = os.environ) -> int:
    """Cores of this process: those that it may run on, divided among a launcher's ranks."""
    affinity = getattr(os, "sched_getaffinity", None)  # containers and schedulers may leave fewer
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    ranks = environment.get("LOCAL_WORLD_SIZE", "")
    return max(1, cores // max(1, int(ranks) if ranks.isdecimal() else 1))


def share_cores_(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make waiting threads sleep, not spin, and divide the cores among a launcher's ranks.

    OpenMP threads spin at every barrier: where another process holds a core, all others waste time
    until it is scheduled again. Call this before torch is imported; what the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "0")  # GNU's libgomp
        environment.setdefault("KMP_BLOCKTIME", "0")  # LLVM's libomp and Intel's libiomp
    if environment.get("LOCAL_WORLD_SIZE", "1") != "1":
        environment.setdefault("OMP_NUM_THREADS", str(num_cores(environment)))
