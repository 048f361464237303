"""Clips to codes, in batches: the work of ``ursa tokenize``."""

import itertools
import math
from collections import deque
from collections.abc import Container, Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ursa_core.encoding.cuts import ClipCut, Dropped, LoadedClip
from ursa_core.encoding.items import Item
from ursa_core.encoding.origins import Comparison, compare, origin_of, recorded_path
from ursa_core.encoding.report import ItemResult, Quality
from ursa_core.errors import UrsaError
from ursa_core.media import Frames, to_video
from ursa_core.media.quality import psnr
from ursa_core.media.ssim import ssim
from ursa_core.parts import num_cores
from ursa_core.tokenizers.refine import refined_codes
from ursa_core.tokenizers.video_fsq import VideoTokenizer
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames
from ursa_core.tokens.shards import TokenIdentity
from ursa_core.tokens.writer import Origin, ShardWriter, TokenRow

BATCH_SIZE = 16
BATCH_PIXELS = 16 * 17 * 128 * 128  # at most: large clips don't need sixteen times their memory

Piece = LoadedClip | Dropped
Encoded = tuple[Item, list[TokenRow], list[ItemResult]]
"""An item, the rows of its clips, and their results, or why there is none."""


def reason_of(error: Exception) -> str:
    """Why an item is skipped."""
    message, hint = (error.message, error.hint) if isinstance(error, UrsaError) else (error, "")
    return f"{message} ({hint})" if hint else str(message)


def token_identity(tokenizer: VisualTokenizer, digest: str) -> TokenIdentity:
    """What shards record about the tokenizer of their codes."""
    levels, strides = tuple(tokenizer.config.levels), tokenizer.strides
    num_codes = len(tokenizer.codebook)
    return TokenIdentity(digest, num_codes, levels, strides.temporal, strides.spatial)


@torch.inference_mode()
def encode_clips(tokenizer: VisualTokenizer, clips: Sequence[Frames], refine: int = 0) -> Tensor:
    """Codes int64 (B, f, h, w), on the CPU, of clips uint8 (F, H, W, 3) of one shape."""
    device = next(tokenizer.parameters()).device
    videos = [to_video(frames).to(device) for frames in clips]
    if refine:
        tokenizer = cast(VideoTokenizer, tokenizer)
        return torch.cat([refined_codes(tokenizer, video, refine) for video in videos]).cpu()
    return tokenizer.encode(torch.cat(videos)).cpu()


def measure(tokenizer: VisualTokenizer, codes: Tensor, frames: Frames) -> Quality:
    """PSNR and SSIM of the decoded codes (f, h, w) against the frames that they encode."""
    decoded = decode_frames(tokenizer, codes)
    return Quality(psnr(decoded, frames), ssim(decoded, frames))


def batch_size(pixels: int) -> int:
    """Clips of so many pixels that are encoded together."""
    return max(1, min(BATCH_SIZE, BATCH_PIXELS // pixels))


@dataclass(frozen=True)
class Encoder:
    """A loaded tokenizer of a model, its identity, and how clips are cut and refined for it."""

    model: str
    folder: Path
    tokenizer: VisualTokenizer
    digest: str
    cut: ClipCut
    refine: int = 0  # steps of gradient descent on the codes

    def to_json(self) -> dict[str, Any]:
        """Model, rate and grid (None where clips have several) as reports show them."""
        grid = None
        if not self.cut.sizes and self.cut.mode != "full":
            grid = list(vars(self.tokenizer.strides.grid(self.cut.shape)).values())
        about = {"model": self.model, "tokenizer": self.digest, "fps": self.cut.fps}
        return {**about, "grid": grid, "refine": self.refine}


class _ItemWork:
    """An item at work: its clips are read by threads, the first early, and some more at a time."""

    def __init__(
        self, pool: Executor, item: Item, clips: Iterator[Piece], folder: Path | None, count: int
    ) -> None:
        self.item = item
        self.origin: Origin | None = None  # its file before the first clip was read
        self.rows: list[TokenRow] = []
        self.results: list[ItemResult] = []
        self.num_waiting = 0  # clips that are to be encoded
        self._is_read = False
        self._pool, self._clips, self._count = pool, clips, count
        self._next = pool.submit(self._take, 1, folder)

    @property
    def is_done(self) -> bool:
        return self._is_read and not self.num_waiting

    def _take(
        self, count: int, folder: Path | None = None
    ) -> tuple[list[Piece], UrsaError | None, bool]:
        """The next clips, the fault that ended them, and whether there are no more."""
        if folder is not None:
            self.origin = origin_of(self.item, folder)
        taken: list[Piece] = []
        try:
            taken += itertools.islice(self._clips, count)
        except UrsaError as error:
            return taken, error, True
        return taken, None, len(taken) < count

    def clips(self) -> Iterator[Piece]:
        """The clips in order; raises the fault that ended them."""
        while not self._is_read:
            taken, fault, is_end = self._next.result()
            if not is_end:
                self._next = self._pool.submit(self._take, self._count)
            yield from taken
            if fault is not None:
                raise fault
            self._is_read = is_end


class Tokenizing:
    """Encodes the clips of items into shards, in batches of one shape.

    All clips of an item go into one shard, so an item is done where one of them is. The first
    ``num_checked`` clips, or all, are decoded again and compared. Without a writer rows are only
    what ``encoded`` yields, and no files are recorded.
    """

    def __init__(
        self,
        tokenizer: VisualTokenizer,
        cut: ClipCut,
        writer: ShardWriter | None,
        num_checked: int | None = None,
        refine: int = 0,
    ) -> None:
        cut.check(tokenizer.strides)
        self._tokenizer, self._cut, self._writer = tokenizer, cut, writer
        self._folder = None if writer is None else writer.folder
        self._refine, self._num_left = refine, math.inf if num_checked is None else num_checked
        self._unreadable: set[str] = set()  # recorded paths
        self._waiting: dict[tuple[int, ...], list[tuple[_ItemWork, LoadedClip]]] = {}

    def run(
        self, items: Sequence[Item], found: Comparison | None = None
    ) -> Generator[tuple[str, list[ItemResult]], None, None]:
        """Name of each item when it is done, and the results of its clips, or why there is none.

        Clips that the folder already holds are kept, unless ``found`` says that their file or its
        captions have changed. However the iteration ends, the items done until then are written.
        """
        writer = cast(ShardWriter, self._writer)
        if found is None:
            found = compare(items, map(self._cut.item_of, writer.done), writer.made, writer.folder)
        with writer, closing(self.encoded(items, found.done)) as made:
            for item, _, results in made:
                yield item.name, results
        stale = [each for each in found.stale if each.origin.path not in self._unreadable]
        # Only now that the new clips are written: a kill leaves both, and the next run removes one.
        writer.remove(stale)

    def encoded(
        self, items: Sequence[Item], done: Container[str]
    ) -> Generator[Encoded, None, None]:
        """Items with the rows and results of their clips, as they are done."""
        with closing(self._begun(items, done)) as begun:
            for item, work in begun:
                if work is None:
                    yield item, [], [ItemResult(item.name, "kept")]
                else:
                    yield from self._item(work)
            for clips in list(self._waiting.values()):
                yield from self._encode(clips)

    def _add(self, rows: Sequence[TokenRow]) -> None:
        if self._writer is not None:
            self._writer.add(*rows)

    def _skipped(self, item: Item, reason: str) -> Encoded:
        if self._folder is not None:
            self._unreadable.add(recorded_path(item, self._folder.resolve()))
        return item, [], [ItemResult(item.name, "skipped", reason)]

    def _begun(
        self, items: Sequence[Item], done: Container[str]
    ) -> Generator[tuple[Item, _ItemWork | None], None, None]:
        """Items in order, a batch of them begun ahead by threads; None for those that are done."""
        shape, stride = self._cut.shape, self._tokenizer.strides.temporal
        ahead = batch_size(shape.frames * shape.height * shape.width)
        waiting: deque[tuple[Item, _ItemWork | None]] = deque()
        pool = ThreadPoolExecutor(num_cores())
        try:
            for item in items:
                work = None
                if item.key not in done:
                    clips = item.clips(self._cut, stride)
                    work = _ItemWork(pool, item, clips, self._folder, ahead)
                waiting.append((item, work))
                if len(waiting) > ahead:
                    yield waiting.popleft()
            yield from waiting
        finally:
            pool.shutdown(cancel_futures=True)

    def _item(self, work: _ItemWork) -> Iterator[Encoded]:
        try:
            for piece in work.clips():
                if isinstance(piece, LoadedClip):
                    reason = self._cut.filters.reason("motion", piece.motion)
                    if not reason:
                        work.num_waiting += 1
                        clips = self._waiting.setdefault(piece.frames.shape, [])
                        yield from self._encode(clips, if_full=True)
                        clips.append((work, piece))
                        continue
                    piece = Dropped(piece.name, reason, f"{piece.motion:.4g}")
                result = ItemResult(piece.name, "dropped", piece.reason, piece.found)
                work.results.append(replace(result, origin=work.origin))
        except UrsaError as error:
            for clips in self._waiting.values():
                clips[:] = [entry for entry in clips if entry[0] is not work]
            yield self._skipped(work.item, reason_of(error))
            return
        if work.is_done:
            self._add(work.rows)
            yield work.item, work.rows, work.results
        for clips in self._waiting.values():
            yield from self._encode(clips, if_full=True)

    def _encode(
        self, clips: list[tuple[_ItemWork, LoadedClip]], *, if_full: bool = False
    ) -> Iterator[Encoded]:
        if not clips or (if_full and len(clips) < batch_size(clips[0][1].frames[..., 0].size)):
            return
        batch, clips[:] = list(clips), []
        codes = encode_clips(self._tokenizer, [clip.frames for _, clip in batch], self._refine)
        for (work, clip), of_clip in zip(batch, codes, strict=True):
            about = (clip.captions, self._cut.fps, clip.motion, clip.name, work.origin)
            work.rows.append(TokenRow(of_clip, *about))
            work.num_waiting -= 1
        done = [work for work in {id(work): work for work, _ in batch}.values() if work.is_done]
        for work in done:
            self._add(work.rows)
        # After the rows: decoding takes longer than encoding, and may be interrupted.
        for (work, clip), of_clip in zip(batch, codes, strict=True):
            result = ItemResult(clip.name, "done", is_uncaptioned=not clip.captions)
            if self._num_left > 0:
                quality = measure(self._tokenizer, of_clip, clip.frames)
                result, self._num_left = replace(result, quality=quality), self._num_left - 1
            work.results.append(result)
        for work in done:
            yield work.item, work.rows, work.results
