"""Clips of the user's that are measured; files that can't be used are left out and named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ursa_core.encoding.cuts import ClipCut, Dropped
from ursa_core.encoding.items import Item
from ursa_core.errors import DataError, UrsaError
from ursa_core.media import Frames

_NUM_NAMED = 3


@dataclass(frozen=True)
class Clips:
    """The first clip of each of some items, cut by ``cut`` for a tokenizer of a temporal stride."""

    items: Sequence[Item]
    cut: ClipCut
    temporal_stride: int
    warn: Callable[[str], None]  # called with why a clip is left out
    on_item: Callable[[], object]  # called after each item
    left_out: list[str] = field(default_factory=list)  # whole once the clips were gone through

    def __iter__(self) -> Iterator[tuple[str, Frames]]:
        """Name and frames (F, H, W, 3) of each clip; raises `DataError` without any."""
        for item in self.items:
            try:
                clip = next(item.clips(self.cut, self.temporal_stride))
            except UrsaError as error:
                self.left_out.append(item.name)
                self.warn(f"left out: {error.message}")
                continue
            finally:
                self.on_item()
            if not isinstance(clip, Dropped):  # which nothing is without filters
                yield item.name, clip.frames
        if len(self.left_out) == len(self.items):
            raise DataError("no clip could be used", "the warnings say why")

    @property
    def notes(self) -> list[str]:
        """What a report must say about clips that were left out."""
        if not self.left_out:
            return []
        more = ["…"] if len(self.left_out) > _NUM_NAMED else []
        named = ", ".join(self.left_out[:_NUM_NAMED] + more)
        return [f"{len(self.left_out)} clips could not be used: {named}."]
