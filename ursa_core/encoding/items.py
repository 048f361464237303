"""What gives clips to tokenize: media files, and the procedural worlds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ursa_core.encoding.captions import MANIFEST_SUFFIXES, STDIN, read_caption_file
from ursa_core.encoding.cuts import ClipCut, Dropped, LoadedClip
from ursa_core.encoding.options import PROCEDURAL, SHAPES_PREFIX
from ursa_core.encoding.sources import MEDIA_SUFFIXES, MediaFile, find_sources
from ursa_core.errors import DataError, UrsaError, UsageError
from ursa_core.media import Frames
from ursa_core.places import located
from ursa_core.worlds.shapes import FPS, SPLITS, training_clip
from ursa_core.worlds.sprites import Sprites

_NUM_NAMED = 3
Draw = Callable[[int, int, str, int, int, int], tuple[Frames, str]]
"""Frames and caption of seed, index, split, frames, height and width."""


@dataclass(frozen=True)
class DrawnClip:
    """A clip of a procedural world such as ``shapes:train``."""

    draw: Draw
    world: str
    seed: int
    index: int

    @property
    def name(self) -> str:
        """World, seed and number; the same in every run."""
        return f"{self.world}/{self.seed}/{self.index}"

    key = name

    def clips(self, cut: ClipCut, temporal_stride: int) -> Iterator[LoadedClip]:
        """The clip, drawn at the size of the cut."""
        split = self.world.partition(":")[2]
        frames, caption = self.draw(self.seed, self.index, split, *vars(cut.shape).values())
        yield LoadedClip(frames, (caption,), self.name)


Item = MediaFile | DrawnClip
"""Something that gives clips; its ``key`` is different from all other items'."""


def find_items(
    inputs: Sequence[str],
    num: int,
    seed: int,
    fps: float,
    on_repeat: Callable[[Path], None] = lambda _: None,
    sprites: Sprites | None = None,
    on_left_out: Callable[[Path], None] = lambda _: None,
) -> list[Item]:
    """What the inputs stand for: files, folders, manifests, and ``num`` clips of ``shapes:train``.

    Callbacks get each input that is found again, and each file in a folder that isn't taken. No
    such procedural split, or clips of another rate than ``fps``, is a UsageError.
    """
    items: list[Item] = []
    paths: list[Path] = []
    for k, given in enumerate(inputs):
        if not given.startswith(PROCEDURAL):
            paths.append(STDIN if given == "-" else located(given))
        elif given in inputs[:k]:
            on_repeat(Path(given))
        else:
            draw = _world(given, fps, sprites)
            items += [DrawnClip(draw, given, seed, index) for index in range(num)]
    return [*items, *find_sources(paths, on_repeat, on_left_out)]


def _world(given: str, fps: float, sprites: Sprites | None) -> Draw:
    prefix, _, split = given.partition(":")
    if split not in SPLITS:
        known = " or ".join(f"{prefix}:{name}" for name in SPLITS)
        raise UsageError(f"there is no procedural input {given!r}", f"use {known}")
    if fps != FPS:
        fault = f"{given} has {FPS:g} frames per second, not {fps:g}"
        raise UsageError(fault, f"use `fps` {FPS:g}")
    if given.startswith(SHAPES_PREFIX):
        return training_clip
    if sprites is None:
        hint = "add --data FOLDER, as recipes/emoji_data.py makes it"
        raise UsageError(f"{given} needs the emoji", hint)
    return sprites.training_clip


def find_clip(given: str, seed: int, fps: float, sprites: Sprites | None = None) -> Item:
    """The one item of an input: a file, a folder of PNG frames, or a procedural input's first."""
    path = located(given)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        raise UsageError(f"{given} lists files", "give a folder as OUT")
    if path.is_dir():
        suffixes = [s for p in path.iterdir() if (s := p.suffix.lower()) in MEDIA_SUFFIXES]
        if len(suffixes) > 1 and set(suffixes) != {".png"}:
            raise UsageError(f"{given} holds several clips", "give a folder as OUT")
        return MediaFile(path.resolve().name, path, read_caption_file(path))
    (item,) = find_items([given], 1, seed, fps, sprites=sprites)
    return item


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
