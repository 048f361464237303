"""Which items of a list a process makes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ursa_core.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, from 1; every ``count``-th item is its own."""

    number: int = 1
    count: int = 1

    def owns(self, index: int) -> bool:
        """Whether the item is this shard's."""
        return index % self.count == self.number - 1

    @property
    def suffix(self) -> str:
        """Of names of files that are this shard's own; empty where there is one shard."""
        return "" if self.count == 1 else f"-{self.number}-of-{self.count}"

    def __str__(self) -> str:
        """As ``number/count``."""
        return f"{self.number}/{self.count}"


def parse_shard(text: str) -> Shard:
    """A shard from ``i/n``, 1 <= i <= n.

    Raises:
        UsageError: another form, or out of range.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"{text!r} is no shard", "give i/n with 1 <= i <= n, as 2/4")
    return Shard(int(match[1]), int(match[2]))


def launched_shard(environment: Mapping[str, str]) -> Shard | None:
    """The shard of a process that ``torchrun`` started, by RANK and WORLD_SIZE; None without.

    Raises:
        UsageError: they are no rank and size.
    """
    rank, size = environment.get("RANK"), environment.get("WORLD_SIZE")
    if rank is None or size is None:
        return None
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise UsageError(
            f"RANK={rank} and WORLD_SIZE={size} are no rank of a launcher",
            "start with torchrun, or unset them",
        )
    return Shard(int(rank) + 1, int(size))
