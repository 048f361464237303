"""Clips to codes and back: the work of ``ursa tokenize``, one result per clip."""

import os
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

import ursa_core
from ursa_core.data.captions import read_caption_file
from ursa_core.data.emoji import EmojiClips
from ursa_core.data.packs import Sprites
from ursa_core.data.shapes import FPS, SPLITS, training_clip
from ursa_core.data.shard_writer import ShardWriter, TokenRow, motion_of
from ursa_core.data.shards import TokenIdentity
from ursa_core.data.sources import MEDIA_SUFFIXES, Source, find_sources
from ursa_core.data.token_files import save_tokens
from ursa_core.errors import DataError, UrsaError, UsageError
from ursa_core.evaluation.image_metrics import psnr, ssim
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, read_media, resize_and_crop, to_video
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames

SHAPES_PREFIX, EMOJI_PREFIX = "shapes:", "emoji:"
PROCEDURAL = (SHAPES_PREFIX, EMOJI_PREFIX)
BATCH_SIZE = 16
BATCH_PIXELS = 16 * 17 * 128 * 128
"""Pixels encoded at once at most, so that large clips don't need sixteen times their memory."""


@dataclass(frozen=True)
class Cut:
    """How clips are cut out of what they come from.

    Attributes:
        fps: frames sampled a second.
        shape: frames from the start, and the size they are scaled and cropped to.
    """

    fps: float
    shape: PixelShape


@dataclass(frozen=True)
class LoadedClip:
    """Frames uint8 (F, H, W, 3) of a cut clip, and its captions."""

    frames: Frames
    captions: tuple[str, ...]


class Item(Protocol):
    """Something that gives a clip."""

    @property
    def name(self) -> str:
        """What the clip is called in shards and reports; the same in every run."""

    def load(self, cut: Cut, temporal_stride: int) -> LoadedClip:
        """The clip, cut; DataError where it can't be read or is too short."""


@dataclass(frozen=True)
class FileItem:
    """A clip in a media file."""

    source: Source

    @property
    def name(self) -> str:
        """Folder and place in it."""
        return self.source.name

    def load(self, cut: Cut, temporal_stride: int) -> LoadedClip:
        """The first frames of the file at the rate of the cut.

        Raises:
            DataError: the file or its captions can't be read, or it is shorter than the cut.
        """
        if self.source.fault:
            raise self.source.fault
        clip = read_media(self.source.path, fps=cut.fps, max_frames=cut.shape.frames)
        found, wanted = len(clip.frames), cut.shape.frames
        if found < wanted:
            fits = (found - 1) // temporal_stride * temporal_stride + 1
            if clip.fps is None:
                raise DataError(
                    f"{self.source.path} is a still image, {wanted} frames are needed",
                    "take 1 frame, or give a film",
                )
            raise DataError(
                f"{self.source.path} has {_frames(found)} at {cut.fps:g} a second, "
                f"{wanted} are needed",
                f"take {_frames(fits)}, the most that fit, or sample more a second",
            )
        frames = resize_and_crop(clip.frames[:wanted], cut.shape.height, cut.shape.width)
        return LoadedClip(frames, self.source.captions)


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

    def load(self, cut: Cut, temporal_stride: int) -> LoadedClip:
        """The clip, drawn at the size of the cut."""
        shape = cut.shape
        frames, caption = training_clip(
            self.seed, self.index, self.split, shape.frames, shape.height, shape.width
        )
        return LoadedClip(frames, (caption,))


@dataclass(frozen=True)
class EmojiItem:
    """A clip of animated emoji."""

    clips: EmojiClips
    split: str
    seed: int
    index: int

    @property
    def name(self) -> str:
        """Split, seed and number."""
        return f"{EMOJI_PREFIX}{self.split}/{self.seed}/{self.index}"

    def load(self, cut: Cut, temporal_stride: int) -> LoadedClip:
        """The clip, drawn at the size of the cut."""
        shape = cut.shape
        frames, caption = self.clips.training_clip(
            self.seed, self.index, self.split, shape.frames, shape.height, shape.width
        )
        return LoadedClip(frames, (caption,))


@dataclass(frozen=True)
class Quality:
    """How close a decoded clip is to the one that was encoded."""

    psnr: float
    ssim: float


@dataclass(frozen=True)
class ItemResult:
    """What became of one clip.

    Attributes:
        source: its name.
        status: ``done``, ``kept`` from an earlier run, or ``skipped``.
        reason: why it was skipped.
        quality: of the round trip, where it was measured.
    """

    source: str
    status: Literal["done", "kept", "skipped"]
    reason: str = ""
    quality: Quality | None = None


def find_items(
    inputs: Sequence[str],
    num: int,
    seed: int,
    fps: float,
    on_repeat: Callable[[Path], None] = lambda _: None,
    sprites: Sprites | None = None,
) -> list[Item]:
    """The clips that the inputs stand for.

    Args:
        inputs: files, folders, or a procedural input as ``shapes:train`` or ``emoji:heldout``.
        num: clips of each procedural input.
        seed: of the procedural inputs.
        fps: frames that will be sampled a second.
        on_repeat: told of each file or procedural input that is found again; it counts once.
        sprites: figures of the emoji.

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
        clips = EmojiClips(sprites)
        items += [EmojiItem(clips, split, seed, index) for index in range(num)]
    paths = [Path(given) for given in inputs if not given.startswith(PROCEDURAL)]
    items += [FileItem(source) for source in find_sources(paths, on_repeat)]
    return items


def find_clip(given: str, seed: int, fps: float, sprites: Sprites | None = None) -> Item:
    """The one clip of an input: a file, a folder of PNG frames, or a procedural input's first.

    Raises:
        DataError: the input doesn't exist or its caption can't be read.
        UsageError: a folder of several clips, or as for :func:`find_items`.
    """
    path = Path(given)
    if path.is_dir():
        suffixes = [s for p in path.iterdir() if (s := p.suffix.lower()) in MEDIA_SUFFIXES]
        if len(suffixes) > 1 and set(suffixes) != {".png"}:
            raise UsageError(f"{given} holds several clips", "give a folder as OUT")
        return FileItem(Source(path.resolve().name, path, read_caption_file(path)))
    (item,) = find_items([given], 1, seed, fps, sprites=sprites)
    return item


def token_identity(tokenizer: VisualTokenizer, digest: str) -> TokenIdentity:
    """What shards record about the tokenizer of their codes."""
    strides = tokenizer.strides
    return TokenIdentity(
        tokenizer=digest,
        num_codes=len(tokenizer.codebook),
        levels=tuple(tokenizer.config.levels),
        temporal_stride=strides.temporal,
        spatial_stride=strides.spatial,
    )


@torch.inference_mode()
def encode_clips(tokenizer: VisualTokenizer, clips: Sequence[Frames]) -> Tensor:
    """Codes int64 (B, f, h, w), on the CPU, of clips uint8 (F, H, W, 3) of one shape."""
    device = next(tokenizer.parameters()).device
    video = torch.cat([to_video(frames) for frames in clips]).to(device)
    return tokenizer.encode(video).cpu()


def measure(tokenizer: VisualTokenizer, codes: Tensor, frames: Frames) -> Quality:
    """PSNR and SSIM of the decoded codes (f, h, w) against the frames they were made of."""
    decoded = decode_frames(tokenizer, codes)
    return Quality(psnr(decoded, frames), ssim(decoded, frames))


def tokenize_clip(
    item: Item, tokenizer: VisualTokenizer, digest: str, cut: Cut, path: Path, check: bool = True
) -> ItemResult:
    """Encode one clip into a token file.

    Args:
        item: where the clip comes from.
        tokenizer: encodes it.
        digest: identity of the tokenizer.
        cut: how the clip is cut.
        path: the file, replaced where it exists.
        check: decode the codes again and compare.

    Raises:
        DataError: the clip can't be read or is too short, or the file can't be written.
        ShapeError: the cut doesn't fit the strides of the tokenizer.
    """
    tokenizer.strides.grid(cut.shape)
    clip = item.load(cut, tokenizer.strides.temporal)
    (codes,) = encode_clips(tokenizer, [clip.frames])
    metadata = {
        "tokenizer": digest,
        "fps": cut.fps,
        "source": item.name,
        "prompt": clip.captions[0] if clip.captions else "",
        "captions": list(clip.captions),
        "motion": motion_of(clip.frames),
        "version": ursa_core.__version__,
    }
    save_tokens(path, codes, metadata)
    quality = measure(tokenizer, codes, clip.frames) if check else None
    return ItemResult(item.name, "done", quality=quality)


def _load_ahead(
    items: Iterable[Item], load: Callable[[Item], LoadedClip], done: Container[str], count: int
) -> Generator[tuple[Item, Future[LoadedClip] | None], None, None]:
    """Items in order with their clips, ``count`` of them loaded ahead by threads.

    An item that is done already comes without a clip.
    """
    waiting: deque[tuple[Item, Future[LoadedClip] | None]] = deque()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for item in items:
            waiting.append((item, None if item.name in done else pool.submit(load, item)))
            if len(waiting) > count:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def tokenize_items(
    items: Iterable[Item],
    tokenizer: VisualTokenizer,
    cut: Cut,
    writer: ShardWriter,
    num_checked: int | None = None,
) -> Generator[ItemResult, None, None]:
    """Encode clips into shards, in batches; a clip that can't be read is skipped.

    Clips that the folder holds already are kept. However the iteration ends, the clips encoded
    until then are written.

    Args:
        items: where the clips come from.
        tokenizer: encodes them.
        cut: how they are cut.
        writer: takes the rows; it is closed at the end.
        num_checked: clips that are decoded again and compared, from the first on; all by default.

    Yields:
        One result per item; those of a batch together, in order.

    Raises:
        DataError: a shard can't be written.
        ShapeError: the cut doesn't fit the strides of the tokenizer.
    """
    tokenizer.strides.grid(cut.shape)
    pixels = cut.shape.frames * cut.shape.height * cut.shape.width
    batch_size = max(1, min(BATCH_SIZE, BATCH_PIXELS // pixels))
    waiting: list[tuple[Item, LoadedClip]] = []
    num_left = num_checked

    def encode_waiting() -> Iterator[ItemResult]:
        nonlocal num_left
        if not waiting:
            return
        codes = encode_clips(tokenizer, [clip.frames for _, clip in waiting])
        for (item, clip), of_clip in zip(waiting, codes, strict=True):
            writer.add(TokenRow(of_clip, clip.captions, cut.fps, motion_of(clip.frames), item.name))
        # After the rows: decoding takes longer than encoding, and may be interrupted.
        for (item, clip), of_clip in zip(waiting, codes, strict=True):
            quality = None
            if num_left is None or num_left > 0:
                quality = measure(tokenizer, of_clip, clip.frames)
                num_left = None if num_left is None else num_left - 1
            yield ItemResult(item.name, "done", quality=quality)
        waiting.clear()

    def load(item: Item) -> LoadedClip:
        return item.load(cut, tokenizer.strides.temporal)

    with writer, closing(_load_ahead(items, load, writer.done, batch_size)) as loading:
        for item, loaded in loading:
            if loaded is None:
                yield ItemResult(item.name, "kept")
                continue
            try:
                clip = loaded.result()
            except UrsaError as error:
                reason = f"{error.message} ({error.hint})" if error.hint else error.message
                yield ItemResult(item.name, "skipped", reason)
                continue
            waiting.append((item, clip))
            if len(waiting) == batch_size:
                yield from encode_waiting()
        yield from encode_waiting()
