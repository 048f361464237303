"""Clips to codes and back: the work of ``ursa tokenize``."""

from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

import ursa_core
from ursa_core.encoding.cuts import Cut
from ursa_core.encoding.items import Dropped, Item, LoadedClip
from ursa_core.encoding.origins import Comparison, compare, origin_of, recorded_path
from ursa_core.encoding.report import ItemResult, Quality, Report
from ursa_core.errors import DataError, UrsaError
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, to_video
from ursa_core.media.quality import psnr, ssim
from ursa_core.parts import Shard, num_cores
from ursa_core.tokenizers.refine import refined_codes
from ursa_core.tokenizers.video_fsq import VideoTokenizer
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames
from ursa_core.tokens.shards import TokenIdentity
from ursa_core.tokens.token_files import save_tokens
from ursa_core.tokens.writer import Origin, ShardWriter, TokenRow, motion_of

BATCH_SIZE = 16
BATCH_PIXELS = 16 * 17 * 128 * 128
"""Pixels encoded at once at most, so that large clips don't need sixteen times their memory."""

Piece = LoadedClip | Dropped


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
def encode_clips(tokenizer: VisualTokenizer, clips: Sequence[Frames], refine: int = 0) -> Tensor:
    """Codes int64 (B, f, h, w), on the CPU, of clips uint8 (F, H, W, 3) of one shape.

    Args:
        tokenizer: encodes them; of videos, where codes are refined.
        clips: of one shape.
        refine: steps of ``refined_codes``, clip by clip.
    """
    device = next(tokenizer.parameters()).device
    if refine:
        tokenizer = cast(VideoTokenizer, tokenizer)
        codes = [refined_codes(tokenizer, to_video(frames).to(device), refine) for frames in clips]
        return torch.cat(codes).cpu()
    video = torch.cat([to_video(frames) for frames in clips]).to(device)
    return tokenizer.encode(video).cpu()


def measure(tokenizer: VisualTokenizer, codes: Tensor, frames: Frames) -> Quality:
    """PSNR and SSIM of the decoded codes (f, h, w) against the frames they were made of."""
    decoded = decode_frames(tokenizer, codes)
    return Quality(psnr(decoded, frames), ssim(decoded, frames))


def tokenize_clip(
    item: Item,
    tokenizer: VisualTokenizer,
    digest: str,
    cut: Cut,
    path: Path,
    check: bool = True,
    refine: int = 0,
    on_note: Callable[[str], None] = lambda _: None,
) -> ItemResult:
    """Encode one clip into a token file.

    Args:
        item: where the clip comes from.
        tokenizer: encodes it.
        digest: identity of the tokenizer.
        cut: how the clip is cut.
        path: the file, replaced where it exists.
        check: decode the codes again and compare.
        refine: steps of ``refined_codes``.
        on_note: told of what was taken for granted where the file says nothing.

    Raises:
        DataError: the clip can't be read or is too short, or the file can't be written.
        ShapeError: the cut doesn't fit the strides of the tokenizer.
    """
    tokenizer.strides.grid(cut.shape)
    clip = next(item.clips(cut, tokenizer.strides.temporal))
    if isinstance(clip, Dropped):
        raise DataError(f"{clip.name} is {clip.reason}: {clip.found}", "leave out the filter")
    (codes,) = encode_clips(tokenizer, [clip.frames], refine)
    metadata = {
        "tokenizer": digest,
        "fps": cut.fps,
        "source": item.name,
        "prompt": clip.captions[0] if clip.captions else "",
        "captions": list(clip.captions),
        "motion": motion_of(clip.frames),
        **({"refine": refine} if refine else {}),
        "version": ursa_core.__version__,
    }
    quality = measure(tokenizer, codes, clip.frames) if check else None
    save_tokens(path, codes, metadata)
    for note in clip.notes:
        on_note(note)
    return ItemResult(item.name, "done", quality=quality)


def _batch_size(pixels: int) -> int:
    """Clips of so many pixels that are encoded at once."""
    return max(1, min(BATCH_SIZE, BATCH_PIXELS // pixels))


class _Pieces:
    """The pieces of an item, read by threads: the first one early, and some more at a time."""

    origin: Origin | None = None
    """The item's file before it was read, once the first piece is there."""

    def __init__(
        self, pool: Executor, item: Item, pieces: Iterator[Piece], folder: Path, count: int
    ) -> None:
        self._pool, self._pieces, self._count = pool, pieces, count
        self._next = pool.submit(self._begin, item, folder)

    def _begin(self, item: Item, folder: Path) -> tuple[list[Piece], UrsaError | None, bool]:
        self.origin = origin_of(item, folder)
        return _take(self._pieces, 1)

    def __iter__(self) -> Iterator[Piece]:
        while True:
            taken, fault, is_end = self._next.result()
            if not is_end:
                self._next = self._pool.submit(_take, self._pieces, self._count)
            yield from taken
            if fault is not None:
                raise fault
            if is_end:
                return


def _take(pieces: Iterator[Piece], count: int) -> tuple[list[Piece], UrsaError | None, bool]:
    """So many pieces, the fault that ended them, and whether there are no more."""
    taken: list[Piece] = []
    try:
        for piece in pieces:
            taken.append(piece)
            if len(taken) == count:
                return taken, None, False
    except UrsaError as error:
        return taken, error, True
    return taken, None, True


def _load_ahead(
    items: Iterable[Item],
    cut: Cut,
    temporal_stride: int,
    done: Container[str],
    folder: Path,
    count: int,
) -> Generator[tuple[Item, _Pieces | None], None, None]:
    """Items in order with their pieces, ``count`` items begun ahead by threads.

    An item that is done already comes without pieces.
    """
    waiting: deque[tuple[Item, _Pieces | None]] = deque()
    pool = ThreadPoolExecutor(num_cores())
    try:
        for item in items:
            pieces = None
            if item.key not in done:
                pieces = _Pieces(pool, item, item.clips(cut, temporal_stride), folder, count)
            waiting.append((item, pieces))
            if len(waiting) > count:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class _Work:
    """An item at work: rows and results of its clips so far, and how many are to be encoded."""

    item: Item
    pieces: _Pieces
    rows: list[TokenRow] = field(default_factory=list)
    results: list[ItemResult] = field(default_factory=list)
    num_waiting: int = 0
    is_read: bool = False

    @property
    def is_done(self) -> bool:
        return self.is_read and not self.num_waiting


class Tokenizing:
    """Encodes the clips of items into shards, in batches of one shape.

    The clips of an item come into the same shard, so that it is done where one of them is.

    Args:
        tokenizer: encodes them.
        cut: how they are cut.
        writer: takes the rows.
        num_checked: clips that are decoded again and compared, from the first on; all by default.
        refine: steps of ``refined_codes``.

    Attributes:
        num_uncaptioned: clips without a caption, so far.

    Raises:
        ShapeError: the cut doesn't fit the strides of the tokenizer.
    """

    def __init__(
        self,
        tokenizer: VisualTokenizer,
        cut: Cut,
        writer: ShardWriter,
        num_checked: int | None = None,
        refine: int = 0,
    ) -> None:
        self._tokenizer, self._cut, self._writer = tokenizer, cut, writer
        self._refine = refine
        self._num_left = num_checked
        self.num_uncaptioned = 0
        self._unreadable: set[str] = set()  # recorded paths
        self._waiting: dict[tuple[int, ...], list[tuple[_Work, LoadedClip, float]]] = {}
        for height, width in cut.all_sizes:
            tokenizer.strides.grid(PixelShape(cut.shape.frames, height, width))

    def run(
        self, items: Sequence[Item], found: Comparison | None = None
    ) -> Generator[tuple[str, list[ItemResult]], None, None]:
        """Each item's name when it is done, and the results of its clips, or why there is none.

        Clips that the folder holds already are kept, unless their file or its captions have
        changed; those that can't be read are skipped, and what is there of them stays. However the
        iteration ends, the items done until then are written; what they replace is removed at the
        end.

        Args:
            items: where the clips come from.
            found: what the folder holds of them, where that has been found out before.

        Raises:
            DataError: a shard can't be written.
        """
        cut, writer = self._cut, self._writer
        found = found or self.compare(items)
        ahead = _batch_size(cut.shape.frames * cut.shape.height * cut.shape.width)
        stride = self._tokenizer.strides.temporal
        with (
            writer,
            closing(_load_ahead(items, cut, stride, found.done, writer.folder, ahead)) as loading,
        ):
            for item, pieces in loading:
                if pieces is None:
                    yield item.name, [ItemResult(item.name, "kept")]
                else:
                    yield from self._item(_Work(item, pieces))
            for clips in list(self._waiting.values()):
                yield from self._encode(clips)
        # Only now that the new clips are written: a kill leaves both, and the next run removes one.
        writer.remove([each for each in found.stale if each.origin.path not in self._unreadable])

    def compare(
        self,
        items: Sequence[Item],
        report: Report | None = None,
        part: Shard = Shard(),  # noqa: B008  (frozen)
        drop_gone: bool = False,
    ) -> Comparison:
        """What the folder holds of the items of all parts; see :func:`compare`."""
        names = {self._cut.item_of(clip) for clip in self._writer.done}
        made = self._writer.made
        if report is not None:
            names, made = names | report.dropped_names, made | report.dropped
        return compare(items, names, made, self._writer.folder, part.owns, drop_gone)

    def _item(self, work: _Work) -> Iterator[tuple[str, list[ItemResult]]]:
        try:
            for piece in work.pieces:
                yield from self._piece(work, piece)
        except UrsaError as error:
            for clips in self._waiting.values():
                clips[:] = [entry for entry in clips if entry[0] is not work]
            reason = f"{error.message} ({error.hint})" if error.hint else error.message
            self._unreadable.add(recorded_path(work.item, self._writer.folder.resolve()))
            yield work.item.name, [ItemResult(work.item.name, "skipped", reason)]
            return
        work.is_read = True
        if work.is_done:
            self._writer.add(*work.rows)
            yield work.item.name, work.results
        for clips in self._waiting.values():
            yield from self._encode(clips, if_full=True)

    def _piece(self, work: _Work, piece: Piece) -> Iterator[tuple[str, list[ItemResult]]]:
        if isinstance(piece, Dropped):
            self._drop(work, piece)
            return
        motion = motion_of(piece.frames)
        reason = self._cut.filters.of_motion(motion)
        if reason:
            self._drop(work, Dropped(piece.name, reason, f"{motion:.4g}"))
            return
        work.num_waiting += 1
        clips = self._waiting.setdefault(piece.frames.shape, [])
        yield from self._encode(clips, if_full=True)
        clips.append((work, piece, motion))

    @staticmethod
    def _drop(work: _Work, clip: Dropped) -> None:
        result = ItemResult(
            clip.name, "dropped", clip.reason, clip.found, origin=work.pieces.origin
        )
        work.results.append(result)

    def _encode(
        self, clips: list[tuple[_Work, LoadedClip, float]], *, if_full: bool = False
    ) -> Iterator[tuple[str, list[ItemResult]]]:
        """Encode waiting clips, and give the results of the items that are done with them."""
        if not clips or (if_full and len(clips) < _batch_size(clips[0][1].frames[..., 0].size)):
            return
        batch, clips[:] = list(clips), []
        codes = encode_clips(self._tokenizer, [clip.frames for _, clip, _ in batch], self._refine)
        for (work, clip, motion), of_clip in zip(batch, codes, strict=True):
            fps, origin = self._cut.fps, work.pieces.origin
            row = TokenRow(of_clip, clip.captions, fps, motion, clip.name, origin)
            work.rows.append(row)
            self.num_uncaptioned += not clip.captions
            work.num_waiting -= 1
        done = [work for work in {id(work): work for work, *_ in batch}.values() if work.is_done]
        for work in done:
            self._writer.add(*work.rows)
        # After the rows: decoding takes longer than encoding, and may be interrupted.
        for (work, clip, _), of_clip in zip(batch, codes, strict=True):
            quality = None
            if self._num_left is None or self._num_left > 0:
                quality = measure(self._tokenizer, of_clip, clip.frames)
                self._num_left = None if self._num_left is None else self._num_left - 1
            work.results.append(ItemResult(clip.name, "done", quality=quality))
        for work in done:
            yield work.item.name, work.results
