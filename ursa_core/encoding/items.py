"""What gives clips to tokenize: media files, and the procedural worlds."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ursa_core.encoding.captions import MANIFEST_SUFFIXES, STDIN, read_caption_file
from ursa_core.encoding.cuts import Cut, windows
from ursa_core.encoding.sources import MEDIA_SUFFIXES, Source, find_sources
from ursa_core.errors import DataError, UsageError
from ursa_core.media import Frames, OpenMedia, measure_length, open_media, resize_and_crop
from ursa_core.worlds.emoji import EmojiClips
from ursa_core.worlds.shapes import FPS, SPLITS, training_clip
from ursa_core.worlds.sprites import Sprites

SHAPES_PREFIX, EMOJI_PREFIX = "shapes:", "emoji:"
PROCEDURAL = (SHAPES_PREFIX, EMOJI_PREFIX)


@dataclass(frozen=True)
class LoadedClip:
    """Frames uint8 (F, H, W, 3) of a cut clip, its captions, and what it is called.

    Attributes:
        frames: of the clip.
        captions: of the file.
        name: in shards and reports.
        notes: what was taken for granted of the file, for the user to know.
    """

    frames: Frames
    captions: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dropped:
    """A clip or file that a filter leaves out: its name, which filter, and what it found."""

    name: str
    reason: str
    found: str


class Item(Protocol):
    """Something that gives clips."""

    @property
    def name(self) -> str:
        """What it is called in shards and reports; the same in every run."""

    @property
    def key(self) -> str:
        """What tells it from all other items: its name, or the absolute path of its file."""

    def clips(self, cut: Cut, temporal_stride: int) -> Iterator[LoadedClip | Dropped]:
        """Its clips one by one; DataError where it can't be read or is too short."""


@dataclass(frozen=True)
class FileItem:
    """The clips in a media file."""

    source: Source

    @property
    def name(self) -> str:
        """Folder and place in it."""
        return self.source.name

    @cached_property
    def key(self) -> str:
        """Absolute path of the file, links among its folders resolved."""
        return str(self.source.path.parent.resolve() / self.source.path.name)

    def clips(self, cut: Cut, temporal_stride: int) -> Iterator[LoadedClip | Dropped]:
        """The clips of the file at the rate of the cut, read as they are asked for.

        Raises:
            DataError: the file or its captions can't be read, or it is shorter than a clip.
        """
        if self.source.fault:
            raise self.source.fault
        media = open_media(self.source.path, cut.fps, cut.source_fps)
        dropped = self._of_wrong_length(cut, media)
        if dropped:
            yield dropped
            return
        first = next(media.frames)
        height, width = first.shape[:2]
        reason = cut.filters.of_size(height, width)
        if reason:
            yield Dropped(self.name, reason, f"{height}x{width}")
            return
        size = cut.size_for(height, width)
        num_read = 0

        def resized() -> Iterator[Frames]:
            nonlocal num_read
            before, made = None, first
            for num_read, frame in enumerate(itertools.chain([first], media.frames), 1):  # noqa: B007
                if frame is not before:  # a frame that is held comes several times
                    before, made = frame, resize_and_crop(frame[None], *size)[0]
                yield made

        if cut.mode == "full":
            frames = np.stack(list(resized()))
            fitting = (len(frames) - 1) // temporal_stride * temporal_stride + 1
            yield LoadedClip(frames[:fitting], self.source.captions, self.name, media.notes)
            return
        counted = self._length(cut)[0] if cut.mode == "uniform" else None
        is_empty = True
        for start, frames in windows(resized(), cut.starts(counted), cut.shape.frames):
            is_empty = False
            name = cut.name(self.name, start)
            yield LoadedClip(frames, self.source.captions, name, media.notes)
        if is_empty:
            raise self._too_short(cut, temporal_stride, num_read, media.is_still)

    def _of_wrong_length(self, cut: Cut, media: OpenMedia) -> Dropped | None:
        filters = cut.filters
        if media.is_still or filters.min_seconds is filters.max_seconds is None:
            return None
        seconds = media.seconds
        if seconds is None:
            seconds = self._length(cut)[1]
        reason = filters.of_length(seconds)
        return Dropped(self.name, reason, f"{seconds:.4g} s") if reason else None

    def _length(self, cut: Cut) -> tuple[int, float]:
        """Sampled frames and seconds, where all must be gone through to know."""
        return measure_length(self.source.path, cut.fps, cut.source_fps)

    def _too_short(self, cut: Cut, stride: int, found: int, is_still: bool) -> DataError:
        path, wanted = self.source.path, cut.shape.frames
        if is_still:
            return DataError(
                f"{path} is a still image, {wanted} frames are needed",
                "take 1 frame, or give a film",
            )
        fits = (found - 1) // stride * stride + 1
        return DataError(
            f"{path} has {_frames(found)} at {cut.fps:g} a second, {wanted} are needed",
            f"take {_frames(fits)}, the most that fit, or sample more a second",
        )


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


@dataclass(frozen=True)
class ShapesItem:
    """A clip of the procedural world."""

    split: str
    seed: int
    index: int

    @property
    def name(self) -> str:
        """Split, seed and number."""
        return f"{SHAPES_PREFIX}{self.split}/{self.seed}/{self.index}"

    @property
    def key(self) -> str:
        """The name."""
        return self.name

    def clips(self, cut: Cut, temporal_stride: int) -> Iterator[LoadedClip]:
        """The clip, drawn at the size of the cut."""
        shape = cut.shape
        frames, caption = training_clip(
            self.seed, self.index, self.split, shape.frames, shape.height, shape.width
        )
        yield LoadedClip(frames, (caption,), self.name)


@dataclass(frozen=True)
class EmojiItem:
    """A clip of animated emoji."""

    world: EmojiClips
    split: str
    seed: int
    index: int

    @property
    def name(self) -> str:
        """Split, seed and number."""
        return f"{EMOJI_PREFIX}{self.split}/{self.seed}/{self.index}"

    @property
    def key(self) -> str:
        """The name."""
        return self.name

    def clips(self, cut: Cut, temporal_stride: int) -> Iterator[LoadedClip]:
        """The clip, drawn at the size of the cut."""
        shape = cut.shape
        frames, caption = self.world.training_clip(
            self.seed, self.index, self.split, shape.frames, shape.height, shape.width
        )
        yield LoadedClip(frames, (caption,), self.name)


def find_items(
    inputs: Sequence[str],
    num: int,
    seed: int,
    fps: float,
    on_repeat: Callable[[Path], None] = lambda _: None,
    sprites: Sprites | None = None,
    on_left_out: Callable[[Path], None] = lambda _: None,
) -> list[Item]:
    """What the inputs stand for.

    Args:
        inputs: files, folders, manifests, or a procedural input as ``shapes:train`` or
            ``emoji:heldout``.
        num: clips of each procedural input.
        seed: of the procedural inputs.
        fps: frames that will be sampled a second.
        on_repeat: told of each file or procedural input that is found again; it counts once.
        sprites: figures of the emoji.
        on_left_out: told of each file in a folder that isn't taken.

    Raises:
        DataError: an input doesn't exist or has two caption tables.
        UsageError: there is no such procedural split, or its clips have another frame rate.
    """
    items: list[Item] = []
    for k, given in enumerate(inputs):
        if not given.startswith(PROCEDURAL):
            continue
        if given in inputs[:k]:
            on_repeat(Path(given))
            continue
        prefix, _, split = given.partition(":")
        if split not in SPLITS:
            raise UsageError(
                f"there is no procedural input {given!r}",
                f"use {' or '.join(f'{prefix}:{name}' for name in SPLITS)}",
            )
        if fps != FPS:
            raise UsageError(
                f"{given} has {FPS:g} frames a second, not {fps:g}", f"use --fps {FPS:g}"
            )
        if given.startswith(SHAPES_PREFIX):
            items += [ShapesItem(split, seed, index) for index in range(num)]
            continue
        if sprites is None:
            raise UsageError(
                f"{given} needs the emoji", "add --data FOLDER, as recipes/emoji_data.py makes it"
            )
        world = EmojiClips(sprites)
        items += [EmojiItem(world, split, seed, index) for index in range(num)]
    paths = [
        STDIN if given == "-" else Path(given)
        for given in inputs
        if not given.startswith(PROCEDURAL)
    ]
    items += [FileItem(source) for source in find_sources(paths, on_repeat, on_left_out)]
    return items


def find_clip(given: str, seed: int, fps: float, sprites: Sprites | None = None) -> Item:
    """The one item of an input: a file, a folder of PNG frames, or a procedural input's first.

    Raises:
        DataError: the input doesn't exist or its caption can't be read.
        UsageError: a folder or manifest of several, or as for :func:`find_items`.
    """
    path = Path(given)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        raise UsageError(f"{given} lists files", "give a folder as OUT")
    if path.is_dir():
        suffixes = [s for p in path.iterdir() if (s := p.suffix.lower()) in MEDIA_SUFFIXES]
        if len(suffixes) > 1 and set(suffixes) != {".png"}:
            raise UsageError(f"{given} holds several clips", "give a folder as OUT")
        return FileItem(Source(path.resolve().name, path, read_caption_file(path)))
    (item,) = find_items([given], 1, seed, fps, sprites=sprites)
    return item
